// The reference product over int32 operands in any accumulate mode [HDQT H3]: 8 columns side by side, k ascending, so that the
// register of every column lives through the same sums as the law's.
//
// Instruction: vpmaddwd multiplies int16 halves and adds neighbours. With the upper halves of B cleared it is an exact product
//   of operands within int16, in one instruction where vpmulld takes two; wider operands take vpmulld.
// Registers, 2 x 16 block: 4 sums, 4 vectors that remember what a limit changed, 2 rows of B, the limits; totals stay in L1.
#include <immintrin.h>

#include <cstdint>

#include "csrc/core/types.h"
#include "csrc/kernels/avx2/kernels.h"
#include "csrc/kernels/avx2/lanes.h"

namespace quintil::kernels::avx2 {

namespace {

constexpr int64_t kColumns = 16;

bool fits_int16(const int32_t* x, int64_t rows, int64_t cols, int64_t row, int64_t col = 1) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      const int32_t value = x[r * row + c * col];
      if (value != static_cast<int16_t>(value)) return false;
    }
  }
  return true;
}

template <Overflow kOverflow>
inline __m256i limited(__m256i sum, const WideGemm& g) {
  if constexpr (kOverflow == Overflow::kSaturate) {
    sum = _mm256_min_epi32(sum, _mm256_set1_epi32(g.limit));
    return _mm256_max_epi32(sum, _mm256_set1_epi32(-g.limit));
  } else if constexpr (kOverflow == Overflow::kWrap) {
    const __m128i count = _mm_cvtsi32_si128(g.shift);
    return _mm256_sra_epi32(_mm256_sll_epi32(sum, count), count);
  } else {
    return sum;
  }
}

// Lanes in which something is set.
inline int64_t lanes_set(__m256i v) {
  const __m256i none = _mm256_cmpeq_epi32(v, _mm256_setzero_si256());
  return 8 - __builtin_popcount(static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(none))));
}

// `rows` x 16 outputs. Returns the number of limited tiles.
template <int rows, Overflow kOverflow, bool kNarrow>
[[gnu::noinline]] int64_t block(const WideGemm& g, const int32_t* a, const int32_t* b, const __m256i* lanes, int32_t* c,
                                int64_t ld) {
  __m256i total[rows][2], sum[rows][2], changed[rows][2];
  for (int i = 0; i < rows; ++i) total[i][0] = total[i][1] = _mm256_setzero_si256();
  int64_t clamped = 0;
  const int64_t tile = g.tile == 0 ? g.k : g.tile;
  for (int64_t first = 0; first < g.k; first += tile) {
    const int64_t last = first + tile < g.k ? first + tile : g.k;
#pragma GCC unroll 2
    for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 2
      for (int j = 0; j < 2; ++j) sum[i][j] = changed[i][j] = _mm256_setzero_si256();
    }
    for (int64_t k = first; k < last; ++k) {
      __m256i column[2];
#pragma GCC unroll 2
      for (int j = 0; j < 2; ++j) {
        column[j] = _mm256_maskload_epi32(b + k * g.b_row + 8 * j, lanes[j]);
        if (kNarrow) column[j] = _mm256_and_si256(column[j], _mm256_set1_epi32(0xFFFF));
      }
#pragma GCC unroll 2
      for (int i = 0; i < rows; ++i) {
        const __m256i code = _mm256_set1_epi32(a[i * g.a_row + k * g.a_col]);
#pragma GCC unroll 2
        for (int j = 0; j < 2; ++j) {
          const __m256i product = kNarrow ? _mm256_madd_epi16(code, column[j]) : _mm256_mullo_epi32(code, column[j]);
          sum[i][j] = _mm256_add_epi32(sum[i][j], product);
          if (!g.every_mac) continue;
          const __m256i kept = limited<kOverflow>(sum[i][j], g);
          changed[i][j] = _mm256_or_si256(changed[i][j], _mm256_xor_si256(kept, sum[i][j]));
          sum[i][j] = kept;
        }
      }
    }
    for (int i = 0; i < rows; ++i) {
      for (int j = 0; j < 2; ++j) {
        const __m256i kept = limited<kOverflow>(sum[i][j], g);
        clamped += lanes_set(_mm256_or_si256(changed[i][j], _mm256_xor_si256(kept, sum[i][j])));
        total[i][j] = _mm256_add_epi32(total[i][j], kept);
      }
    }
  }
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < 2; ++j) _mm256_maskstore_epi32(c + i * ld + 8 * j, lanes[j], total[i][j]);
  }
  return clamped;
}

template <Overflow kOverflow, bool kNarrow>
int64_t multiply(const WideGemm& g, int32_t* c, int64_t ld) {
  int64_t clamped = 0;
  for (int64_t first = 0; first < g.n; first += kColumns) {
    const __m256i lanes[2] = {first_lanes(g.n - first), first_lanes(g.n - first - 8)};
    const int32_t* b = g.b + first;
    int64_t row = 0;
    for (; row + 2 <= g.m; row += 2) {
      clamped += block<2, kOverflow, kNarrow>(g, g.a + row * g.a_row, b, lanes, c + row * ld + first, ld);
    }
    if (row < g.m) clamped += block<1, kOverflow, kNarrow>(g, g.a + row * g.a_row, b, lanes, c + row * ld + first, ld);
  }
  return clamped;
}

template <bool kNarrow>
int64_t dispatched(const WideGemm& g, int32_t* c, int64_t ld) {
  switch (g.overflow) {
    case Overflow::kSaturate: return multiply<Overflow::kSaturate, kNarrow>(g, c, ld);
    case Overflow::kWrap: return multiply<Overflow::kWrap, kNarrow>(g, c, ld);
    case Overflow::kNone: break;
  }
  return multiply<Overflow::kNone, kNarrow>(g, c, ld);
}

}  // namespace

int64_t gemm_s32s32s32(const WideGemm& g, int32_t* c, int64_t ld) {
  const bool narrow = fits_int16(g.a, g.m, g.k, g.a_row, g.a_col) && fits_int16(g.b, g.k, g.n, g.b_row);
  return narrow ? dispatched<true>(g, c, ld) : dispatched<false>(g, c, ld);
}

}  // namespace quintil::kernels::avx2
