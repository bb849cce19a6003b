// Quantisers with a given step and the gradients of that step [DR D1-D8, D10-D13], eight elements at a time.
//
// The law in its order: subtract, divide, round, scale by a power of two, round, clamp, multiply, add. Clamps take the
//   number as the second operand, which min and max return where one is NaN or both are zeros. Comparisons with NaN are
//   false: it lies inside.
// Sums (N8): the products of eight floats are exact in double; lanes 0..3 and 4..7 go to two registers of four partial
//   sums, so that element i lands in partial i % 8. Lanes beyond the end add +0.0, which changes no sum that began at
//   +0.0.
// Rounding is a template parameter; the other options are masks of all lanes.
#include <immintrin.h>

#include <cstdint>

#include "csrc/core/types.h"
#include "csrc/kernels/avx2/kernels.h"
#include "csrc/kernels/avx2/lanes.h"

namespace quintil::kernels::avx2 {

namespace {

// -1 in the first `count` < 8 lanes.

inline __m256 all_lanes(bool on) {
  return _mm256_castsi256_ps(_mm256_set1_epi32(on ? -1 : 0));
}

template <Rounding rounding>
inline __m256 rounded(__m256 u) {
  if constexpr (rounding == Rounding::kHalfEven) {
    return _mm256_round_ps(u, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  } else if constexpr (rounding == Rounding::kHalfUp) {
    const __m256 whole = _mm256_floor_ps(u);
    const __m256 up = _mm256_cmp_ps(_mm256_sub_ps(u, whole), _mm256_set1_ps(0.5f), _CMP_GE_OQ);
    return _mm256_blendv_ps(whole, _mm256_add_ps(whole, _mm256_set1_ps(1.0f)), up);
  } else {
    return _mm256_floor_ps(u);
  }
}

template <Rounding rounding>
struct Grid {
  __m256 divisor, offset, shrink, step, lo, hi, top, stored, mask_on_rounded, single_residual;

  explicit Grid(const StepGrid& g)
      : divisor(_mm256_set1_ps(g.divisor)),
        offset(_mm256_set1_ps(g.offset)),
        shrink(_mm256_set1_ps(g.shrink)),
        step(_mm256_set1_ps(g.step)),
        lo(_mm256_set1_ps(g.lo)),
        hi(_mm256_set1_ps(g.hi)),
        top(_mm256_set1_ps(g.top)),
        stored(all_lanes(g.stored)),
        mask_on_rounded(all_lanes(g.mask_on_rounded)),
        single_residual(all_lanes(g.single_residual)) {}

  __m256 difference(__m256 x) const { return _mm256_div_ps(_mm256_sub_ps(x, offset), divisor); }

  __m256 on_grid(__m256 z) const {
    const __m256 integer = _mm256_blendv_ps(z, rounded<Rounding::kHalfEven>(z), stored);
    return rounded<rounding>(_mm256_mul_ps(integer, shrink));
  }

  __m256 clamped(__m256 t, __m256 most) const { return _mm256_max_ps(lo, _mm256_min_ps(most, t)); }

  __m256 value(__m256 x) const {
    return _mm256_add_ps(_mm256_mul_ps(clamped(on_grid(difference(x)), top), step), offset);
  }
};

// Lanes of `outside` are all ones where the element lies outside the grid; slope is what the step receives per unit of
// gradient.
struct Terms {
  __m256 outside, slope;
};

template <Rounding rounding>
inline Terms terms_of(const Grid<rounding>& grid, __m256 x) {
  const __m256 z = grid.difference(x), u = _mm256_mul_ps(z, grid.shrink), t = grid.on_grid(z);
  const __m256 tested = _mm256_blendv_ps(u, t, grid.mask_on_rounded);
  const __m256 below = _mm256_cmp_ps(tested, grid.lo, _CMP_LT_OQ), above = _mm256_cmp_ps(tested, grid.hi, _CMP_GT_OQ);
  const __m256 once = grid.clamped(rounded<rounding>(u), grid.hi);
  const __m256 q = _mm256_blendv_ps(grid.clamped(t, grid.top), once, grid.single_residual);
  const __m256 inside = _mm256_blendv_ps(_mm256_sub_ps(q, u), grid.lo, below);
  return {_mm256_or_ps(below, above), _mm256_blendv_ps(inside, grid.hi, above)};
}

// Eight partial sums.
struct Partials {
  __m256d low = _mm256_setzero_pd(), high = _mm256_setzero_pd();

  void add(__m256d a, __m256d b) {
    low = _mm256_add_pd(low, a);
    high = _mm256_add_pd(high, b);
  }
  double total() const {
    alignas(32) double s[8];
    _mm256_store_pd(s, low);
    _mm256_store_pd(s + 4, high);
    return ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
  }
};

inline __m256d low_half(__m256 v) {
  return _mm256_cvtps_pd(_mm256_castps256_ps128(v));
}
inline __m256d high_half(__m256 v) {
  return _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1));
}

template <Rounding rounding>
void quantize(const float* x, int64_t n, const StepGrid& step_grid, float* y) {
  const Grid<rounding> grid(step_grid);
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) _mm256_storeu_ps(y + i, grid.value(_mm256_loadu_ps(x + i)));
  if (i == n) return;
  const __m256i lanes = first_lanes(n - i);
  _mm256_maskstore_ps(y + i, lanes, grid.value(_mm256_maskload_ps(x + i, lanes)));
}

