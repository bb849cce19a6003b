// Gradients of LUQ as powers of two [HDQT H15, H16], eight elements at a time.
//
// v = |x| / alpha is a true division. From its bits: the exponent field alone is 2^k, and the mantissa over 2^23 the
//   fraction that the draw decides, times 65536 exact in float32. Lanes with v < 1 take the power 0, the threshold
//   65536 v and the step 1 instead; up is one addition, since a step from 2^k is 2^k.
// Codes: at most 64, so that two packs with signed saturation change nothing.
#include <immintrin.h>

#include <cstdint>

#include "csrc/core/types.h"
#include "csrc/kernels/avx2/kernels.h"
#include "csrc/kernels/avx2/philox.h"

namespace quintil::kernels::avx2 {

namespace {

struct Levels {
  __m256 alpha, one = _mm256_set1_ps(1.0f);

  explicit Levels(float a) : alpha(_mm256_set1_ps(a)) {}

  __m256 signed_level(__m256 x, __m256i random) const {
    const __m256 sign = _mm256_set1_ps(-0.0f), v = _mm256_div_ps(_mm256_andnot_ps(sign, x), alpha);
    const __m256i bits = _mm256_castps_si256(v);
    const __m256 power = _mm256_castsi256_ps(_mm256_and_si256(bits, _mm256_set1_epi32(0x7F800000)));
    const __m256 mantissa = _mm256_cvtepi32_ps(_mm256_and_si256(bits, _mm256_set1_epi32(0x007FFFFF)));
    const __m256 small = _mm256_cmp_ps(v, one, _CMP_LT_OQ);
    const __m256 threshold = _mm256_blendv_ps(_mm256_mul_ps(mantissa, _mm256_set1_ps(0x1p-7f)),
                                              _mm256_mul_ps(_mm256_set1_ps(65536.0f), v), small);
    const __m256 draw = _mm256_add_ps(_mm256_cvtepi32_ps(random), _mm256_set1_ps(0.5f));
    const __m256 up = _mm256_cmp_ps(draw, threshold, _CMP_LT_OQ);
    const __m256 step = _mm256_blendv_ps(power, one, small);
    const __m256 level = _mm256_add_ps(_mm256_andnot_ps(small, power), _mm256_and_ps(up, step));
    const __m256 negative = _mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_LT_OQ);
    return _mm256_xor_ps(level, _mm256_and_ps(negative, sign));
  }
};

inline void put(float* sums, __m256 level) {
  _mm256_storeu_ps(sums, _mm256_add_ps(_mm256_loadu_ps(sums), level));
}
inline void put(float* sums, __m256 level, int64_t count) {
  const __m256i lanes = first_lanes(count);
  _mm256_maskstore_ps(sums, lanes, _mm256_add_ps(_mm256_maskload_ps(sums, lanes), level));
}

inline uint64_t packed(__m256 level) {
  const __m256i codes = _mm256_cvtps_epi32(level);
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(codes), _mm256_extracti128_si256(codes, 1));
  return static_cast<uint64_t>(_mm_cvtsi128_si64(_mm_packs_epi16(words, words)));
}
inline void put(int8_t* codes, __m256 level) {
  _mm_storel_epi64(reinterpret_cast<__m128i*>(codes), _mm_cvtsi64_si128(static_cast<int64_t>(packed(level))));
}
inline void put(int8_t* codes, __m256 level, int64_t count) {
  uint64_t bytes = packed(level);
  for (int64_t i = 0; i < count; ++i, bytes >>= 8) codes[i] = static_cast<int8_t>(bytes);
}

template <class Out>
void draw_levels(const float* x, int64_t rows, int64_t cols, float alpha, const Draw& draw, int64_t row0, Out* out) {
  const Levels levels(alpha);
  for_each_block<16>(rows, cols, draw, row0, [&](int64_t r, int64_t c, int64_t count, const __m256i(*words)[8]) {
    for (int64_t i = 0; i < count; ++i) {
      const int64_t at = (r + i) * cols + c, left = cols - c;
      for (int j = 0; j < 16 && 8 * j < left; ++j) {
        const __m256i random = draws16(words[i], j);
        const float* from = x + at + 8 * j;
        if (left - 8 * j >= 8) {
          put(out + at + 8 * j, levels.signed_level(_mm256_loadu_ps(from), random));
        } else {
          const int64_t rest = left - 8 * j;
          put(out + at + 8 * j, levels.signed_level(_mm256_maskload_ps(from, first_lanes(rest)), random), rest);
        }
      }
    }
  });
}

}  // namespace

void luq_f32f32(const float* x, int64_t rows, int64_t cols, float alpha, const Draw& draw, int64_t row0, float* sums) {
  draw_levels(x, rows, cols, alpha, draw, row0, sums);
}

void luq_f32s8(const float* x, int64_t rows, int64_t cols, float alpha, const Draw& draw, int64_t row0, int8_t* codes) {
  draw_levels(x, rows, cols, alpha, draw, row0, codes);
}

}  // namespace quintil::kernels::avx2
