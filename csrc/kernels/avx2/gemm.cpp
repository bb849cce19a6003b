// Integer products whose accumulators are limited tile by tile [HDQT H3], on vpmaddubsw. Packing is in pack.cpp.
//
// Instruction: vpmaddubsw multiplies u8 (A, the broadcast operand, a dword of four k) by s8 (one row of a packed panel, eight
//   columns of four k) and adds neighbours into int16, silently saturating; so lanes of int16 sum a run of groups whose bound
//   is proven, and vpmaddwd by ones adds the two lanes of a column into int32, where start, limit and total live.
// Overflow: a group of four adds at most 2 max_a max_b to each lane, so a run has floor(32767 / (2 max_a max_b)) groups:
//   156 for 15 x 7, which flushes a tile of 32 products once. Where that leaves fewer than 8 groups (8-bit codes), A is cut
//   into nibbles, a = 16 h + l with h, l <= 15, and each half has its own lanes: 2 * 15 * 128 = 3840, 8 groups, a tile of 32.
//   The int32 sums are exact by the bound of the op (N2). Without a limit all tiles are one.
// Registers, 4 x 16 block: 8 sums of a run, 2 rows of B, the broadcast, products; totals stay in L1 and are touched once a
//   tile. With nibbles 3 x 16: 12 sums.
// Index map: panel[k4][32][4] holds b(4 k4 + i, j) at ((k4 * 32) + j) * 4 + i; a block reads one 64-byte half of each row.
// Every loop over the accumulators is unrolled by pragma: GCC 12 keeps an array in registers only then.
#include <immintrin.h>

#include <cstdint>

#include "csrc/core/types.h"
#include "csrc/kernels/avx2/kernels.h"
#include "csrc/kernels/avx2/sinks.h"

namespace quintil::kernels::avx2 {

namespace {

constexpr int64_t kPanelBytes = kPanel * kDepth;  // one k4 of a panel
constexpr int32_t kShortRun = 8;                  // groups; shorter runs than this cost more than nibbles do
constexpr int kTileGroups = kTile / kDepth;       // groups of the default tile

// What one block reads: its rows of A, half a panel of B.
struct Operands {
  const uint8_t* a;
  int64_t a_row;
  const int8_t* b;
  const int32_t* start;  // [tiles][32]
  int64_t k4, tile_k4, run_k4;
  int32_t limit, shift;
};

inline __m256i broadcast4(const uint8_t* p) {
  int32_t word;
  __builtin_memcpy(&word, p, sizeof word);
  return _mm256_set1_epi32(word);
}

// The law of an accumulator in registers, so that it need not be fetched for each sum.
struct Limit {
  __m256i most, least;
  __m128i shift;

  explicit Limit(const Operands& o)
      : most(_mm256_set1_epi32(o.limit)), least(_mm256_set1_epi32(-o.limit)), shift(_mm_cvtsi32_si128(o.shift)) {}
};

template <Overflow kOverflow>
inline __m256i limited(__m256i sum, const Limit& limit) {
  if constexpr (kOverflow == Overflow::kSaturate) {
    return _mm256_max_epi32(_mm256_min_epi32(sum, limit.most), limit.least);
  } else if constexpr (kOverflow == Overflow::kWrap) {
    return _mm256_sra_epi32(_mm256_sll_epi32(sum, limit.shift), limit.shift);
  } else {
    return sum;
  }
}

// sum += x, in its register and in this order: GCC 12 would make all products of a tile first, spill sums and move the rest.
inline void add_to(__m256i& sum, __m256i x) {
  __asm__ volatile("vpaddw %1, %0, %0" : "+x"(sum) : "x"(x) : "memory");
}

// One group of four k: into the int16 lanes of each sum (kFirst: in place of what they hold).
template <bool kFirst, int rows, int parts>
[[gnu::always_inline]] inline void add_group(__m256i (&sum)[rows][2][parts], const uint8_t* a, int64_t a_row,
                                             const int8_t* b) {
  const __m256i column[2] = {load(b), load(b + 32)};
#pragma GCC unroll 4
  for (int i = 0; i < rows; ++i) {
    const __m256i codes = broadcast4(a + i * a_row);
#pragma GCC unroll 2
    for (int p = 0; p < parts; ++p) {
      __m256i part = p == 0 ? codes : _mm256_srli_epi16(codes, 4);
      if constexpr (parts == 2) part = _mm256_and_si256(part, _mm256_set1_epi8(15));
#pragma GCC unroll 2
      for (int j = 0; j < 2; ++j) {
        const __m256i products = _mm256_maddubs_epi16(part, column[j]);
        if constexpr (kFirst) {
          sum[i][j][p] = products;
        } else {
          add_to(sum[i][j][p], products);
        }
      }
    }
  }
}

// A whole run of kTileGroups groups. Without a loop no sum changes its register; a loop costs a move per sum and group.
template <int rows, int parts>
[[gnu::always_inline]] inline void add_tile(__m256i (&sum)[rows][2][parts], const uint8_t* a, int64_t a_row,
                                            const int8_t* b) {
  add_group<true>(sum, a, a_row, b);
#pragma GCC unroll 8
  for (int g = 1; g < kTileGroups; ++g) {
    add_group<false>(sum, a + g * kDepth, a_row, b + g * kPanelBytes);
  }
}

// The int32 value of a run's lanes.
template <int parts>
[[gnu::always_inline]] inline __m256i widened(const __m256i (&sum)[parts]) {
  const __m256i value = _mm256_madd_epi16(sum[0], _mm256_set1_epi16(1));
  if constexpr (parts == 1) return value;
  return _mm256_add_epi32(value, _mm256_madd_epi16(sum[parts - 1], _mm256_set1_epi16(16)));
}

// total += the limited value of a tile whose sums are complete, on top of `base` [rows][base_row].
template <int rows, int parts, Overflow kOverflow>
[[gnu::always_inline]] inline void close_tile(const __m256i (&sum)[rows][2][parts], const int32_t* base,
                                              int64_t base_row, const Limit& limit, int32_t* total) {
#pragma GCC unroll 4
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      const __m256i value = _mm256_add_epi32(widened(sum[i][j]), load(base + i * base_row + 8 * j));
      store(total + i * kColumns + 8 * j,
            _mm256_add_epi32(load(total + i * kColumns + 8 * j), limited<kOverflow>(value, limit)));
    }
  }
}

