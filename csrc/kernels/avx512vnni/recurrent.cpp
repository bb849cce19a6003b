// Time steps of recurrent layers in the order of the law, sixteen hidden numbers at a time.
//
// e^x: n ln 2 is taken away in two parts, the power of two is put together from its exponent. max returns its second
//   operand for NaN, so that nothing but numbers is converted; the end gives a NaN back.
// Both ways of the tangent are computed, and each lane takes its own.
// Tails: masks; masked lanes load zeros, of which everything is finite.
#include <immintrin.h>

#include <cstdint>

#include "csrc/core/types.h"
#include "csrc/kernels/avx512vnni/kernels.h"
#include "csrc/kernels/avx512vnni/lanes.h"

namespace quintil::kernels::avx512vnni {

namespace {

using Lanes = __m512;

inline Lanes all(float x) {
  return _mm512_set1_ps(x);
}
// p * x + c, two roundings.
inline Lanes next(Lanes p, Lanes x, float c) {
  return _mm512_add_ps(_mm512_mul_ps(p, x), all(c));
}

inline Lanes exp_of_negative(Lanes x) {
  const Lanes a = _mm512_max_ps(x, all(-87.0f));
  const Lanes n = _mm512_roundscale_ps(_mm512_mul_ps(a, all(1.44269504f)), _MM_FROUND_TO_NEAREST_INT);
  const Lanes r =
      _mm512_add_ps(_mm512_sub_ps(a, _mm512_mul_ps(n, all(0.693359375f))), _mm512_mul_ps(n, all(2.12194440e-4f)));
  Lanes p = next(all(1.9875691500e-4f), r, 1.3981999507e-3f);
  p = next(p, r, 8.3334519073e-3f);
  p = next(p, r, 4.1665795894e-2f);
  p = next(p, r, 1.6666665459e-1f);
  p = next(p, r, 5.0000001201e-1f);
  const Lanes e = _mm512_add_ps(_mm512_add_ps(_mm512_mul_ps(p, _mm512_mul_ps(r, r)), r), all(1.0f));
  const __m512i exponent = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
  return _mm512_mul_ps(e, _mm512_castsi512_ps(_mm512_slli_epi32(exponent, 23)));
}

inline Lanes unless_nan(Lanes x, Lanes value) {
  return _mm512_mask_mov_ps(value, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), x);
}

inline Lanes logistic(Lanes x) {
  const Lanes t = exp_of_negative(_mm512_or_ps(x, all(-0.0f)));
  const __mmask16 upper = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_GE_OQ);
  return unless_nan(x, _mm512_div_ps(_mm512_mask_mov_ps(t, upper, all(1.0f)), _mm512_add_ps(all(1.0f), t)));
}

inline Lanes hyperbolic_tangent(Lanes x) {
  const Lanes size = _mm512_abs_ps(x), z = _mm512_mul_ps(x, x);
  Lanes p = next(all(-5.70498872745e-3f), z, 2.06390887954e-2f);
  p = next(p, z, -5.37397155531e-2f);
  p = next(p, z, 1.33314422036e-1f);
  p = next(p, z, -3.33332819422e-1f);
  const Lanes near = _mm512_add_ps(_mm512_mul_ps(_mm512_mul_ps(p, z), x), x);
  const Lanes t = exp_of_negative(_mm512_mul_ps(all(-2.0f), size));
  const Lanes quotient = _mm512_div_ps(_mm512_sub_ps(all(1.0f), t), _mm512_add_ps(all(1.0f), t));
  const Lanes far = _mm512_or_ps(quotient, _mm512_and_ps(x, all(-0.0f)));
  return unless_nan(x, _mm512_mask_mov_ps(far, _mm512_cmp_ps_mask(size, all(0.625f), _CMP_LT_OQ), near));
}

// low + 256 high of both bytes of a state.
inline Lanes whole(const float* low, const float* high, int64_t i, __mmask16 lanes) {
  return _mm512_add_ps(_mm512_maskz_loadu_ps(lanes, low + i),
                       _mm512_mul_ps(_mm512_maskz_loadu_ps(lanes, high + i), all(256.0f)));
}

}  // namespace

void lstm_cell_f32(const float* low, const float* high, const float* part, int64_t rows, int64_t hidden, float* cell,
                   float* state) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t j = 0; j < hidden; j += 16) {
      const __mmask16 lanes = first_lanes(hidden - j);
      const auto gate = [&](int64_t which) {
        const int64_t i = (4 * r + which) * hidden + j;
        return _mm512_add_ps(whole(low, high, i, lanes), _mm512_maskz_loadu_ps(lanes, part + i));
      };
      const int64_t i = r * hidden + j;
      const Lanes kept = _mm512_mul_ps(logistic(gate(1)), _mm512_maskz_loadu_ps(lanes, cell + i));
      const Lanes next_cell = _mm512_add_ps(kept, _mm512_mul_ps(logistic(gate(0)), hyperbolic_tangent(gate(2))));
      _mm512_mask_storeu_ps(cell + i, lanes, next_cell);
      _mm512_mask_storeu_ps(state + i, lanes, _mm512_mul_ps(logistic(gate(3)), hyperbolic_tangent(next_cell)));
    }
  }
}

void gru_cell_f32(const float* low, const float* high, const float* bias, const float* part, int64_t rows,
                  int64_t hidden, const float* state, float* out) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t j = 0; j < hidden; j += 16) {
      const __mmask16 lanes = first_lanes(hidden - j);
      const auto of_input = [&](int64_t which) {
        return _mm512_maskz_loadu_ps(lanes, part + (3 * r + which) * hidden + j);
      };
      const auto of_state = [&](int64_t which) {
        return _mm512_add_ps(whole(low, high, (3 * r + which) * hidden + j, lanes),
                             _mm512_maskz_loadu_ps(lanes, bias + which * hidden + j));
      };
      const Lanes reset = logistic(_mm512_add_ps(of_input(0), of_state(0)));
      const Lanes update = logistic(_mm512_add_ps(of_input(1), of_state(1)));
      const Lanes fresh = hyperbolic_tangent(_mm512_add_ps(of_input(2), _mm512_mul_ps(reset, of_state(2))));
      const Lanes before = _mm512_maskz_loadu_ps(lanes, state + r * hidden + j);
      _mm512_mask_storeu_ps(out + r * hidden + j, lanes,
                            _mm512_add_ps(fresh, _mm512_mul_ps(update, _mm512_sub_ps(before, fresh))));
    }
  }
}

}  // namespace quintil::kernels::avx512vnni
