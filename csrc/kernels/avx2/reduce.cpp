// Sums in a fixed order (N8): each column is a lane that adds its rows one after the other, starting from +0, so that the sum
// of -0.0 is +0.0 as in the definition.
//
// Registers: 8 sums, 64 columns; strips of 8 columns and a masked one for the rest.
#include <immintrin.h>

#include <cstdint>

#include "csrc/core/types.h"
#include "csrc/kernels/avx2/kernels.h"
#include "csrc/kernels/avx2/lanes.h"

namespace quintil::kernels::avx2 {

namespace {

template <int vectors>
void sum_strip(const float* x, int64_t rows, int64_t ld, float* out) {
  __m256 sum[vectors];
#pragma GCC unroll 8
  for (int j = 0; j < vectors; ++j) sum[j] = _mm256_setzero_ps();
  for (int64_t r = 0; r < rows; ++r, x += ld) {
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) sum[j] = _mm256_add_ps(sum[j], _mm256_loadu_ps(x + 8 * j));
  }
#pragma GCC unroll 8
  for (int j = 0; j < vectors; ++j) _mm256_storeu_ps(out + 8 * j, sum[j]);
}

void sum_masked(const float* x, int64_t rows, int64_t ld, __m256i lanes, float* out) {
  __m256 sum = _mm256_setzero_ps();
  for (int64_t r = 0; r < rows; ++r, x += ld) sum = _mm256_add_ps(sum, _mm256_maskload_ps(x, lanes));
  _mm256_maskstore_ps(out, lanes, sum);
}

}  // namespace

void sum_rows_f32(const float* x, int64_t rows, int64_t cols, int64_t ld, float* out) {
  int64_t c = 0;
  for (; c + 64 <= cols; c += 64) sum_strip<8>(x + c, rows, ld, out + c);
  for (; c + 16 <= cols; c += 16) sum_strip<2>(x + c, rows, ld, out + c);
  for (; c + 8 <= cols; c += 8) sum_strip<1>(x + c, rows, ld, out + c);
  if (c == cols) return;
  sum_masked(x + c, rows, ld, first_lanes(cols - c), out + c);
}

}  // namespace quintil::kernels::avx2
