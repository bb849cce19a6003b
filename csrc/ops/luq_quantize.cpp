// luq_quantize, luq_codes: gradients as 0 and powers of two times alpha [HDQT H14-H16]; sawb_clip: the range of the
// forward operands [HDQT H13].
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <array>
#include <bit>
#include <vector>

#include "csrc/kernels/dispatch.h"
#include "csrc/ops/check.h"
#include "csrc/ops/code_matrix.h"
#include "csrc/ops/draw_rows.h"
#include "csrc/ops/groups.h"
#include "csrc/quantizers/luq.h"

namespace quintil::ops {

namespace {

using at::Tensor;

constexpr const char* kOp = "luq_quantize";
constexpr int64_t kMostSamples = 1024;  // sums of levels stay exact in float32

enum class Levels : int64_t { kCorrected = 0, kOriginal = 1 };

void check_forward(const Tensor& x, c10::SymInt seed, int64_t bits, int64_t samples) {
  check_dtype(kOp, "x", x, at::kFloat);
  check_seed_value(kOp, seed);
  check_range(kOp, "bits", bits, 2, 5);
  check_range(kOp, "samples", samples, 1, kMostSamples);
}

float largest_magnitude(const Tensor& x) {
  return std::bit_cast<float>(absmax(x.const_data_ptr<float>(), x.numel()).bits);
}

// [H14] The published range is the signed maximum; where no number is positive, which gives NaN there, max|x|.
float alpha_of(const Tensor& x, int64_t bits, Levels levels) {
  const auto exponent = static_cast<int32_t>((int64_t{1} << (bits - 1)) - 2);
  const float range = largest_magnitude(x);
  if (levels == Levels::kCorrected || !std::isfinite(range) || range == 0) return luq_alpha(range, exponent);
  const float highest = x.max().item<float>();
  return luq_alpha(highest > 0 ? highest : range, exponent + 1);
}

Draw draw_of(int64_t seed, int64_t sample) {
  Draw draw = *draw_for(seed, Site::kLuqSample, true);
  draw.site += static_cast<uint32_t>(sample);
  return draw;
}

Tensor forward_cpu(const Tensor& x, int64_t seed, int64_t bits, int64_t samples, int64_t levels) {
  check_forward(x, seed, bits, samples);
  check_finite(kOp, "x", x);
  const Tensor data = x.contiguous();
  const float alpha = alpha_of(data, bits, static_cast<Levels>(levels));
  Tensor y = at::zeros(x.sizes(), x.options());
  if (std::isnan(alpha)) return y.fill_(alpha);
  if (alpha == 0) return y;
  const auto* from = data.const_data_ptr<float>();
  auto* to = y.mutable_data_ptr<float>();
  const float count = static_cast<float>(samples);
  for_rows(x, [&](int64_t first, int64_t rows, int64_t cols) {
    const int64_t at = first * cols;
    for (int64_t j = 0; j < samples; ++j)
      kernels::active().luq_f32f32(from + at, rows, cols, alpha, draw_of(seed, j), first, to + at);
    for (int64_t i = at; i < at + rows * cols; ++i) to[i] = alpha * (to[i] / count);
  });
  return y;
}

Tensor forward_meta(const Tensor& x, c10::SymInt seed, int64_t bits, int64_t samples, int64_t) {
  check_forward(x, seed, bits, samples);
  return at::empty_symint(x.sym_sizes(), x.options());
}

Tensor luq_quantize(const Tensor& x, c10::SymInt seed, int64_t bits, int64_t samples, c10::string_view levels) {
  static const auto forward = c10::Dispatcher::singleton()
                                  .findSchemaOrThrow("quintil::_luq_forward", "")
                                  .typed<Tensor(const Tensor&, c10::SymInt, int64_t, int64_t, int64_t)>();
  check_floating(kOp, "x", x);
  const int64_t mode = check_name(kOp, "levels", levels, {"corrected", "original"});
  return forward.call(x.to(at::kFloat), seed, bits, samples, mode).to(x.scalar_type());
}

using Codes = std::tuple<Tensor, Tensor>;

void check_codes(const Tensor& x, c10::SymInt seed, int64_t bits, int64_t sample) {
  check_floating("luq_codes", "x", x);
  check_seed_value("luq_codes", seed);
  check_range("luq_codes", "bits", bits, 2, 4);
  check_range("luq_codes", "sample", sample, 0, kMostSamples - 1);
}

Codes codes_cpu(const Tensor& x, int64_t seed, int64_t bits, int64_t sample) {
  check_codes(x, seed, bits, sample);
  check_finite("luq_codes", "x", x);
  const Tensor data = x.to(at::kFloat).contiguous();
  const float alpha = alpha_of(data, bits, Levels::kCorrected);
  Tensor codes = at::zeros(x.sizes(), x.options().dtype(at::kChar));
  const Tensor scale = at::scalar_tensor(alpha, data.options());
  if (std::isnan(alpha) || alpha == 0) return {codes, scale};
  const auto* from = data.const_data_ptr<float>();
  auto* to = codes.mutable_data_ptr<int8_t>();
  const Draw draw = draw_of(seed, sample);
  for_rows(x, [&](int64_t first, int64_t rows, int64_t cols) {
    kernels::active().luq_f32s8(from + first * cols, rows, cols, alpha, draw, first, to + first * cols);
  });
  return {codes, scale};
}

Codes codes_meta(const Tensor& x, c10::SymInt seed, int64_t bits, int64_t sample) {
  check_codes(x, seed, bits, sample);
  return {at::empty_symint(x.sym_sizes(), x.options().dtype(at::kChar)), at::empty({}, x.options().dtype(at::kFloat))};
}

Tensor clip_cpu(const Tensor& x) {
  check_floating("sawb_clip", "x", x);
  check_finite("sawb_clip", "x", x);
  const Tensor data = x.to(at::kFloat).contiguous();
  const auto* from = data.const_data_ptr<float>();
  const Groups all(x.numel(), 1);
  std::vector<Moments> parts(static_cast<size_t>(all.chunks));
  all.for_each_chunk([&](int64_t, int64_t first, int64_t n, int64_t chunk) {
    std::array<float, kSumChunk> magnitudes;
    for (int64_t i = 0; i < n; ++i) magnitudes[static_cast<size_t>(i)] = std::fabs(from[first + i]);
    parts[static_cast<size_t>(chunk)] = kernels::active().moments_f32(magnitudes.data(), n, 0.0f);
  });
  const Moments sums = all.total(parts, 0, Moments{0, 0}, [](Moments& total, const Moments& part) {
    total = {total.sum + part.sum, total.squares + part.squares};
  });
  const double range = static_cast<double>(largest_magnitude(data));
  return at::scalar_tensor(sawb_range(sums.squares, sums.sum, x.numel(), range), x.options().dtype(at::kDouble));
}

Tensor clip_meta(const Tensor& x) {
  check_floating("sawb_clip", "x", x);
  return at::empty({}, x.options().dtype(at::kDouble));
}

}  // namespace

TORCH_LIBRARY_IMPL(quintil, CPU, m) {
  m.impl("_luq_forward", forward_cpu);
  m.impl("luq_codes", codes_cpu);
  m.impl("sawb_clip", clip_cpu);
}

TORCH_LIBRARY_IMPL(quintil, Meta, m) {
  m.impl("_luq_forward", forward_meta);
  m.impl("luq_codes", codes_meta);
  m.impl("sawb_clip", clip_meta);
}

// Composite: it parses and casts; the casts carry gradients.
TORCH_LIBRARY_IMPL(quintil, CompositeImplicitAutograd, m) {
  m.impl("luq_quantize", luq_quantize);
}

// Codes are integers and a range is a constant of its quantiser: no gradient passes.
TORCH_LIBRARY_IMPL(quintil, Autograd, m) {
  m.impl("luq_codes", torch::CppFunction::makeFallthrough());
  m.impl("sawb_clip", torch::CppFunction::makeFallthrough());
}

}  // namespace quintil::ops
