// Batch normalisation of the exact integer sums of a convolution, [rows, channels] with rows = N * L: its moments and constants
// forward, its gradient backward in two passes over the rows.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "csrc/core/types.h"
#include "csrc/ops/workspace.h"

namespace quintil::ops {

constexpr int64_t kRowsPerTask = 512;

// Bytes of a row's mask of positive outputs, a bit per channel.
inline int64_t mask_width(int64_t channels) {
  return (channels + 7) / 8;
}

// Exact sums of x and x^2 per channel.
struct Moments {
  int64_t *sums, *squares;

  Moments(Workspace& scratch, int64_t channels);
  void add(const Moments& other, int64_t channels);
};

// Mean and biased variance of step * sum, and with them the constants of both passes: normalised = sum * scale + shift,
// y = sum * y_scale + y_shift, gain = d y / d normalised over the deviation.
struct NormConstants {
  enum Row { kScale, kShift, kGain, kRows };

  at::Tensor mean, variance, table;  // [channels] twice; [kRows, channels], what the backward needs
  float *y_scale, *y_shift;

  NormConstants(Workspace& scratch, const Moments& moments, int64_t values, double step, double eps,
                const at::Tensor& norm_weight, const at::Tensor& norm_bias);
};

// From the gradient of y, [rows, channels] in channels-last format, to that of the convolution's output. The first pass finds the
// means over all rows: sums of 1024 rows each, then chunks ascending (N8). The second is asked for, some rows at a time.
class NormGradient {
 public:
  at::Tensor norm_weight, norm_bias;
  at::Tensor residual;  // written by the second pass; empty where not needed

  // The tensors stay alive as long as this does.
  NormGradient(Workspace& scratch, const at::Tensor& grad, const at::Tensor& sums, const at::Tensor& positive,
               const at::Tensor& constants, bool residual_needed);
  // dy [count, channels] of rows [first, first + count), and the residual's gradient there.
  void rows(int64_t first, int64_t count, float* dy) const;

 private:
  void find_means(Workspace& scratch);
  const uint8_t* mask_at(int64_t row) const;

  int64_t rows_, channels_;
  const int16_t* sums_;
  const float* grad_;
  const uint8_t* mask_;  // nullable
  float* passed_;        // nullable
  NormBackward norm_;
};

}  // namespace quintil::ops
