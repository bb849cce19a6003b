// Integer products whose accumulators are limited tile by tile [HDQT H3], on vpdpbusd.
//
// Instruction: vpdpbusd adds four u8 x s8 products into each of 16 int32 lanes and never saturates, so any order of the
//   products is exact. A (u8) is the broadcast operand, a dword of four k; B (s8) is one row of a packed panel.
// Registers, 6 x 32 block: 12 tile sums, 12 totals over tiles, 2 rows of B, the two limits, the rest broadcasts of A.
//   12 x 16 for a last panel of at most 16 columns: half of each panel row is then never read.
//   8 x 32 where saturated totals fit int16 (tiles * L <= 32767): sums start L higher, so that vpackusdw, which joins both
//   halves of a row in one register, limits them from below, and one minimum from above: 16 tile sums, 8 totals.
// Index map: panel[k4][32][4] holds b(4 k4 + i, j) at ((k4 * 32) + j) * 4 + i; a tile's sum starts at start[tile][j], which
//   takes A's offset away before the limit acts.
// Overflow: a tile sum is below 4 tile_k4 * 255 * 128 in magnitude, the op bounds 4 k4 * max_a * max_b below 2^31 (N2).
//   Without a limit tiles add modulo 2^32 in any order, so one sum runs through all of them.
// Every loop over the accumulators is unrolled by pragma: GCC 12 keeps an array in registers only then.
#include <immintrin.h>

#include <cstdint>

#include "csrc/core/types.h"
#include "csrc/kernels/avx512vnni/kernels.h"
#include "csrc/kernels/avx512vnni/products.h"

namespace quintil::kernels::avx512vnni {

namespace {

constexpr int64_t kShortTiles = 258;  // tiles whose totals fit int16 at A = 8

// What one block reads: its rows of A, one panel of B.
struct Operands {
  const uint8_t* a;
  int64_t a_row;
  const int8_t* b;
  const int32_t* start;  // [tiles][32]
  int64_t k4, tile_k4;
  int32_t limit, shift;
};

// Where a block goes: int32 as it is, or float32 through the epilogue (N9). Masks cut the columns beyond n. An absent bias
// is -0.0, the one number whose sum with any x is x.
struct IntegerSink {
  int32_t* c;
  int64_t ld;
  __mmask16 mask[2];

  void column(int64_t first, const __mmask16* valid) {
    c += first;
    mask[0] = valid[0];
    mask[1] = valid[1];
  }
  void put(int64_t row, int half, __m512i total) const {
    _mm512_mask_storeu_epi32(c + row * ld + 16 * half, mask[half], total);
  }
};

struct FloatSink {
  float* c;
  int64_t ld;
  Epilogue e;
  __mmask16 mask[2];
  __m512 bias[2];

  void column(int64_t first, const __mmask16* valid) {
    c += first;
    for (int half = 0; half < 2; ++half) {
      mask[half] = valid[half];
      bias[half] = _mm512_set1_ps(-0.0f);
      if (e.bias != nullptr) bias[half] = _mm512_maskz_loadu_ps(valid[half], e.bias + first + 16 * half);
    }
  }
  void put(int64_t row, int half, __m512i total) const {
    _mm512_mask_storeu_ps(c + row * ld + 16 * half, mask[half], _mm512_add_ps(scaled(total, e), bias[half]));
  }
};

// `rows` x (16 * halves) outputs over all of k.
// Not inlined: each block has the registers for itself.
template <int rows, int halves, Overflow kOverflow, class Sink>
[[gnu::noinline]] void block(const Operands& o, int64_t row, const Sink& sink) {
  __m512i total[rows][halves], sum[rows][halves];
#pragma GCC unroll 12
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 2
    for (int j = 0; j < halves; ++j) total[i][j] = _mm512_setzero_si512();
  }
  const int64_t a_row = o.a_row, tile_bytes = o.tile_k4 * kPanelBytes;
  const uint8_t* a = o.a + row * a_row;
  const int8_t* b = o.b;
  const int8_t* const b_end = b + o.k4 * kPanelBytes;
  const int32_t* start = o.start;
  while (b < b_end) {
    const int8_t* const tile_end = b_end - b < tile_bytes ? b_end : b + tile_bytes;
#pragma GCC unroll 12
    for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 2
      for (int j = 0; j < halves; ++j) sum[i][j] = _mm512_loadu_si512(start + 16 * j);
    }
    start += kPanel;
    do {
      __m512i column[halves];
#pragma GCC unroll 2
      for (int j = 0; j < halves; ++j) column[j] = _mm512_loadu_si512(b + 64 * j);
#pragma GCC unroll 12
      for (int i = 0; i < rows; ++i) {
        const __m512i code = broadcast4(a + i * a_row);
#pragma GCC unroll 2
        for (int j = 0; j < halves; ++j) add_products(sum[i][j], code, column[j]);
      }
      a += kDepth;
      b += kPanelBytes;
    } while (b != tile_end);
#pragma GCC unroll 12
    for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 2
      for (int j = 0; j < halves; ++j)
        total[i][j] = _mm512_add_epi32(total[i][j], limited<kOverflow>(sum[i][j], o.limit, o.shift));
    }
  }
  const Sink local = sink;  // stores cannot change it
