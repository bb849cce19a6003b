// Batch normalisation of integer sums: exact moments, then one multiplication and one addition per element.
#include "csrc/kernels/scalar/kernels.h"

namespace quintil::kernels::scalar {

namespace {

// The gradient behind the ReLU.
float passed(float grad, const uint8_t* positive, int64_t c) {
  return positive == nullptr || (positive[c / 8] >> c % 8 & 1) != 0 ? grad : 0.0f;
}

const uint8_t* row_of(const uint8_t* positive, int64_t r, int64_t cols) {
  return positive == nullptr ? nullptr : positive + r * ((cols + 7) / 8);
}

}  // namespace

void narrow_s32s16_moments(const int32_t* x, int64_t rows, int64_t cols, int16_t* out, int64_t* sums,
                           int64_t* squares) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      const int64_t value = x[r * cols + c];
      out[r * cols + c] = static_cast<int16_t>(value);
      sums[c] += value;
      squares[c] += value * value;
    }
  }
}

void batch_norm_s16f32(const int16_t* x, int64_t rows, int64_t cols, const NormForward& norm, float* y,
                       uint8_t* positive) {
  const int64_t mask_bytes = (cols + 7) / 8;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      const int64_t i = r * cols + c;
      float z = static_cast<float>(x[i]) * norm.scale[c] + norm.shift[c];
      if (norm.residual != nullptr) z += norm.residual[i];
      y[i] = norm.relu && 0.0f > z ? 0.0f : z;
      if (positive == nullptr) continue;
      uint8_t& byte = positive[r * mask_bytes + c / 8];
      if (c % 8 == 0) byte = 0;
      byte = static_cast<uint8_t>(byte | !(z <= 0.0f) << c % 8);
    }
  }
}

void batch_norm_sums_s16f32(const int16_t* x, const float* grad, const uint8_t* positive, int64_t rows, int64_t cols,
                            const NormBackward& norm, float* grad_sum, float* product_sum) {
  for (int64_t r = 0; r < rows; ++r) {
    const uint8_t* mask = row_of(positive, r, cols);
    for (int64_t c = 0; c < cols; ++c) {
      const int64_t i = r * cols + c;
      const float g = passed(grad[i], mask, c);
      grad_sum[c] += g;
      product_sum[c] += g * (static_cast<float>(x[i]) * norm.scale[c] + norm.shift[c]);
    }
  }
}

void batch_norm_grad_s16f32(const int16_t* x, const float* grad, const uint8_t* positive, int64_t rows, int64_t cols,
                            const NormBackward& norm, float* dx, float* masked_grad) {
  for (int64_t r = 0; r < rows; ++r) {
    const uint8_t* mask = row_of(positive, r, cols);
    for (int64_t c = 0; c < cols; ++c) {
      const int64_t i = r * cols + c;
      const float g = passed(grad[i], mask, c);
      const float normalised = static_cast<float>(x[i]) * norm.scale[c] + norm.shift[c];
      dx[i] = ((g - norm.mean_grad[c]) - normalised * norm.mean_product[c]) * norm.gain[c];
      if (masked_grad != nullptr) masked_grad[i] = g;
    }
  }
}

}  // namespace quintil::kernels::scalar
