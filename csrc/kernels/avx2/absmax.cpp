// Largest magnitudes: the range of a quantiser and the width of codes. Maxima of integers, so any order gives the same bits.
#include <immintrin.h>

#include <cstdint>

#include "csrc/core/types.h"
#include "csrc/kernels/avx2/kernels.h"
#include "csrc/kernels/avx2/lanes.h"

namespace quintil::kernels::avx2 {

namespace {

// The first `count` of eight elements, the rest 0.
inline __m256 load8(const float* x, int64_t count) {
  return _mm256_maskload_ps(x, first_lanes(count));
}

// Largest of the unsigned bytes magnitude(x).
template <class T, class Magnitude>
int32_t largest_byte(const T* x, int64_t n, Magnitude magnitude) {
  __m256i most = _mm256_setzero_si256();
  alignas(32) uint8_t lanes[32] = {};
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) most = _mm256_max_epu8(most, magnitude(load(x + i)));
  for (int64_t j = 0; i + j < n; ++j) lanes[j] = static_cast<uint8_t>(x[i + j]);
  store(lanes, _mm256_max_epu8(most, magnitude(load(lanes))));
  int32_t result = 0;
  for (uint8_t lane : lanes) result = lane > result ? lane : result;
  return result;
}

}  // namespace

AbsMax absmax_f32(const float* x, int64_t n) {
  const __m256i magnitude = _mm256_set1_epi32(0x7FFFFFFF);
  __m256i most[4];
  __m256 negative[4];
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    most[j] = _mm256_setzero_si256();
    negative[j] = _mm256_setzero_ps();
  }
  const auto take = [&](int j, __m256 v) {  // bit patterns without sign are not negative: a signed maximum serves
    most[j] = _mm256_max_epi32(most[j], _mm256_and_si256(_mm256_castps_si256(v), magnitude));
    negative[j] = _mm256_or_ps(negative[j], _mm256_cmp_ps(v, _mm256_setzero_ps(), _CMP_LT_OQ));
  };
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) take(j, _mm256_loadu_ps(x + i + 8 * j));
  }
  for (; i + 8 <= n; i += 8) take(0, _mm256_loadu_ps(x + i));
  take(1, load8(x + i, n - i));
  const __m256i all = _mm256_max_epi32(_mm256_max_epi32(most[0], most[1]), _mm256_max_epi32(most[2], most[3]));
  const __m256 any = _mm256_or_ps(_mm256_or_ps(negative[0], negative[1]), _mm256_or_ps(negative[2], negative[3]));
  alignas(32) uint32_t lanes[8];
  store(lanes, all);
  AbsMax result{0, _mm256_movemask_ps(any) != 0 ? 1u : 0u};
  for (uint32_t lane : lanes) result.bits = lane > result.bits ? lane : result.bits;
  return result;
}

int32_t absmax_s16(const int16_t* x, int64_t n) {
  __m256i most[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    most[0] = _mm256_max_epu16(most[0], _mm256_abs_epi16(load(x + i)));
    most[1] = _mm256_max_epu16(most[1], _mm256_abs_epi16(load(x + i + 16)));
  }
  alignas(32) uint16_t lanes[16];
  store(lanes, _mm256_max_epu16(most[0], most[1]));
  int32_t result = 0;
  for (uint16_t lane : lanes) result = lane > result ? lane : result;
  for (; i < n; ++i) {
    const int32_t magnitude = x[i] < 0 ? -x[i] : x[i];
    result = magnitude > result ? magnitude : result;
  }
  return result;
}

int32_t absmax_u8(const uint8_t* x, int64_t n) {
  return largest_byte(x, n, [](__m256i v) { return v; });
}

int32_t absmax_s8(const int8_t* x, int64_t n) {
  return largest_byte(x, n, [](__m256i v) { return _mm256_abs_epi8(v); });  // |-128| is the byte 128
}

}  // namespace quintil::kernels::avx2
