// Integer products whose accumulators are limited tile by tile [HDQT H3], on tdpbusd. Packing is that of avx512vnni.
//
// Two kinds of tile: a *tile* of the law is a run of products with one limited sum, a *register tile* is described in tiles.h.
//   tdpbusd never saturates, so any order of the products is exact (N2).
// Limited: a sum has to leave its register tile to be limited. Two pairs take turns: while the sums of one tile are on their
//   way to memory, the next are multiplied and those before are limited from L1. Where totals fit int16 (tiles * L <= 32767)
//   they live in 16 vector registers: sums start L higher, vpackusdw is the lower limit and one minimum the upper, as in
//   avx512vnni; else in L1 as int32.
// Without a limit, 32 x 32 block: four sums over all of k, each row of A and column of B is read once for two of them.
// Rows: the last block ends with row m and computes some rows twice; m < 16 takes register tiles of m rows.
// Every loop over vector accumulators is unrolled by pragma: GCC 12 keeps an array in registers only then. For the same reason
//   totals are handed on by reference to functions that are always inlined; captured by a lambda they live in memory.
#include <immintrin.h>

#include <cstdint>

#include "csrc/core/types.h"
#include "csrc/kernels/amx/kernels.h"
#include "csrc/kernels/amx/tiles.h"

namespace quintil::kernels::amx {

namespace {

constexpr int64_t kShortTiles = 258;  // tiles whose totals fit int16 at A = 8

// Tile t is limited while t + 1 is stored and t + 2 multiplied.
template <int pair, class Totals>
[[gnu::always_inline]] inline void step(const Operands& o, const uint8_t* a, int64_t t, Sums* sums, Tail& tail,
                                        Totals& totals) {
  if (t + 2 < o.tiles) multiply_tile<pair>(o, a, t + 2, tail);
  if (t + 1 < o.tiles) store_pair<1 - pair>(sums[1 - pair]);
  totals.add(o, o.start + t * kPanel, sums[pair]);
}

template <class Totals>
[[gnu::always_inline]] inline void add_tiles(const Operands& o, const uint8_t* a, Totals& totals) {
  Sums sums[2];
  Tail tail;
  multiply_tile<0>(o, a, 0, tail);
  if (o.tiles > 1) multiply_tile<1>(o, a, 1, tail);
  store_pair<0>(sums[0]);
  for (int64_t t = 0; t < o.tiles; t += 2) {
    step<0>(o, a, t, sums, tail, totals);
    if (t + 1 < o.tiles) step<1>(o, a, t + 1, sums, tail, totals);
  }
}

template <Overflow kOverflow>
inline __m512i limited(__m512i sum, const Operands& o) {
  if constexpr (kOverflow == Overflow::kSaturate) {
    sum = _mm512_min_epi32(sum, _mm512_set1_epi32(o.limit));
    return _mm512_max_epi32(sum, _mm512_set1_epi32(-o.limit));
  } else {
    const __m128i count = _mm_cvtsi32_si128(o.shift);
    return _mm512_sra_epi32(_mm512_sll_epi32(sum, count), count);
  }
}

template <class Sink>
inline void put(const Operands& o, const Sink& sink, int64_t row, int half, __m512i total) {
  sink.put(row + half * o.second_row, o.narrow ? 0 : half, total);
}

// Totals of a pair in L1.
template <Overflow kOverflow>
struct WideTotals {
  Sums total;

  WideTotals() {
    for (auto& half : total.half) {
#pragma GCC unroll 16
      for (int i = 0; i < kRows; ++i) _mm512_store_si512(half[i], _mm512_setzero_si512());
    }
  }
  [[gnu::always_inline]] void add(const Operands& o, const int32_t* starts, const Sums& sums) {
    for (int half = 0; half < 2; ++half) {
      const __m512i start = _mm512_loadu_si512(starts + half * o.start_second());
#pragma GCC unroll 16
      for (int i = 0; i < kRows; ++i) {
        const __m512i sum = limited<kOverflow>(_mm512_add_epi32(_mm512_load_si512(sums.half[half][i]), start), o);
        _mm512_store_si512(total.half[half][i], _mm512_add_epi32(_mm512_load_si512(total.half[half][i]), sum));
      }
    }
  }
  template <class Sink>
  void put_all(const Operands& o, int64_t row, const Sink& sink) const {
    for (int half = 0; half < 2; ++half) {
      for (int64_t i = 0; i < o.rows; ++i) put(o, sink, row + i, half, _mm512_load_si512(total.half[half][i]));
    }
  }
};

// Saturated totals of a pair in int16, in registers. Totals wrap: only their end has to fit. Within each 128-bit lane vpackusdw
// puts four sums of the first register tile before four of the second; unpack restores both.
struct ShortTotals {
  __m512i total[kRows];

