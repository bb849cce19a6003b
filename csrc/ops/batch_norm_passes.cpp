#include "csrc/ops/batch_norm_passes.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "csrc/kernels/dispatch.h"

namespace quintil::ops {

namespace {

constexpr int64_t kSumChunk = 1024;  // rows of one partial sum (N8)

}  // namespace

Moments::Moments(Workspace& scratch, int64_t channels)
    : sums(scratch.take<int64_t>(channels)), squares(scratch.take<int64_t>(channels)) {
  std::fill_n(sums, channels, 0);
  std::fill_n(squares, channels, 0);
}

void Moments::add(const Moments& other, int64_t channels) {
  for (int64_t c = 0; c < channels; ++c) {
    sums[c] += other.sums[c];
    squares[c] += other.squares[c];
  }
}

NormConstants::NormConstants(Workspace& scratch, const Moments& moments, int64_t values, double step, double eps,
                             const at::Tensor& norm_weight, const at::Tensor& norm_bias)
    : mean(at::empty_like(norm_weight)),
      variance(at::empty_like(norm_weight)),
      table(at::empty({kRows, norm_weight.size(0)}, at::kFloat)),
      y_scale(scratch.take<float>(norm_weight.size(0))),
      y_shift(scratch.take<float>(norm_weight.size(0))) {
  const int64_t channels = norm_weight.size(0);
  const at::Tensor gamma = norm_weight.contiguous(), beta = norm_bias.contiguous();
  auto* constants = table.mutable_data_ptr<float>();
  const auto n = static_cast<double>(values);
  for (int64_t c = 0; c < channels; ++c) {
    const auto sum = static_cast<double>(moments.sums[c]);
    const double centre = sum / n;
    const double spread = (static_cast<double>(moments.squares[c]) - sum * centre) / n;
    const double var = (spread > 0.0 ? spread : 0.0) * step * step;
    const double scale = step / std::sqrt(var + eps), shift = -centre * scale;
    const double weight = gamma.const_data_ptr<float>()[c], bias = beta.const_data_ptr<float>()[c];
    mean.mutable_data_ptr<float>()[c] = static_cast<float>(centre * step);
    variance.mutable_data_ptr<float>()[c] = static_cast<float>(var);
    constants[kScale * channels + c] = static_cast<float>(scale);
    constants[kShift * channels + c] = static_cast<float>(shift);
    constants[kGain * channels + c] = static_cast<float>(weight / std::sqrt(var + eps));
    y_scale[c] = static_cast<float>(weight * scale);
    y_shift[c] = static_cast<float>(weight * shift + bias);
  }
}

NormGradient::NormGradient(Workspace& scratch, const at::Tensor& grad, const at::Tensor& sums,
                           const at::Tensor& positive, const at::Tensor& constants, bool residual_needed)
    : residual(residual_needed ? at::empty_like(grad) : at::empty({0}, at::kFloat)),
      rows_(sums.size(0)),
      channels_(sums.size(1)),
      sums_(sums.const_data_ptr<int16_t>()),
      grad_(grad.const_data_ptr<float>()),
      mask_(positive.numel() > 0 ? positive.const_data_ptr<uint8_t>() : nullptr),
      passed_(residual_needed ? residual.mutable_data_ptr<float>() : nullptr) {
  const auto* table = constants.const_data_ptr<float>();
  const auto row = [&](NormConstants::Row r) { return table + r * channels_; };
  norm_ = {row(NormConstants::kScale), row(NormConstants::kShift), nullptr, nullptr, row(NormConstants::kGain)};
  find_means(scratch);
}

const uint8_t* NormGradient::mask_at(int64_t row) const {
  return mask_ == nullptr ? nullptr : mask_ + row * mask_width(channels_);
}

void NormGradient::find_means(Workspace& scratch) {
  const int64_t chunks = (rows_ + kSumChunk - 1) / kSumChunk, width = 2 * channels_;
  auto* parts = scratch.take<float>(chunks * width);
  std::fill_n(parts, chunks * width, 0.0f);
  at::parallel_for(0, chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      const int64_t row = chunk * kSumChunk, at = row * channels_;
      float* part = parts + chunk * width;
      kernels::active().batch_norm_sums_s16f32(sums_ + at, grad_ + at, mask_at(row), std::min(kSumChunk, rows_ - row),
                                               channels_, norm_, part, part + channels_);
    }
  });
  const at::Tensor totals = at::empty({2, channels_}, at::kFloat);
  auto *total = totals.mutable_data_ptr<float>(), *means = scratch.take<float>(width);
  kernels::active().sum_rows_f32(parts, chunks, width, width, total);
  for (int64_t i = 0; i < width; ++i) {
    means[i] = static_cast<float>(static_cast<double>(total[i]) / static_cast<double>(rows_));
  }
  norm_.mean_grad = means;
  norm_.mean_product = means + channels_;
  norm_weight = totals[1].clone();
  norm_bias = totals[0].clone();
}

void NormGradient::rows(int64_t first, int64_t count, float* dy) const {
  at::parallel_for(0, count, kRowsPerTask, [&](int64_t begin, int64_t end) {
    const int64_t row = first + begin, at = row * channels_;
    kernels::active().batch_norm_grad_s16f32(sums_ + at, grad_ + at, mask_at(row), end - begin, channels_, norm_,
                                             dy + begin * channels_, passed_ == nullptr ? nullptr : passed_ + at);
  });
}

}  // namespace quintil::ops