// One tile [b, tile_end) of any length, in runs.
template <int rows, int parts, Overflow kOverflow>
[[gnu::always_inline]] inline void any_tile(const Operands& o, const Limit& limit, const uint8_t* a, const int8_t* b,
                                            const int8_t* tile_end, const int32_t* base, int32_t* total) {
  alignas(32) int32_t open[rows][kColumns];  // the tile before its last run
  int64_t base_row = 0;
  while (true) {
    const int8_t* const run_end = tile_end - b < o.run_k4 * kPanelBytes ? tile_end : b + o.run_k4 * kPanelBytes;
    __m256i sum[rows][2][parts];
    add_group<true>(sum, a, o.a_row, b);
    for (a += kDepth, b += kPanelBytes; b < run_end; a += kDepth, b += kPanelBytes) {
      add_group<false>(sum, a, o.a_row, b);
    }
    if (b == tile_end) return close_tile<rows, parts, kOverflow>(sum, base, base_row, limit, total);
#pragma GCC unroll 4
    for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 2
      for (int j = 0; j < 2; ++j) {
        store(&open[i][8 * j], _mm256_add_epi32(widened(sum[i][j]), load(base + i * base_row + 8 * j)));
      }
    }
    base = open[0];
    base_row = kColumns;
  }
}

// `rows` x 16 outputs over all of k. Not inlined: each block has the registers for itself.
template <int rows, int parts, Overflow kOverflow, class Sink>
[[gnu::noinline]] void block(const Operands& o, int64_t row, const Sink& sink) {
  alignas(32) int32_t totals[rows * kColumns];
#pragma GCC unroll 8
  for (int i = 0; i < 2 * rows; ++i) store(totals + 8 * i, _mm256_setzero_si256());
  int32_t* total = totals;
  __asm__("" : "+r"(total) : : "memory");  // else GCC 12 gives the totals the registers of the sums, and spills both
  const bool whole_tiles = o.tile_k4 == kTileGroups && o.run_k4 >= kTileGroups;
  const int64_t tile_bytes = o.tile_k4 * kPanelBytes;
  const uint8_t* a = o.a + row * o.a_row;
  const int8_t* b = o.b;
  const int8_t* const b_end = b + o.k4 * kPanelBytes;
  const int32_t* start = o.start;
  const Limit limit(o);
  for (; b < b_end; start += kPanel, a += o.tile_k4 * kDepth, b += tile_bytes) {
    if (whole_tiles && b_end - b >= tile_bytes) {
      __m256i sum[rows][2][parts];
      add_tile(sum, a, o.a_row, b);
      close_tile<rows, parts, kOverflow>(sum, start, 0, limit, total);
    } else {
      any_tile<rows, parts, kOverflow>(o, limit, a, b, b_end - b < tile_bytes ? b_end : b + tile_bytes, start, total);
    }
  }
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < 2; ++j) sink.put(row + i, j, load(total + i * kColumns + 8 * j));
  }
}

