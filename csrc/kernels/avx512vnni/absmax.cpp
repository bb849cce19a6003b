// Largest magnitudes: the range of a quantiser and the width of codes. Maxima of integers, so any order gives the same bits.
#include <immintrin.h>

#include <cstdint>

#include "csrc/core/types.h"
#include "csrc/kernels/avx512vnni/kernels.h"
#include "csrc/kernels/avx512vnni/lanes.h"

namespace quintil::kernels::avx512vnni {

namespace {

// Largest of the unsigned bytes magnitude(x).
template <class T, class Magnitude>
int32_t largest_byte(const T* x, int64_t n, Magnitude magnitude) {
  __m512i most = _mm512_setzero_si512();
  for (int64_t i = 0; i < n; i += 64) {
    const __mmask64 lanes = n - i >= 64 ? ~__mmask64{0} : (__mmask64{1} << (n - i)) - 1;
    most = _mm512_max_epu8(most, magnitude(_mm512_maskz_loadu_epi8(lanes, x + i)));
  }
  const __m512i words = _mm512_max_epu16(_mm512_and_si512(most, _mm512_set1_epi16(0xFF)), _mm512_srli_epi16(most, 8));
  return static_cast<int32_t>(_mm512_reduce_max_epu32(
      _mm512_max_epu32(_mm512_and_si512(words, _mm512_set1_epi32(0xFFFF)), _mm512_srli_epi32(words, 16))));
}

}  // namespace

AbsMax absmax_f32(const float* x, int64_t n) {
  const __m512i magnitude = _mm512_set1_epi32(0x7FFFFFFF);
  __m512i most[4];
  __mmask16 negative[4] = {};
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) most[j] = _mm512_setzero_si512();
  int64_t i = 0;
  for (; i + 64 <= n; i += 64) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const __m512 v = _mm512_loadu_ps(x + i + 16 * j);
      most[j] = _mm512_max_epu32(most[j], _mm512_and_si512(_mm512_castps_si512(v), magnitude));
      negative[j] |= _mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_LT_OQ);
    }
  }
  for (; i < n; i += 16) {
    const __m512 v = _mm512_maskz_loadu_ps(first_lanes(n - i), x + i);
    most[0] = _mm512_max_epu32(most[0], _mm512_and_si512(_mm512_castps_si512(v), magnitude));
    negative[0] |= _mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_LT_OQ);
  }
  const __m512i all = _mm512_max_epu32(_mm512_max_epu32(most[0], most[1]), _mm512_max_epu32(most[2], most[3]));
  return {_mm512_reduce_max_epu32(all), (negative[0] | negative[1] | negative[2] | negative[3]) != 0 ? 1u : 0u};
}

int32_t absmax_s16(const int16_t* x, int64_t n) {
  __m512i most[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
  int64_t i = 0;
  for (; i + 64 <= n; i += 64) {
    most[0] = _mm512_max_epu16(most[0], _mm512_abs_epi16(_mm512_loadu_si512(x + i)));
    most[1] = _mm512_max_epu16(most[1], _mm512_abs_epi16(_mm512_loadu_si512(x + i + 32)));
  }
  for (; i < n; i += 32) {
    const __mmask32 lanes = n - i >= 32 ? ~0u : (1u << (n - i)) - 1;
    most[0] = _mm512_max_epu16(most[0], _mm512_abs_epi16(_mm512_maskz_loadu_epi16(lanes, x + i)));
  }
  const __m512i all = _mm512_max_epu16(most[0], most[1]);
  const __m512i low = _mm512_and_si512(all, _mm512_set1_epi32(0xFFFF));
  return static_cast<int32_t>(_mm512_reduce_max_epu32(_mm512_max_epu32(low, _mm512_srli_epi32(all, 16))));
}

int32_t absmax_u8(const uint8_t* x, int64_t n) {
  return largest_byte(x, n, [](__m512i v) { return v; });
}
int32_t absmax_s8(const int8_t* x, int64_t n) {
  return largest_byte(x, n, [](__m512i v) { return _mm512_abs_epi8(v); });  // |-128| is the byte 128
}

}  // namespace quintil::kernels::avx512vnni
