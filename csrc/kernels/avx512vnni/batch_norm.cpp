// Batch normalisation of integer sums. A channel is a lane: strips of sixteen columns go down blocks of 64 rows, which stay in
// L1 between strips, so that the constants of sixteen channels stay in registers and column sums add their rows in order (N8).
//
// Tails: masks cut the columns that do not exist; masked loads are zero.
// Mask: up to two bytes of `positive` per strip and row are the mask register of a comparison.
// Squares: vpmuldq squares the even lanes, and the odd ones shifted down; 64-bit sums cannot overflow below 2^33 rows. Sums
//   fit 32 bits inside a block: 64 * 32767.
// ReLU: vmaxps returns its second operand where one is NaN or both are zero, so max(0, z) is 0 > z ? 0 : z.
#include <immintrin.h>

#include <cstdint>

#include "csrc/core/types.h"
#include "csrc/kernels/avx512vnni/kernels.h"

namespace quintil::kernels::avx512vnni {

namespace {

constexpr int64_t kStrip = 16;
constexpr int64_t kRows = 64;

// Columns c .. c + count - 1 of rows of `cols`.
struct Strip {
  int64_t c, count, cols;
  __mmask16 lanes;

  __m512 load(const float* x) const { return _mm512_maskz_loadu_ps(lanes, x); }
  __m512 load(const int16_t* x) const {
    return _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(_mm256_maskz_loadu_epi16(lanes, x)));
  }
  void store(float* x, __m512 v) const { _mm512_mask_storeu_ps(x, lanes, v); }

  // Where the bits of `positive` for one row begin, and these bits.
  int64_t byte(int64_t row) const { return row * ((cols + 7) / 8) + c / 8; }
  __mmask16 bits(const uint8_t* positive, int64_t row) const {
    const uint8_t* at = positive + byte(row);
    return static_cast<__mmask16>(count > 8 ? at[0] | at[1] << 8 : at[0]);
  }
};

// Calls f(strip, first row, end row) for all strips of all blocks.
template <class F>
inline void for_each_strip(int64_t rows, int64_t cols, F f) {
  for (int64_t r = 0; r < rows; r += kRows) {
    const int64_t end = rows - r < kRows ? rows : r + kRows;
    for (int64_t c = 0; c < cols; c += kStrip) {
      const int64_t count = cols - c < kStrip ? cols - c : kStrip;
      f(Strip{c, count, cols, static_cast<__mmask16>((1u << count) - 1)}, r, end);
    }
  }
}

// grad where the ReLU let it pass.
inline __m512 passed(const Strip& strip, const float* grad, const uint8_t* positive, int64_t row) {
  const __m512 g = strip.load(grad + row * strip.cols + strip.c);
  return positive == nullptr ? g : _mm512_maskz_mov_ps(strip.bits(positive, row), g);
}

}  // namespace

void narrow_s32s16_moments(const int32_t* x, int64_t rows, int64_t cols, int16_t* out, int64_t* sums,
                           int64_t* squares) {
  for_each_strip(rows, cols, [&](const Strip& strip, int64_t begin, int64_t end) {
    __m512i sum = _mm512_setzero_si512(), even = sum, odd = sum;
    for (int64_t i = begin * cols + strip.c; i < end * cols; i += cols) {
      const __m512i v = _mm512_maskz_loadu_epi32(strip.lanes, x + i), w = _mm512_srli_epi64(v, 32);
      sum = _mm512_add_epi32(sum, v);
      even = _mm512_add_epi64(even, _mm512_mul_epi32(v, v));
      odd = _mm512_add_epi64(odd, _mm512_mul_epi32(w, w));
      _mm256_mask_storeu_epi16(out + i, strip.lanes, _mm512_cvtepi32_epi16(v));
    }
    alignas(64) int32_t lane_sums[16];
    alignas(64) int64_t lane_squares[2][8];
    _mm512_store_si512(lane_sums, sum);
    _mm512_store_si512(lane_squares[0], even);
    _mm512_store_si512(lane_squares[1], odd);
    for (int64_t i = 0; i < strip.count; ++i) {
      sums[strip.c + i] += lane_sums[i];
      squares[strip.c + i] += lane_squares[i % 2][i / 2];
    }
  });
}