template <int parts, Overflow kOverflow, class Sink>
void block_rows(const Operands& o, int64_t m, const Sink& sink) {
  constexpr int64_t kRows = parts == 1 ? 4 : 3;
  int64_t row = 0;
  for (; m - row >= kRows; row += kRows) block<kRows, parts, kOverflow>(o, row, sink);
  switch (m - row) {
    case 3: return block<3, parts, kOverflow>(o, row, sink);
    case 2: return block<2, parts, kOverflow>(o, row, sink);
    case 1: return block<1, parts, kOverflow>(o, row, sink);
    default: return;
  }
}

template <int parts, class Sink>
void limited_rows(const Operands& o, const Gemm& g, const Sink& sink) {
  switch (g.overflow) {
    case Overflow::kSaturate: return block_rows<parts, Overflow::kSaturate>(o, g.m, sink);
    case Overflow::kWrap: return block_rows<parts, Overflow::kWrap>(o, g.m, sink);
    case Overflow::kNone: return block_rows<parts, Overflow::kNone>(o, g.m, sink);
  }
}

// Groups that a lane of int16 holds.
inline int32_t run_length(int32_t max_a, int32_t max_b) {
  const int32_t group = 2 * max_a * max_b;
  return group == 0 ? INT16_MAX : INT16_MAX / group;
}

// The 16 columns from `first` on.
template <class Sink>
void multiply_columns(const Gemm& g, int64_t first, Sink sink) {
  const int64_t tiles = g.tile_k4 == 0 ? 0 : (g.k4 + g.tile_k4 - 1) / g.tile_k4;
  const int64_t panel = first / kPanel, offset = first % kPanel;
  Operands o{g.a,
             g.a_row,
             g.b + panel * g.k4 * kPanelBytes + offset * kDepth,
             g.start + panel * tiles * kPanel + offset,
             tiles == 0 ? 0 : g.k4,
             g.tile_k4,
             run_length(g.max_a, g.max_b),
             g.limit,
             g.shift};
  const bool nibbles = o.run_k4 < kShortRun && o.run_k4 < g.tile_k4;
  if (nibbles) o.run_k4 = run_length(15, g.max_b);
  sink.columns(first, g.n - first);
  int32_t all_tiles[kPanel];
  if (g.overflow == Overflow::kNone) {
    for (int j = 0; j < 2; ++j) {
      __m256i sum = _mm256_setzero_si256();
      for (int64_t t = 0; t < tiles; ++t) sum = _mm256_add_epi32(sum, load(o.start + t * kPanel + 8 * j));
      store(all_tiles + 8 * j, sum);
    }
    o.start = all_tiles;
    o.tile_k4 = o.k4;
  }
  nibbles ? limited_rows<2>(o, g, sink) : limited_rows<1>(o, g, sink);
}

template <class Sink>
void multiply(const Gemm& g, const Sink& sink) {
  for (int64_t first = 0; first < g.n; first += kColumns) multiply_columns(g, first, sink);
}

}  // namespace

void gemm_u8s8s32(const Gemm& g, int32_t* c, int64_t ld) {
  if (g.overflow == Overflow::kNone && run_length(g.max_a, g.max_b) < kShortRun)
    return gemm_u8s8s32_unlimited(g, c, ld);
  multiply(g, IntegerSink{c, ld, false, {}});
}

void gemm_u8s8f32(const Gemm& g, const Epilogue& e, float* c, int64_t ld) {
  multiply(g, FloatSink{c, ld, e, false, {}, {}});
}

// 16 columns at a time, so that the sums of some rows stay in L1 while the products pass.
void gemm_u8s8f32_sum(const Gemm* g, const Epilogue* e, int64_t count, float* c, int64_t ld) {
  for (int64_t first = 0; first < g->n; first += kColumns) {
    const __m256i mask[2] = {first_lanes(g->n - first), first_lanes(g->n - first - 8)};
    for (int64_t row = 0; row < g->m; ++row) {
      for (int j = 0; j < 2; ++j) _mm256_maskstore_ps(c + row * ld + first + 8 * j, mask[j], _mm256_setzero_ps());
    }
    for (int64_t i = 0; i < count; ++i) multiply_columns(g[i], first, SumSink{c, ld, e[i], {}});
  }
}

void scale_s32f32(const int32_t* x, int64_t n, const Epilogue& e, float* out) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) _mm256_storeu_ps(out + i, scaled(load(x + i), e));
  const __m256i rest = first_lanes(n - i);
  _mm256_maskstore_ps(out + i, rest, scaled(_mm256_maskload_epi32(x + i, rest), e));
}

}  // namespace quintil::kernels::avx2
