// hadamard_conv2d_batch_norm: hadamard_conv2d, batch normalisation by the batch's own moments, an optional residual and an
// optional ReLU in one op. The convolution leaves its exact integer sums, two bytes each, and they are what is normalised
// and saved: mean and variance are ratios of integers, no element of the layer is saved as a float.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <cmath>
#include <mutex>

#include "csrc/core/saturate.h"
#include "csrc/kernels/dispatch.h"
#include "csrc/ops/batch_norm_passes.h"
#include "csrc/ops/check.h"
#include "csrc/ops/conv_products.h"

namespace quintil::ops {

namespace {

using at::Tensor;
using std::optional;
using Sizes = std::vector<c10::SymInt>;
using SizesRef = c10::SymIntArrayRef;

constexpr const char* kOp = "hadamard_conv2d_batch_norm";

// Largest magnitude that a sum can have, whatever the data: every tile at its limit, or every product at its largest.
int64_t largest_sum(const HadamardConfig& config, int64_t depth) {
  const int64_t products = depth * ((int64_t{1} << config.bits) - 1) * ((int64_t{1} << (config.bits - 1)) - 1);
  const Accumulator& acc = config.forward;
  if (acc.bits >= 32) return products;
  const int64_t tiles = acc.tile == 0 ? 1 : (depth + acc.tile - 1) / acc.tile;
  const int64_t limit = int64_t{accumulator_limit(acc.bits)} + (acc.wraps ? 1 : 0);
  return std::min(products, tiles * limit);
}

void check_channels(const char* name, const Tensor& t, const c10::SymInt& channels) {
  check_dtype(kOp, name, t, at::kFloat);
  TORCH_CHECK_VALUE(t.dim() == 1 && t.sym_size(0) == channels, kOp, ": expected ", name,
                    " to hold one element per output channel, got ", t.sym_sizes(), " for ", channels, " channels");
}

struct Inputs {
  const Tensor &x, &weight, &norm_weight, &norm_bias;
  const optional<Tensor>& residual;
};

Sizes check_forward(const Inputs& in, SizesRef stride, SizesRef padding, SizesRef dilation,
                    const HadamardConfig& config, double eps, const optional<c10::SymInt>& seed) {
  check_layer(kOp, in.x, in.weight, std::nullopt);
  check_seed_value(kOp, seed);
  const Sizes sizes = conv_output_sizes(kOp, in.x, in.weight, stride, padding, dilation);
  check_channels("norm_weight", in.norm_weight, sizes[1]);
  check_channels("norm_bias", in.norm_bias, sizes[1]);
  if (in.residual) {
    check_dtype(kOp, "residual", *in.residual, at::kFloat);
    TORCH_CHECK_VALUE(in.residual->sym_sizes() == SizesRef(sizes), kOp,
                      ": expected residual to have the output's shape ", SizesRef(sizes), ", got ",
                      in.residual->sym_sizes());
  }
  TORCH_CHECK_VALUE(eps > 0 && std::isfinite(eps), kOp, ": expected eps > 0, got ", eps);
  const c10::SymInt values = sizes[0] * sizes[2] * sizes[3];
  TORCH_CHECK_VALUE(values > 1, kOp, ": expected more than 1 value per channel, got ", values, " (the output is ",
                    SizesRef(sizes), ")");
  const c10::SymInt depth = in.weight.sym_size(1) * in.weight.sym_size(2) * in.weight.sym_size(3);
  const int64_t largest = largest_sum(config, depth.guard_int(__FILE__, __LINE__));
  TORCH_CHECK_VALUE(largest <= INT16_MAX, kOp, ": expected sums that fit 16 bits, got up to ", largest, " (", depth,
                    " products, accumulator_bits is ", config.forward.bits, ", tile_size is ", config.forward.tile,
                    ")");
  return sizes;
}

// The convolution's sums [N * L, O] and their moments; integers, so the order of the strips does not matter.
void convolve(const ConvOperands& c, int16_t* out, Moments& moments) {
  const int64_t channels = c.p.outputs;
  std::mutex mutex;
  for_each_strip(c.p, [&](int64_t first, int64_t count) {
    Workspace scratch;
    Moments own(scratch, channels);
    Out strip;
    strip.s32 = scratch.take<int32_t>(count * channels);
    strip.ld = channels;
    multiply_strip(c, first, count, strip);
    kernels::active().narrow_s32s16_moments(strip.s32, count, channels, out + first * channels, own.sums, own.squares);
    const std::lock_guard<std::mutex> lock(mutex);
    moments.add(own, channels);
  });
}

using Forward = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

Forward forward_cpu(const Tensor& x, const Tensor& weight, const Tensor& norm_weight, const Tensor& norm_bias,
                    const optional<Tensor>& residual, at::IntArrayRef stride, at::IntArrayRef padding,
                    at::IntArrayRef dilation, at::IntArrayRef options, bool relu, double eps, double range_fraction,
                    optional<int64_t> seed) {
  const HadamardConfig config = HadamardConfig::decode(options);
  const Sizes sizes =
      check_forward({x, weight, norm_weight, norm_bias, residual}, c10::fromIntArrayRefSlow(stride),
                    c10::fromIntArrayRefSlow(padding), c10::fromIntArrayRefSlow(dilation), config, eps, seed);
  if (residual) check_finite(kOp, "residual", *residual);
  Workspace scratch;
  const ConvProblem p = conv_problem(x.sizes(), weight.sizes(), stride, padding, dilation, config.channels_last_taps);
  const int64_t rows = p.samples * p.positions, channels = p.outputs;
  const ConvOperands c = quantize_conv(kOp, scratch, x, weight, p, config, range_fraction, seed);
  Tensor sums = at::empty({rows, channels}, at::kShort);
  auto* codes = sums.mutable_data_ptr<int16_t>();
  Moments moments(scratch, channels);
  convolve(c, codes, moments);

  const double step = static_cast<double>(c.weight.step) * static_cast<double>(c.image.step);
  const NormConstants norm(scratch, moments, rows, step, eps, norm_weight, norm_bias);
  const Tensor added = residual ? residual->contiguous(kChannelsLast) : Tensor();
  const auto* add = residual ? added.const_data_ptr<float>() : nullptr;
  Tensor y = at::empty_symint(sizes, x.options().memory_format(kChannelsLast));
  Tensor positive = at::empty({relu ? rows : 0, mask_width(channels)}, at::kByte);
  auto* out = y.mutable_data_ptr<float>();
  auto* mask = positive.numel() > 0 ? positive.mutable_data_ptr<uint8_t>() : nullptr;
  at::parallel_for(0, rows, kRowsPerTask, [&](int64_t begin, int64_t end) {
    const int64_t at = begin * channels;
    kernels::active().batch_norm_s16f32(codes + at, end - begin, channels,
                                        {norm.y_scale, norm.y_shift, add == nullptr ? nullptr : add + at, relu},
                                        out + at, mask == nullptr ? nullptr : mask + begin * mask_width(channels));
  });
  y = y.contiguous(x.suggest_memory_format());
  return {y,
          norm.mean,
          norm.variance,
          sums,
          positive,
          norm.table,
          save_codes(c.image, config.bits),
          save_codes(c.weight, config.bits),
          save_scales(c.image, c.weight)};
}

Forward forward_meta(const Tensor& x, const Tensor& weight, const Tensor& norm_weight, const Tensor& norm_bias,
                     const optional<Tensor>& residual, SizesRef stride, SizesRef padding, SizesRef dilation,
                     at::IntArrayRef options, bool relu, double eps, double, optional<c10::SymInt> seed) {
  const HadamardConfig config = HadamardConfig::decode(options);
  const Sizes sizes =
      check_forward({x, weight, norm_weight, norm_bias, residual}, stride, padding, dilation, config, eps, seed);
  const c10::SymInt rows = sizes[0] * sizes[2] * sizes[3], channels = sizes[1];
  auto [x_codes, weight_codes, scales] = saved_like(x, weight, config.bits);
  return {at::empty_symint(sizes, x.options().memory_format(x.suggest_memory_format())),
          at::empty_symint({channels}, x.options()),
          at::empty_symint({channels}, x.options()),
          at::empty_symint({rows, channels}, x.options().dtype(at::kShort)),
          at::empty_symint({relu ? rows : c10::SymInt(0), (channels + 7) / 8}, x.options().dtype(at::kByte)),
          at::empty_symint({c10::SymInt(NormConstants::kRows), channels}, x.options()),
          x_codes,
          weight_codes,
          scales};
}

using Backward = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

Backward backward_cpu(const Tensor& grad, const Tensor& sums, const Tensor& positive, const Tensor& constants,
                      const Tensor& x_codes, const Tensor& weight_codes, const Tensor& scales, at::IntArrayRef x_size,
                      at::IntArrayRef w_size, at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation,
                      at::IntArrayRef options, optional<int64_t> seed, std::array<bool, 3> needed) {
  check_dtype(kOp, "grad", grad, at::kFloat);
  check_finite(kOp, "grad", grad);
  const HadamardConfig config = HadamardConfig::decode(options);
  const ConvProblem p = conv_problem(x_size, w_size, stride, padding, dilation, config.channels_last_taps);
  Workspace scratch;
  const Tensor g = grad.contiguous(kChannelsLast);
  NormGradient n(scratch, g, sums, positive, constants, needed[2]);
  const OutputGradient rows = [&](int64_t first, int64_t count, float* room) {
    n.rows(first * p.positions, count * p.positions, room);
    return room;
  };
  if (!needed[0] && !needed[1] && needed[2]) rows(0, p.samples, scratch.take<float>(sums.numel()));
  auto [dx, dw] = conv_gradients(kOp, {p, config, rows, seed}, x_codes, weight_codes, scales, x_size, w_size,
                                 {needed[0], needed[1]});
  return {dx, dw, n.norm_weight, n.norm_bias, n.residual};
}

Backward backward_meta(const Tensor& grad, const Tensor&, const Tensor&, const Tensor& constants, const Tensor&,
                       const Tensor&, const Tensor&, SizesRef x_size, SizesRef w_size, SizesRef, SizesRef, SizesRef,
                       at::IntArrayRef options, optional<c10::SymInt>, std::array<bool, 3> needed) {
  const auto none = at::empty({0}, grad.options());
  const auto format = weight_format(HadamardConfig::decode(options).channels_last_taps);
  const auto channels = at::empty_symint({constants.sym_size(1)}, grad.options());
  const auto image = [&](SizesRef size, at::MemoryFormat order) {
    return at::empty_symint(size, grad.options().memory_format(order));
  };
  return {needed[0] ? image(x_size, kChannelsLast) : none, needed[1] ? image(w_size, format) : none.clone(), channels,
          channels.clone(), needed[2] ? image(grad.sym_sizes(), kChannelsLast) : none.clone()};
}

// Composite like hadamard_conv2d: it parses and casts; the casts carry gradients.
std::tuple<Tensor, Tensor, Tensor> hadamard_conv2d_batch_norm(
    const Tensor& x, const Tensor& weight, const Tensor& norm_weight, const Tensor& norm_bias,
    const optional<Tensor>& residual, c10::SymIntArrayRef stride, c10::SymIntArrayRef padding,
    c10::SymIntArrayRef dilation, bool relu, double eps, int64_t bits, int64_t accumulator_bits, int64_t tile_size,
    optional<int64_t> backward_accumulator_bits, optional<int64_t> weight_gradient_accumulator_bits,
    int64_t backward_tile_size, c10::string_view accumulate, c10::string_view overflow, c10::string_view hadamard,
    int64_t hadamard_block, bool requantize, c10::string_view dc_row, c10::string_view ste, c10::string_view stochastic,
    double range_fraction, optional<c10::SymInt> seed, c10::string_view conv_backward, c10::string_view tile_order) {
  const HadamardConfig config =
      parse(kOp, {bits, accumulator_bits, tile_size, backward_accumulator_bits, weight_gradient_accumulator_bits,
                  backward_tile_size, accumulate, overflow, hadamard, hadamard_block, requantize, dc_row, ste,
                  stochastic, range_fraction, conv_backward, tile_order});
  const auto floats = [](const char* name, const Tensor& t) {
    check_floating(kOp, name, t);
    return t.to(at::kFloat);
  };
  const Tensor image = floats("x", x), kernel = floats("weight", weight);
  const Tensor gamma = floats("norm_weight", norm_weight), beta = floats("norm_bias", norm_bias);
  const optional<Tensor> added = residual ? optional<Tensor>(floats("residual", *residual)) : std::nullopt;
  static const auto forward =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("quintil::_hadamard_conv2d_batch_norm_forward", "")
          .typed<Forward(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const optional<Tensor>&, SizesRef,
                         SizesRef, SizesRef, at::IntArrayRef, bool, double, double, optional<c10::SymInt>)>();
  const auto result = forward.call(image, kernel, gamma, beta, added, stride, padding, dilation, config.encode(), relu,
                                   eps, range_fraction, seed);
  return {std::get<0>(result).to(x.scalar_type()), std::get<1>(result), std::get<2>(result)};
}

}  // namespace

TORCH_LIBRARY_IMPL(quintil, CPU, m) {
  m.impl("_hadamard_conv2d_batch_norm_forward", forward_cpu);
  m.impl("_hadamard_conv2d_batch_norm_backward", backward_cpu);
}

TORCH_LIBRARY_IMPL(quintil, Meta, m) {
  m.impl("_hadamard_conv2d_batch_norm_forward", forward_meta);
  m.impl("_hadamard_conv2d_batch_norm_backward", backward_meta);
}

TORCH_LIBRARY_IMPL(quintil, CompositeImplicitAutograd, m) {
  m.impl("hadamard_conv2d_batch_norm", hadamard_conv2d_batch_norm);
}

}  // namespace quintil::ops
