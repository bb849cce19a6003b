// hadamard_conv2d: a convolution whose three products run on integer codes [HDQT H12]; the products are in conv_products.
#include <ATen/ATen.h>
#include <torch/library.h>

#include "csrc/ops/check.h"
#include "csrc/ops/conv_products.h"

namespace quintil::ops {

namespace {

using at::Tensor;
using std::optional;

constexpr const char* kOp = "hadamard_conv2d";

// Sizes of the output [N, O, H', W'].
std::vector<c10::SymInt> check_forward(const Tensor& x, const Tensor& weight, const optional<Tensor>& bias,
                                       c10::SymIntArrayRef stride, c10::SymIntArrayRef padding,
                                       c10::SymIntArrayRef dilation, const optional<c10::SymInt>& seed) {
  check_layer(kOp, x, weight, bias);
  check_seed_value(kOp, seed);
  return conv_output_sizes(kOp, x, weight, stride, padding, dilation);
}

using Forward = std::tuple<Tensor, Tensor, Tensor, Tensor>;

Forward forward_cpu(const Tensor& x, const Tensor& weight, const optional<Tensor>& bias, at::IntArrayRef stride,
                    at::IntArrayRef padding, at::IntArrayRef dilation, at::IntArrayRef options, double range_fraction,
                    optional<int64_t> seed, bool save) {
  const auto sizes = check_forward(x, weight, bias, c10::fromIntArrayRefSlow(stride), c10::fromIntArrayRefSlow(padding),
                                   c10::fromIntArrayRefSlow(dilation), seed);
  Workspace scratch;
  const HadamardConfig config = HadamardConfig::decode(options);
  const ConvProblem p = conv_problem(x.sizes(), weight.sizes(), stride, padding, dilation, config.channels_last_taps);
  const ConvOperands c = quantize_conv(kOp, scratch, x, weight, p, config, range_fraction, seed);
  const Tensor offsets = bias ? bias->contiguous() : Tensor();
  Tensor y = at::empty_symint(sizes, x.options().memory_format(kChannelsLast));
  Out out;
  out.f32 = y.mutable_data_ptr<float>();
  out.ld = p.outputs;
  out.epilogue = {{c.weight.step, c.image.step, 1.0f}, 1.0f, bias ? offsets.const_data_ptr<float>() : nullptr};
  for_each_strip(p, [&](int64_t first, int64_t count) { multiply_strip(c, first, count, out.at(first, 0)); });
  const at::MemoryFormat format = x.suggest_memory_format();
  y = y.numel() == 0 ? at::empty_symint(sizes, x.options().memory_format(format)) : y.contiguous(format);
  if (!save) return {y, at::empty({0, 0}, at::kByte), at::empty({0, 0}, at::kByte), at::empty({0}, at::kFloat)};
  return {y, save_codes(c.image, config.bits), save_codes(c.weight, config.bits), save_scales(c.image, c.weight)};
}

Forward forward_meta(const Tensor& x, const Tensor& weight, const optional<Tensor>& bias, c10::SymIntArrayRef stride,
                     c10::SymIntArrayRef padding, c10::SymIntArrayRef dilation, at::IntArrayRef options, double,
                     optional<c10::SymInt> seed, bool save) {
  const auto sizes = check_forward(x, weight, bias, stride, padding, dilation, seed);
  const int64_t bits = HadamardConfig::decode(options).bits;
  const auto bytes = x.options().dtype(at::kByte);
  Tensor y = at::empty_symint(sizes, x.options().memory_format(x.suggest_memory_format()));
  if (!save) return {y, at::empty({0, 0}, bytes), at::empty({0, 0}, bytes), at::empty({0}, x.options())};
  auto [x_codes, weight_codes, scales] = saved_like(x, weight, bits);
  return {y, x_codes, weight_codes, scales};
}

using Backward = std::tuple<Tensor, Tensor, Tensor>;

Backward backward_cpu(const Tensor& grad, const Tensor& x_codes, const Tensor& weight_codes, const Tensor& scales,
                      at::IntArrayRef x_size, at::IntArrayRef w_size, at::IntArrayRef stride, at::IntArrayRef padding,
                      at::IntArrayRef dilation, at::IntArrayRef options, optional<int64_t> seed,
                      std::array<bool, 3> needed) {
  check_dtype(kOp, "grad", grad, at::kFloat);
  check_finite(kOp, "grad", grad);
  const HadamardConfig config = HadamardConfig::decode(options);
  const ConvProblem p = conv_problem(x_size, w_size, stride, padding, dilation, config.channels_last_taps);
  const Tensor g = grad.contiguous(kChannelsLast);
  const auto* data = g.const_data_ptr<float>();
  const OutputGradient rows = [&](int64_t first, int64_t, float*) { return data + first * p.positions * p.outputs; };
  auto [dx, dw] = conv_gradients(kOp, {p, config, rows, seed}, x_codes, weight_codes, scales, x_size, w_size,
                                 {needed[0], needed[1]});
  Tensor db = at::empty({needed[2] ? p.outputs : 0}, grad.options());
  if (needed[2]) bias_gradient(data, p.samples * p.positions, p.outputs, db.mutable_data_ptr<float>());
  return {dx, dw, db};
}

Backward backward_meta(const Tensor& grad, const Tensor&, const Tensor&, const Tensor&, c10::SymIntArrayRef x_size,
                       c10::SymIntArrayRef w_size, c10::SymIntArrayRef, c10::SymIntArrayRef, c10::SymIntArrayRef,
                       at::IntArrayRef options, optional<c10::SymInt>, std::array<bool, 3> needed) {
  const auto none = at::empty({0}, grad.options());
  const auto format = weight_format(HadamardConfig::decode(options).channels_last_taps);
  return {needed[0] ? at::empty_symint(x_size, grad.options().memory_format(kChannelsLast)) : none,
          needed[1] ? at::empty_symint(w_size, grad.options().memory_format(format)) : none.clone(),
          needed[2] ? at::empty_symint({w_size[0]}, grad.options()) : none.clone()};
}

// The public op is composite: it parses and casts, and tells whether a backward can follow; the casts carry gradients.
Tensor hadamard_conv2d(const Tensor& x, const Tensor& weight, const optional<Tensor>& bias, c10::SymIntArrayRef stride,
                       c10::SymIntArrayRef padding, c10::SymIntArrayRef dilation, int64_t bits,
                       int64_t accumulator_bits, int64_t tile_size, optional<int64_t> backward_accumulator_bits,
                       optional<int64_t> weight_gradient_accumulator_bits, int64_t backward_tile_size,
                       c10::string_view accumulate, c10::string_view overflow, c10::string_view hadamard,
                       int64_t hadamard_block, bool requantize, c10::string_view dc_row, c10::string_view ste,
                       c10::string_view stochastic, double range_fraction, optional<c10::SymInt> seed,
                       c10::string_view conv_backward, c10::string_view tile_order) {
  const HadamardConfig config =
      parse(kOp, {bits, accumulator_bits, tile_size, backward_accumulator_bits, weight_gradient_accumulator_bits,
                  backward_tile_size, accumulate, overflow, hadamard, hadamard_block, requantize, dc_row, ste,
                  stochastic, range_fraction, conv_backward, tile_order});
  const FloatOperands t = float_operands(kOp, x, weight, bias);
  static const auto forward = c10::Dispatcher::singleton()
                                  .findSchemaOrThrow("quintil::_hadamard_conv2d_forward", "")
                                  .typed<Forward(const Tensor&, const Tensor&, const optional<Tensor>&,
                                                 c10::SymIntArrayRef, c10::SymIntArrayRef, c10::SymIntArrayRef,
                                                 at::IntArrayRef, double, optional<c10::SymInt>, bool)>();
  const auto result = forward.call(t.x, t.weight, t.bias, stride, padding, dilation, config.encode(), range_fraction,
                                   seed, t.needs_gradient);
  return std::get<0>(result).to(x.scalar_type());
}

}  // namespace

TORCH_LIBRARY_IMPL(quintil, CPU, m) {
  m.impl("_hadamard_conv2d_forward", forward_cpu);
  m.impl("_hadamard_conv2d_backward", backward_cpu);
}

TORCH_LIBRARY_IMPL(quintil, Meta, m) {
  m.impl("_hadamard_conv2d_forward", forward_meta);
  m.impl("_hadamard_conv2d_backward", backward_meta);
}

TORCH_LIBRARY_IMPL(quintil, CompositeImplicitAutograd, m) {
  m.impl("hadamard_conv2d", hadamard_conv2d);
}

}  // namespace quintil::ops
