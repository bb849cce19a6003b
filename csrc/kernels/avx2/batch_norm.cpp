// Batch normalisation of integer sums. A channel is a lane: strips of eight columns go down blocks of 64 rows, which stay in
// L1 between strips, so that the constants of eight channels stay in registers and column sums add their rows in order (N8).
//
// Tails: fewer than eight columns take the same code with masked floats; their integers pass through eight on the stack.
// Mask: one byte of `positive` per strip and row; vmovmskps writes it, a comparison with the bits 1, 2, 4 ... 128 reads it.
// Squares: vpmuldq squares the even lanes, and the odd ones shifted down; 64-bit sums cannot overflow below 2^33 rows. Sums
//   fit 32 bits inside a block: 64 * 32767.
// ReLU: vmaxps returns its second operand where one is NaN or both are zero, so max(0, z) is 0 > z ? 0 : z.
#include <immintrin.h>

#include <cstdint>

#include "csrc/core/types.h"
#include "csrc/kernels/avx2/kernels.h"
#include "csrc/kernels/avx2/lanes.h"

namespace quintil::kernels::avx2 {

namespace {

constexpr int64_t kStrip = 8;
constexpr int64_t kRows = 64;

// Eight columns from `c` on, of which `count` exist; kFull: all do.
template <bool kFull>
struct Strip {
  int64_t c, count;
  __m256i lanes;

  Strip(int64_t first, int64_t exist) : c(first), count(exist), lanes(first_lanes(exist)) {}

  __m256 load(const float* x) const { return kFull ? _mm256_loadu_ps(x) : _mm256_maskload_ps(x, lanes); }
  void store(float* x, __m256 v) const {
    if (kFull) return _mm256_storeu_ps(x, v);
    _mm256_maskstore_ps(x, lanes, v);
  }
  __m256 load(const int16_t* x) const {
    alignas(16) int16_t few[kStrip] = {};
    if (!kFull) {
      for (int64_t i = 0; i < count; ++i) few[i] = x[i];
      x = few;
    }
    return _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x))));
  }
  __m256i load(const int32_t* x) const {
    return kFull ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x)) : _mm256_maskload_epi32(x, lanes);
  }
  void store(int16_t* x, __m128i v) const {
    if (kFull) return _mm_storeu_si128(reinterpret_cast<__m128i*>(x), v);
    alignas(16) int16_t few[kStrip];
    _mm_store_si128(reinterpret_cast<__m128i*>(few), v);
    for (int64_t i = 0; i < count; ++i) x[i] = few[i];
  }
};

// Calls f(strip, first row, end row) for all strips of all blocks.
template <class F>
inline void for_each_strip(int64_t rows, int64_t cols, F f) {
  for (int64_t r = 0; r < rows; r += kRows) {
    const int64_t end = rows - r < kRows ? rows : r + kRows;
    int64_t c = 0;
    for (; c + kStrip <= cols; c += kStrip) f(Strip<true>(c, kStrip), r, end);
    if (c < cols) f(Strip<false>(c, cols - c), r, end);
  }
}

inline __m256 passed(__m256 grad, const uint8_t* byte) {
  if (byte == nullptr) return grad;
  const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  const __m256i on = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(*byte), bit), bit);
  return _mm256_and_ps(grad, _mm256_castsi256_ps(on));
}

}  // namespace

void narrow_s32s16_moments(const int32_t* x, int64_t rows, int64_t cols, int16_t* out, int64_t* sums,
                           int64_t* squares) {
  for_each_strip(rows, cols, [&](const auto& strip, int64_t begin, int64_t end) {
    __m256i sum = _mm256_setzero_si256(), even = sum, odd = sum;
    for (int64_t r = begin; r < end; ++r) {
      const __m256i v = strip.load(x + r * cols + strip.c), w = _mm256_srli_epi64(v, 32);
      sum = _mm256_add_epi32(sum, v);
      even = _mm256_add_epi64(even, _mm256_mul_epi32(v, v));
      odd = _mm256_add_epi64(odd, _mm256_mul_epi32(w, w));
      strip.store(out + r * cols + strip.c, _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1)));
    }
    alignas(32) int32_t lane_sums[8];
    alignas(32) int64_t lane_squares[2][4];
    _mm256_store_si256(reinterpret_cast<__m256i*>(lane_sums), sum);
    _mm256_store_si256(reinterpret_cast<__m256i*>(lane_squares[0]), even);
    _mm256_store_si256(reinterpret_cast<__m256i*>(lane_squares[1]), odd);
    for (int64_t i = 0; i < strip.count; ++i) {
      sums[strip.c + i] += lane_sums[i];
      squares[strip.c + i] += lane_squares[i % 2][i / 2];
    }
  });
}