  [[gnu::always_inline]] ShortTotals() {
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) total[i] = _mm512_setzero_si512();
  }
  [[gnu::always_inline]] void add(const Operands& o, const int32_t* starts, const Sums& sums) {
    const __m512i lift = _mm512_set1_epi32(o.limit), most = _mm512_set1_epi16(static_cast<int16_t>(2 * o.limit));
    const __m512i first = _mm512_add_epi32(_mm512_loadu_si512(starts), lift);
    const __m512i second = _mm512_add_epi32(_mm512_loadu_si512(starts + o.start_second()), lift);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      const __m512i both = _mm512_packus_epi32(_mm512_add_epi32(_mm512_load_si512(sums.half[0][i]), first),
                                               _mm512_add_epi32(_mm512_load_si512(sums.half[1][i]), second));
      total[i] = _mm512_add_epi16(total[i], _mm512_min_epu16(both, most));
    }
  }
  template <class Sink>
  [[gnu::always_inline]] void put_all(const Operands& o, int64_t row, const Sink& sink) const {
    const __m512i lift = _mm512_set1_epi16(static_cast<int16_t>(o.tiles * o.limit));
    const Sink local = sink;  // stores cannot change it
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      if (i >= o.rows) break;
      const __m512i exact = _mm512_sub_epi16(total[i], lift);
      put(o, local, row + i, 0, _mm512_srai_epi32(_mm512_unpacklo_epi16(exact, exact), 16));
      put(o, local, row + i, 1, _mm512_srai_epi32(_mm512_unpackhi_epi16(exact, exact), 16));
    }
  }
};

// A pair over all of k. Not inlined: it has the registers for itself.
template <class Totals, class Sink>
[[gnu::noinline]] void limited_block(const Operands& o, int64_t row, const Sink& sink) {
  Totals totals;
  add_tiles(o, o.a + row * o.a_row, totals);
  totals.put_all(o, row, sink);
}

// 32 rows (or 16 twice) x 32 columns, or x 16 if narrow.
[[gnu::always_inline]] inline void exact_chunk(bool narrow, const uint8_t* a, const uint8_t* second, int64_t a_row,
                                               const int8_t* b) {
  _tile_loadd(4, a, a_row);
  _tile_loadd(5, second, a_row);
  _tile_loadd(6, b, kPanelBytes);
  _tile_dpbusd(0, 4, 6);
  _tile_dpbusd(2, 5, 6);
  if (narrow) return;
  _tile_loadd(7, b + 64, kPanelBytes);
  _tile_dpbusd(1, 4, 7);
  _tile_dpbusd(3, 5, 7);
}

// The same over all of k without a limit.
template <class Sink>
[[gnu::noinline]] void exact_block(const Operands& o, int64_t row, const Sink& sink) {
  const uint8_t *a = o.a + row * o.a_row, *second = a + o.second_row * o.a_row;
  const int8_t* b = o.b;
  const int64_t a_step = o.depth * kDepth, b_step = o.depth * kPanelBytes;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  int64_t groups = o.k4;
  for (; groups >= o.depth; groups -= o.depth, a += a_step, second += a_step, b += b_step) {
    exact_chunk(o.narrow, a, second, o.a_row, b);
  }
  Tail tail;
  if (groups > 0) {
    tail.copy(o, a, b, groups);
    exact_chunk(o.narrow, tail.a[0][0], tail.a[o.second_row == 0 ? 0 : 1][0], 64, tail.b[0]);
  }
  Sums sums[2];
  store_pair<0>(sums[0]);
  store_pair<1>(sums[1]);
  for (int64_t part = 0; part < (o.second_row == 0 ? 1 : 2); ++part) {
    for (int half = 0; half < (o.narrow ? 1 : 2); ++half) {
      const __m512i start = _mm512_loadu_si512(o.start + 16 * half);
      for (int64_t i = 0; i < o.rows; ++i) {
        sink.put(row + part * o.second_row + i, half,
                 _mm512_add_epi32(_mm512_load_si512(sums[part].half[half][i]), start));
      }
    }
  }
}