void batch_norm_s16f32(const int16_t* x, int64_t rows, int64_t cols, const NormForward& norm, float* y,
                       uint8_t* positive) {
  const __m512 zero = _mm512_setzero_ps();
  for_each_strip(rows, cols, [&](const Strip& strip, int64_t begin, int64_t end) {
    const __m512 scale = strip.load(norm.scale + strip.c), shift = strip.load(norm.shift + strip.c);
    for (int64_t r = begin; r < end; ++r) {
      const int64_t i = r * cols + strip.c;
      __m512 z = _mm512_add_ps(_mm512_mul_ps(strip.load(x + i), scale), shift);
      if (norm.residual != nullptr) z = _mm512_add_ps(z, strip.load(norm.residual + i));
      strip.store(y + i, norm.relu ? _mm512_max_ps(zero, z) : z);
      if (positive == nullptr) continue;
      const uint32_t on = _mm512_mask_cmp_ps_mask(strip.lanes, z, zero, _CMP_NLE_UQ);
      uint8_t* byte = positive + strip.byte(r);
      byte[0] = static_cast<uint8_t>(on);
      if (strip.count > 8) byte[1] = static_cast<uint8_t>(on >> 8);
    }
  });
}

void batch_norm_sums_s16f32(const int16_t* x, const float* grad, const uint8_t* positive, int64_t rows, int64_t cols,
                            const NormBackward& norm, float* grad_sum, float* product_sum) {
  for_each_strip(rows, cols, [&](const Strip& strip, int64_t begin, int64_t end) {
    const __m512 scale = strip.load(norm.scale + strip.c), shift = strip.load(norm.shift + strip.c);
    __m512 sum = strip.load(grad_sum + strip.c), product = strip.load(product_sum + strip.c);
    for (int64_t r = begin; r < end; ++r) {
      const __m512 g = passed(strip, grad, positive, r);
      const __m512 normalised = _mm512_add_ps(_mm512_mul_ps(strip.load(x + r * cols + strip.c), scale), shift);
      sum = _mm512_add_ps(sum, g);
      product = _mm512_add_ps(product, _mm512_mul_ps(g, normalised));
    }
    strip.store(grad_sum + strip.c, sum);
    strip.store(product_sum + strip.c, product);
  });
}

void batch_norm_grad_s16f32(const int16_t* x, const float* grad, const uint8_t* positive, int64_t rows, int64_t cols,
                            const NormBackward& norm, float* dx, float* masked_grad) {
  for_each_strip(rows, cols, [&](const Strip& strip, int64_t begin, int64_t end) {
    const __m512 scale = strip.load(norm.scale + strip.c), shift = strip.load(norm.shift + strip.c);
    const __m512 mean_grad = strip.load(norm.mean_grad + strip.c), gain = strip.load(norm.gain + strip.c);
    const __m512 mean_product = strip.load(norm.mean_product + strip.c);
    for (int64_t r = begin; r < end; ++r) {
      const int64_t i = r * cols + strip.c;
      const __m512 g = passed(strip, grad, positive, r);
      const __m512 normalised = _mm512_add_ps(_mm512_mul_ps(strip.load(x + i), scale), shift);
      const __m512 centred = _mm512_sub_ps(_mm512_sub_ps(g, mean_grad), _mm512_mul_ps(normalised, mean_product));
      strip.store(dx + i, _mm512_mul_ps(centred, gain));
      if (masked_grad != nullptr) strip.store(masked_grad + i, g);
    }
  });
}

}  // namespace quintil::kernels::avx512vnni