template <Rounding rounding>
StepSums gradient(const float* x, const float* grad, int64_t n, const StepGrid& step_grid, float* dx) {
  const Grid<rounding> grid(step_grid);
  Partials step, offset;
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m256 g = _mm256_loadu_ps(grad + i);
    const Terms terms = terms_of(grid, _mm256_loadu_ps(x + i));
    _mm256_storeu_ps(dx + i, _mm256_andnot_ps(terms.outside, g));
    step.add(_mm256_mul_pd(low_half(g), low_half(terms.slope)), _mm256_mul_pd(high_half(g), high_half(terms.slope)));
    const __m256 lost = _mm256_and_ps(terms.outside, g);
    offset.add(low_half(lost), high_half(lost));
  }
  if (i < n) {
    const __m256i lanes = first_lanes(n - i);
    const __m256 g = _mm256_maskload_ps(grad + i, lanes);
    const Terms terms = terms_of(grid, _mm256_maskload_ps(x + i, lanes));
    _mm256_maskstore_ps(dx + i, lanes, _mm256_andnot_ps(terms.outside, g));
    const __m256 slope = _mm256_and_ps(terms.slope, _mm256_castsi256_ps(lanes));
    step.add(_mm256_mul_pd(low_half(g), low_half(slope)), _mm256_mul_pd(high_half(g), high_half(slope)));
    const __m256 lost = _mm256_and_ps(terms.outside, g);
    offset.add(low_half(lost), high_half(lost));
  }
  return {step.total(), offset.total()};
}

}  // namespace

void lsq_f32f32(const float* x, int64_t n, const StepGrid& grid, float* y) {
  switch (grid.rounding) {
    case Rounding::kHalfEven: return quantize<Rounding::kHalfEven>(x, n, grid, y);
    case Rounding::kHalfUp: return quantize<Rounding::kHalfUp>(x, n, grid, y);
    case Rounding::kFloor: return quantize<Rounding::kFloor>(x, n, grid, y);
  }
}

StepSums lsq_f32f32f32_backward(const float* x, const float* grad, int64_t n, const StepGrid& grid, float* dx) {
  switch (grid.rounding) {
    case Rounding::kHalfEven: return gradient<Rounding::kHalfEven>(x, grad, n, grid, dx);
    case Rounding::kHalfUp: return gradient<Rounding::kHalfUp>(x, grad, n, grid, dx);
    case Rounding::kFloor: break;
  }
  return gradient<Rounding::kFloor>(x, grad, n, grid, dx);
}

}  // namespace quintil::kernels::avx2