// Calls f(first row) for blocks of 16 rows; with `twice` for pairs of them, which lie o.second_row apart. The last of m rows
// belong to the last block: it begins earlier, or its second tile does, even where both tiles then are the same rows.
template <class F>
inline void row_blocks(Operands& o, int64_t m, bool twice, F f) {
  const int64_t step = twice ? 2 * kRows : kRows;
  for (int64_t row = 0; row < m; row += step) {
    const int64_t first = m - row < o.rows ? m - o.rows : row;
    o.second_row = !twice ? 0 : m - first < step ? m - first - o.rows : kRows;
    f(first);
  }
}

// The starts of all tiles as one.
inline void sum_starts(const int32_t* start, int64_t tiles, int32_t* all) {
  for (int half = 0; half < 2; ++half) {
    __m512i sum = _mm512_setzero_si512();
    for (int64_t t = 0; t < tiles; ++t) {
      sum = _mm512_add_epi32(sum, _mm512_loadu_si512(start + t * kPanel + 16 * half));
    }
    _mm512_storeu_si512(all + 16 * half, sum);
  }
}

template <class Sink>
void multiply(const Gemm& g, Sink whole) {
  if (g.m == 0) return;
  const int64_t tiles = g.tile_k4 == 0 ? 0 : (g.k4 + g.tile_k4 - 1) / g.tile_k4;
  const int64_t k4 = tiles == 0 ? 0 : g.k4;
  const int64_t tile_k4 = g.overflow == Overflow::kNone || g.tile_k4 > k4 ? k4 : g.tile_k4;
  const int64_t depth = k4 == 0 ? 1 : depth_of(tile_k4), rows = g.m < kRows ? g.m : kRows;
  Operands o{g.a, g.a_row, g.b, g.start, k4, tile_k4, tiles, depth, rows, g.limit, g.shift, false, 0};
  int32_t all_tiles[kPanel];
  const TileConfig config(rows, depth);
  _tile_loadconfig(&config);
  for (int64_t first = 0; first < g.n; first += kPanel) {
    const int64_t columns = g.n - first < kPanel ? g.n - first : kPanel;
    const uint32_t valid = columns == kPanel ? ~0u : (1u << columns) - 1;
    const __mmask16 masks[2] = {static_cast<__mmask16>(valid), static_cast<__mmask16>(valid >> 16)};
    Sink sink = whole;
    sink.column(first, masks);
    o.narrow = columns <= 16;
    o.b = g.b + first / kPanel * g.k4 * kPanelBytes;
    o.start = g.start + first * tiles;
    if (g.overflow == Overflow::kNone || k4 == 0) {
      sum_starts(o.start, tiles, all_tiles);
      o.start = all_tiles;
      row_blocks(o, g.m, true, [&](int64_t row) { exact_block(o, row, sink); });
    } else if (g.overflow == Overflow::kWrap) {
      row_blocks(o, g.m, o.narrow, [&](int64_t row) { limited_block<WideTotals<Overflow::kWrap>>(o, row, sink); });
    } else if (tiles * g.limit > INT16_MAX || tiles > kShortTiles) {
      row_blocks(o, g.m, o.narrow, [&](int64_t row) { limited_block<WideTotals<Overflow::kSaturate>>(o, row, sink); });
    } else {
      row_blocks(o, g.m, o.narrow, [&](int64_t row) { limited_block<ShortTotals>(o, row, sink); });
    }
  }
  _tile_release();
}

}  // namespace

void gemm_u8s8s32(const Gemm& g, int32_t* c, int64_t ld) {
  multiply(g, IntegerSink{c, ld, {}});
}

void gemm_u8s8f32(const Gemm& g, const Epilogue& e, float* c, int64_t ld) {
  multiply(g, FloatSink{c, ld, e, {}, {}});
}

}  // namespace quintil::kernels::amx