#pragma GCC unroll 12
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 2
    for (int j = 0; j < halves; ++j) local.put(row + i, j, total[i][j]);
  }
}

// The same, saturating, with totals in int16, from starts that are L higher. Totals wrap: only their end has to fit.
// Within each 128-bit lane vpackusdw puts four columns of the first half before four of the second; unpack restores both.
template <int rows, class Sink>
[[gnu::noinline]] void short_block(const Operands& o, int64_t row, const Sink& sink) {
  __m512i total[rows], sum[rows][2];
#pragma GCC unroll 8
  for (int i = 0; i < rows; ++i) total[i] = _mm512_setzero_si512();
  const int64_t a_row = o.a_row, tile_bytes = o.tile_k4 * kPanelBytes;
  const uint8_t* a = o.a + row * a_row;
  const int8_t* b = o.b;
  const int8_t* const b_end = b + o.k4 * kPanelBytes;
  const __m512i most = _mm512_set1_epi16(static_cast<int16_t>(2 * o.limit));
  for (const int32_t* start = o.start; b < b_end; start += kPanel) {
    const int8_t* const tile_end = b_end - b < tile_bytes ? b_end : b + tile_bytes;
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 2
      for (int j = 0; j < 2; ++j) sum[i][j] = _mm512_loadu_si512(start + 16 * j);
    }
    do {
      const __m512i column[2] = {_mm512_loadu_si512(b), _mm512_loadu_si512(b + 64)};
#pragma GCC unroll 8
      for (int i = 0; i < rows; ++i) {
        const __m512i code = broadcast4(a + i * a_row);
#pragma GCC unroll 2
        for (int j = 0; j < 2; ++j) add_products(sum[i][j], code, column[j]);
      }
      a += kDepth;
      b += kPanelBytes;
    } while (b != tile_end);
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
      const __m512i both = _mm512_packus_epi32(sum[i][0], sum[i][1]);
      total[i] = _mm512_add_epi16(total[i], _mm512_min_epu16(both, most));
    }
  }
  const __m512i lift = _mm512_set1_epi16(static_cast<int16_t>((o.k4 + o.tile_k4 - 1) / o.tile_k4 * o.limit));
  const Sink local = sink;  // stores cannot change it
#pragma GCC unroll 8
  for (int i = 0; i < rows; ++i) {
    const __m512i exact = _mm512_sub_epi16(total[i], lift);
    local.put(row + i, 0, _mm512_srai_epi32(_mm512_unpacklo_epi16(exact, exact), 16));
    local.put(row + i, 1, _mm512_srai_epi32(_mm512_unpackhi_epi16(exact, exact), 16));
  }
}

template <class Sink>
void short_panel_rows(const Operands& given, int64_t tiles, int64_t m, const Sink& sink) {
  alignas(64) int32_t lifted[kShortTiles * kPanel];
  for (int64_t i = 0; i < tiles * kPanel; i += 16) {
    _mm512_store_si512(lifted + i,
                       _mm512_add_epi32(_mm512_loadu_si512(given.start + i), _mm512_set1_epi32(given.limit)));
  }
  Operands o = given;
  o.start = lifted;
  for (int64_t row = 0, left = m; left > 0; left = m - row) {
    const int64_t take = left >= 16 || left == 8 ? 8 : left > 8 ? (left + 1) / 2 : left;
    switch (take) {
      case 8: short_block<8>(o, row, sink); break;
      case 7: short_block<7>(o, row, sink); break;
      case 6: short_block<6>(o, row, sink); break;
      case 5: short_block<5>(o, row, sink); break;
      case 4: short_block<4>(o, row, sink); break;
      case 3: short_block<3>(o, row, sink); break;
      case 2: short_block<2>(o, row, sink); break;
      default: short_block<1>(o, row, sink); break;
    }
    row += take;
  }
}