void batch_norm_s16f32(const int16_t* x, int64_t rows, int64_t cols, const NormForward& norm, float* y,
                       uint8_t* positive) {
  const int64_t mask_bytes = (cols + 7) / 8;
  const __m256 zero = _mm256_setzero_ps();
  for_each_strip(rows, cols, [&](const auto& strip, int64_t begin, int64_t end) {
    const __m256 scale = strip.load(norm.scale + strip.c), shift = strip.load(norm.shift + strip.c);
    for (int64_t r = begin; r < end; ++r) {
      const int64_t i = r * cols + strip.c;
      __m256 z = _mm256_add_ps(_mm256_mul_ps(strip.load(x + i), scale), shift);
      if (norm.residual != nullptr) z = _mm256_add_ps(z, strip.load(norm.residual + i));
      strip.store(y + i, norm.relu ? _mm256_max_ps(zero, z) : z);
      if (positive == nullptr) continue;
      const int on = _mm256_movemask_ps(_mm256_cmp_ps(z, zero, _CMP_NLE_UQ));
      positive[r * mask_bytes + strip.c / 8] = static_cast<uint8_t>(on & ((1 << strip.count) - 1));
    }
  });
}

void batch_norm_sums_s16f32(const int16_t* x, const float* grad, const uint8_t* positive, int64_t rows, int64_t cols,
                            const NormBackward& norm, float* grad_sum, float* product_sum) {
  const int64_t mask_bytes = (cols + 7) / 8;
  for_each_strip(rows, cols, [&](const auto& strip, int64_t begin, int64_t end) {
    const __m256 scale = strip.load(norm.scale + strip.c), shift = strip.load(norm.shift + strip.c);
    __m256 sum = strip.load(grad_sum + strip.c), product = strip.load(product_sum + strip.c);
    for (int64_t r = begin; r < end; ++r) {
      const int64_t i = r * cols + strip.c;
      const uint8_t* byte = positive == nullptr ? nullptr : positive + r * mask_bytes + strip.c / 8;
      const __m256 g = passed(strip.load(grad + i), byte);
      const __m256 normalised = _mm256_add_ps(_mm256_mul_ps(strip.load(x + i), scale), shift);
      sum = _mm256_add_ps(sum, g);
      product = _mm256_add_ps(product, _mm256_mul_ps(g, normalised));
    }
    strip.store(grad_sum + strip.c, sum);
    strip.store(product_sum + strip.c, product);
  });
}

void batch_norm_grad_s16f32(const int16_t* x, const float* grad, const uint8_t* positive, int64_t rows, int64_t cols,
                            const NormBackward& norm, float* dx, float* masked_grad) {
  const int64_t mask_bytes = (cols + 7) / 8;
  for_each_strip(rows, cols, [&](const auto& strip, int64_t begin, int64_t end) {
    const __m256 scale = strip.load(norm.scale + strip.c), shift = strip.load(norm.shift + strip.c);
    const __m256 mean_grad = strip.load(norm.mean_grad + strip.c), gain = strip.load(norm.gain + strip.c);
    const __m256 mean_product = strip.load(norm.mean_product + strip.c);
    for (int64_t r = begin; r < end; ++r) {
      const int64_t i = r * cols + strip.c;
      const uint8_t* byte = positive == nullptr ? nullptr : positive + r * mask_bytes + strip.c / 8;
      const __m256 g = passed(strip.load(grad + i), byte);
      const __m256 normalised = _mm256_add_ps(_mm256_mul_ps(strip.load(x + i), scale), shift);
      const __m256 centred = _mm256_sub_ps(_mm256_sub_ps(g, mean_grad), _mm256_mul_ps(normalised, mean_product));
      strip.store(dx + i, _mm256_mul_ps(centred, gain));
      if (masked_grad != nullptr) strip.store(masked_grad + i, g);
    }
  });
}

}  // namespace quintil::kernels::avx2
