// Column sums, rows ascending (N8): every column is a lane of its own, so the order of its additions is that of the law.
#include <immintrin.h>

#include <cstdint>

#include "csrc/core/types.h"
#include "csrc/kernels/avx512vnni/kernels.h"
#include "csrc/kernels/avx512vnni/lanes.h"

namespace quintil::kernels::avx512vnni {

namespace {

constexpr int64_t kWide = 64;  // columns in registers while a block passes over all rows

}  // namespace

void sum_rows_f32(const float* x, int64_t rows, int64_t cols, int64_t ld, float* out) {
  int64_t c = 0;
  for (; c + kWide <= cols; c += kWide) {
    __m512 sum[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) sum[i] = _mm512_setzero_ps();
    for (int64_t r = 0; r < rows; ++r) {
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) sum[i] = _mm512_add_ps(sum[i], _mm512_loadu_ps(x + r * ld + c + 16 * i));
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) _mm512_storeu_ps(out + c + 16 * i, sum[i]);
  }
  for (; c < cols; c += 16) {
    const __mmask16 lanes = first_lanes(cols - c);
    __m512 sum = _mm512_setzero_ps();
    for (int64_t r = 0; r < rows; ++r) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(lanes, x + r * ld + c));
    _mm512_mask_storeu_ps(out + c, lanes, sum);
  }
}

}  // namespace quintil::kernels::avx512vnni