// All rows of one panel. Seven to eleven last rows are cut in halves: a block of one or two rows would wait for itself.
template <Overflow kOverflow, class Sink>
void panel_rows(const Operands& o, int64_t m, bool narrow, const Sink& sink) {
  int64_t row = 0;
  if (narrow) {
    for (; m - row >= 12; row += 12) block<12, 1, kOverflow>(o, row, sink);
  }
  for (int64_t left = m - row; left > 0; left = m - row) {
    const int64_t take = left >= 12 || left == 6 ? 6 : left > 6 ? (left + 1) / 2 : left;
    switch (take) {
      case 6: block<6, 2, kOverflow>(o, row, sink); break;
      case 5: block<5, 2, kOverflow>(o, row, sink); break;
      case 4: block<4, 2, kOverflow>(o, row, sink); break;
      case 3: block<3, 2, kOverflow>(o, row, sink); break;
      case 2: block<2, 2, kOverflow>(o, row, sink); break;
      default: block<1, 2, kOverflow>(o, row, sink); break;
    }
    row += take;
  }
}

template <class Sink>
void multiply(const Gemm& g, Sink whole) {
  const int64_t tiles = g.tile_k4 == 0 ? 0 : (g.k4 + g.tile_k4 - 1) / g.tile_k4;
  Operands o{g.a, g.a_row, g.b, g.start, tiles == 0 ? 0 : g.k4, g.tile_k4, g.limit, g.shift};
  int32_t all_tiles[kPanel];
  for (int64_t first = 0; first < g.n; first += kPanel) {
    const int64_t columns = g.n - first < kPanel ? g.n - first : kPanel;
    const uint32_t valid = columns == kPanel ? ~0u : (1u << columns) - 1;
    const __mmask16 masks[2] = {static_cast<__mmask16>(valid), static_cast<__mmask16>(valid >> 16)};
    Sink sink = whole;
    sink.column(first, masks);
    const bool narrow = columns <= 16;
    o.b = g.b + first / kPanel * g.k4 * kPanelBytes;
    o.start = g.start + first * tiles;
    if (g.overflow == Overflow::kSaturate && !narrow && tiles * g.limit <= INT16_MAX && tiles <= kShortTiles) {
      short_panel_rows(o, tiles, g.m, sink);
    } else if (g.overflow == Overflow::kSaturate) {
      panel_rows<Overflow::kSaturate>(o, g.m, narrow, sink);
    } else if (g.overflow == Overflow::kWrap) {
      panel_rows<Overflow::kWrap>(o, g.m, narrow, sink);
    } else {
      for (int half = 0; half < 2; ++half) {
        __m512i sum = _mm512_setzero_si512();
        for (int64_t t = 0; t < tiles; ++t) {
          sum = _mm512_add_epi32(sum, _mm512_loadu_si512(o.start + t * kPanel + 16 * half));
        }
        _mm512_storeu_si512(all_tiles + 16 * half, sum);
      }
      o.start = all_tiles;
      o.tile_k4 = o.k4;
      panel_rows<Overflow::kNone>(o, g.m, narrow, sink);
    }
  }
}

}  // namespace

void gemm_u8s8s32(const Gemm& g, int32_t* c, int64_t ld) {
  multiply(g, IntegerSink{c, ld, {}});
}

void gemm_u8s8f32(const Gemm& g, const Epilogue& e, float* c, int64_t ld) {
  multiply(g, FloatSink{c, ld, e, {}, {}});
}

void scale_s32f32(const int32_t* x, int64_t n, const Epilogue& e, float* out) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) _mm512_storeu_ps(out + i, scaled(_mm512_loadu_si512(x + i), e));
  const __mmask16 rest = static_cast<__mmask16>((1u << (n - i)) - 1);
  _mm512_mask_storeu_ps(out + i, rest, scaled(_mm512_maskz_loadu_epi32(rest, x + i), e));
}

}  // namespace quintil::kernels::avx512vnni
