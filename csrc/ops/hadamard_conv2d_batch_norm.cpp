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
#include "csrc/ops/check.h"
#include "csrc/ops/conv_products.h"

namespace quintil::ops {

namespace {

using at::Tensor;
using std::optional;
using Sizes = std::vector<c10::SymInt>;
using SizesRef = c10::SymIntArrayRef;

constexpr const char* kOp = "hadamard_conv2d_batch_norm";
constexpr int64_t kSumChunk = 1024;  // rows of one partial sum (N8)
constexpr int64_t kRowsPerTask = 512;

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

// Exact sums of x and x^2 per channel.
struct Moments {
  int64_t *sums, *squares;

  Moments(Workspace& scratch, int64_t channels)
      : sums(scratch.take<int64_t>(channels)), squares(scratch.take<int64_t>(channels)) {
    std::fill_n(sums, channels, 0);
    std::fill_n(squares, channels, 0);
  }
  void add(const Moments& other, int64_t channels) {
    for (int64_t c = 0; c < channels; ++c) {
      sums[c] += other.sums[c];
      squares[c] += other.squares[c];
    }
  }
};

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

// Rows of the table of floats per channel that the backward needs.
enum Constant { kScale, kShift, kGain, kConstants };

// Mean and biased variance of step * sum, and with them the constants of both passes: normalised = sum * scale + shift,
// y = sum * y_scale + y_shift, gain = d y / d normalised over the deviation.
void constants_of(const Moments& moments, int64_t values, double step, double eps, const Tensor& norm_weight,
                  const Tensor& norm_bias, Tensor& mean, Tensor& variance, Tensor& constants, float* y_scale,
                  float* y_shift) {
  const int64_t channels = norm_weight.size(0);
  const Tensor gamma = norm_weight.contiguous(), beta = norm_bias.contiguous();
  auto* table = constants.mutable_data_ptr<float>();
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
    table[kScale * channels + c] = static_cast<float>(scale);
    table[kShift * channels + c] = static_cast<float>(shift);
    table[kGain * channels + c] = static_cast<float>(weight / std::sqrt(var + eps));
    y_scale[c] = static_cast<float>(weight * scale);
    y_shift[c] = static_cast<float>(weight * shift + bias);
  }
}

int64_t mask_width(int64_t channels) {
  return (channels + 7) / 8;
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

  Tensor mean = at::empty({channels}, at::kFloat), variance = at::empty({channels}, at::kFloat);
  Tensor constants = at::empty({kConstants, channels}, at::kFloat);
  auto *scale = scratch.take<float>(channels), *shift = scratch.take<float>(channels);
  constants_of(moments, rows, static_cast<double>(c.weight.step) * static_cast<double>(c.image.step), eps, norm_weight,
               norm_bias, mean, variance, constants, scale, shift);
  const Tensor added = residual ? residual->contiguous(kChannelsLast) : Tensor();
  const auto* add = residual ? added.const_data_ptr<float>() : nullptr;
  Tensor y = at::empty_symint(sizes, x.options().memory_format(kChannelsLast));
  Tensor positive = at::empty({relu ? rows : 0, mask_width(channels)}, at::kByte);
  auto* out = y.mutable_data_ptr<float>();
  auto* mask = positive.numel() > 0 ? positive.mutable_data_ptr<uint8_t>() : nullptr;
  at::parallel_for(0, rows, kRowsPerTask, [&](int64_t begin, int64_t end) {
    const int64_t at = begin * channels;
    kernels::active().batch_norm_s16f32(codes + at, end - begin, channels,
                                        {scale, shift, add == nullptr ? nullptr : add + at, relu}, out + at,
                                        mask == nullptr ? nullptr : mask + begin * mask_width(channels));
  });
  y = y.contiguous(x.suggest_memory_format());
  return {y,
          mean,
          variance,
          sums,
          positive,
          constants,
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
          at::empty_symint({c10::SymInt(kConstants), channels}, x.options()),
          x_codes,
          weight_codes,
          scales};
}

// Gradient of the batch normalisation, and of what lies behind it: from the gradient of y to that of the convolution's output.
// dy lies in scratch memory, whose pages are there already.
struct NormGradient {
  float* dy;
  Tensor norm_weight, norm_bias, residual;
};

// grad is in channels-last format. Sums of 1024 rows each, then chunks ascending (N8).
NormGradient norm_gradient(Workspace& scratch, const Tensor& grad, const Tensor& sums, const Tensor& positive,
                           const Tensor& constants, bool residual_needed) {
  const int64_t rows = sums.size(0), channels = sums.size(1), chunks = (rows + kSumChunk - 1) / kSumChunk;
  const auto* x = sums.const_data_ptr<int16_t>();
  const auto* g = grad.const_data_ptr<float>();
  const auto* mask = positive.numel() > 0 ? positive.const_data_ptr<uint8_t>() : nullptr;
  const auto* table = constants.const_data_ptr<float>();
  const auto mask_at = [&](int64_t row) { return mask == nullptr ? nullptr : mask + row * mask_width(channels); };
  auto* parts = scratch.take<float>(chunks * 2 * channels);
  std::fill_n(parts, chunks * 2 * channels, 0.0f);
  NormBackward norm{table + kScale * channels, table + kShift * channels, nullptr, nullptr, table + kGain * channels};
  at::parallel_for(0, chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      const int64_t row = chunk * kSumChunk, at = row * channels;
      float* part = parts + chunk * 2 * channels;
      kernels::active().batch_norm_sums_s16f32(x + at, g + at, mask_at(row), std::min(kSumChunk, rows - row), channels,
                                               norm, part, part + channels);
    }
  });
  const Tensor totals = at::empty({2, channels}, at::kFloat);
  auto *total = totals.mutable_data_ptr<float>(), *means = scratch.take<float>(2 * channels);
  kernels::active().sum_rows_f32(parts, chunks, 2 * channels, 2 * channels, total);
  for (int64_t i = 0; i < 2 * channels; ++i) {
    means[i] = static_cast<float>(static_cast<double>(total[i]) / static_cast<double>(rows));
  }
  norm.mean_grad = means;
  norm.mean_product = means + channels;
  NormGradient result{scratch.take<float>(rows * channels), totals[1].clone(), totals[0].clone(),
                      residual_needed ? at::empty_like(grad) : at::empty({0}, at::kFloat)};
  float* dy = result.dy;
  auto* passed = residual_needed ? result.residual.mutable_data_ptr<float>() : nullptr;
  at::parallel_for(0, rows, kRowsPerTask, [&](int64_t begin, int64_t end) {
    const int64_t at = begin * channels;
    kernels::active().batch_norm_grad_s16f32(x + at, g + at, mask_at(begin), end - begin, channels, norm, dy + at,
                                             passed == nullptr ? nullptr : passed + at);
  });
  return result;
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
  const NormGradient n = norm_gradient(scratch, grad.contiguous(kChannelsLast), sums, positive, constants, needed[2]);
  auto [dx, dw] = conv_gradients(kOp, {p, config, n.dy, seed}, x_codes, weight_codes, scales, x_size, w_size,
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
