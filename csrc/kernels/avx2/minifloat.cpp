// Floats with a list of significands [HDQT H19, H22], eight elements at a time.
//
// The exponent field gives the binade d = first_exponent - field, -228 and more; clamped to 0 .. binades - 1 it is the
//   index of two gathers, of the step and its inverse. Lanes above the first binade (d < 0, Inf and NaN among them)
//   compute something and take the top at the end, NaN lanes x itself.
// Rounding as in the law: |x| times the inverse, rounded, times the step, stopped at the top, with x's sign.
#include <immintrin.h>

#include <cstdint>

#include "csrc/core/types.h"
#include "csrc/kernels/avx2/kernels.h"
#include "csrc/kernels/avx2/philox.h"

namespace quintil::kernels::avx2 {

namespace {

struct Eight {
  __m256 units, step, above;
};

struct Format {
  const MinifloatGrid& grid;
  __m256i first, last;
  __m256 top, sign = _mm256_set1_ps(-0.0f);

  explicit Format(const MinifloatGrid& g)
      : grid(g),
        first(_mm256_set1_epi32(g.first_exponent)),
        last(_mm256_set1_epi32(g.binades - 1)),
        top(_mm256_set1_ps(g.top)) {}

  Eight split(__m256 x) const {
    const __m256i field = _mm256_srli_epi32(_mm256_slli_epi32(_mm256_castps_si256(x), 1), 24);
    const __m256i binade = _mm256_min_epi32(_mm256_sub_epi32(first, field), last);
    const __m256i index = _mm256_max_epi32(binade, _mm256_setzero_si256());
    return {_mm256_mul_ps(_mm256_andnot_ps(sign, x), _mm256_i32gather_ps(grid.inverses, index, 4)),
            _mm256_i32gather_ps(grid.steps, index, 4), _mm256_castsi256_ps(binade)};
  }

  __m256 value(__m256 x, const Eight& at, __m256 units) const {
    const __m256 magnitude = _mm256_blendv_ps(_mm256_min_ps(_mm256_mul_ps(units, at.step), top), top, at.above);
    const __m256 number = _mm256_or_ps(magnitude, _mm256_and_ps(sign, x));
    return _mm256_blendv_ps(number, x, _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  }

  __m256 nearest(__m256 x) const {
    const Eight at = split(x);
    return value(x, at, _mm256_round_ps(at.units, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }

  __m256 stochastic(__m256 x, __m256i random) const {
    const Eight at = split(x);
    const __m256 whole = _mm256_floor_ps(at.units);
    const __m256 threshold = _mm256_mul_ps(_mm256_set1_ps(65536.0f), _mm256_sub_ps(at.units, whole));
    const __m256 draw = _mm256_add_ps(_mm256_cvtepi32_ps(random), _mm256_set1_ps(0.5f));
    const __m256 up = _mm256_and_ps(_mm256_cmp_ps(draw, threshold, _CMP_LT_OQ), _mm256_set1_ps(1.0f));
    return value(x, at, _mm256_add_ps(whole, up));
  }

  // The sign of x picks which of "previous > x" and its opposite leads away from zero.
  __m256 hysteresis(__m256 x, __m256 previous) const {
    const Eight at = split(x);
    const __m256 larger = _mm256_cmp_ps(previous, x, _CMP_GT_OQ);
    const __m256 away = _mm256_xor_ps(larger, _mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_LT_OQ));
    return value(x, at, _mm256_blendv_ps(_mm256_floor_ps(at.units), _mm256_ceil_ps(at.units), away));
  }
};

// y[i ..] = f(x[i ..], i, lanes that exist) for n elements, eight at a time.
template <class F>
void for_eights(const float* x, int64_t n, float* y, F f) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) _mm256_storeu_ps(y + i, f(_mm256_loadu_ps(x + i), i, _mm256_set1_epi32(-1)));
  if (i == n) return;
  const __m256i lanes = first_lanes(n - i);
  _mm256_maskstore_ps(y + i, lanes, f(_mm256_maskload_ps(x + i, lanes), i, lanes));
}

}  // namespace

void minifloat_f32f32(const float* x, int64_t n, const MinifloatGrid& grid, float* y) {
  const Format format(grid);
  for_eights(x, n, y, [&](__m256 v, int64_t, __m256i) { return format.nearest(v); });
}

void minifloat_f32f32_stochastic(const float* x, int64_t rows, int64_t cols, const MinifloatGrid& grid,
                                 const Draw& draw, int64_t row0, float* y) {
  const Format format(grid);
  for_each_block<16>(rows, cols, draw, row0, [&](int64_t r, int64_t c, int64_t count, const __m256i(*words)[8]) {
    for (int64_t i = 0; i < count; ++i) {
      const int64_t at = (r + i) * cols + c, width = cols - c < 128 ? cols - c : 128;
      for_eights(x + at, width, y + at, [&](__m256 v, int64_t j, __m256i) {
        return format.stochastic(v, draws16(words[i], static_cast<int>(j / 8)));
      });
    }
  });
}

void minifloat_f32f32f32_hysteresis(const float* x, const float* previous, int64_t n, const MinifloatGrid& grid,
                                    float* y) {
  const Format format(grid);
  for_eights(x, n, y, [&](__m256 v, int64_t i, __m256i lanes) {
    return format.hysteresis(v, _mm256_maskload_ps(previous + i, lanes));
  });
}

}  // namespace quintil::kernels::avx2
