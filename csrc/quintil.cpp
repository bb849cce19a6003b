// Bodies of the C++ face: one typed dispatcher handle per op, so that Meta, autograd and autocast see every call.
#include "csrc/quintil.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include "csrc/kernels/dispatch.h"
#include "csrc/ops/check.h"

namespace quintil {

namespace {

using at::Tensor;
using Text = c10::string_view;
using Seed = std::optional<c10::SymInt>;

template <class Signature>
auto handle(const char* op) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(op, "").typed<Signature>();
}

Seed symbolic(std::optional<int64_t> seed) {
  return seed ? Seed(*seed) : std::nullopt;
}

std::array<c10::SymInt, 2> symbolic(const std::array<int64_t, 2>& pair) {
  return {pair[0], pair[1]};
}

}  // namespace

int64_t draw_seed(std::optional<at::Generator> generator) {
  auto* cpu = at::get_generator_or_default<at::CPUGeneratorImpl>(generator, at::detail::getDefaultCPUGenerator());
  const std::lock_guard<std::mutex> lock(cpu->mutex_);
  return static_cast<int64_t>(cpu->random64() & ((uint64_t{1} << 62) - 1));
}

std::tuple<Tensor, Tensor> quantize(const Tensor& x, int64_t bits, bool is_signed, bool narrow, double range_fraction,
                                    const std::optional<Tensor>& scale, std::optional<int64_t> seed) {
  static const auto op = handle<std::tuple<Tensor, Tensor>(const Tensor&, int64_t, bool, bool, double,
                                                           const std::optional<Tensor>&, Seed)>("quintil::quantize");
  return op.call(x, bits, is_signed, narrow, range_fraction, scale, symbolic(seed));
}

Tensor dequantize(const Tensor& codes, const Tensor& scale) {
  static const auto op = handle<Tensor(const Tensor&, const Tensor&)>("quintil::dequantize");
  return op.call(codes, scale);
}

Tensor pack_int4(const Tensor& codes) {
  static const auto op = handle<Tensor(const Tensor&)>("quintil::pack_int4");
  return op.call(codes);
}

Tensor unpack_int4(const Tensor& packed, int64_t size, bool is_signed) {
  static const auto op = handle<Tensor(const Tensor&, c10::SymInt, bool)>("quintil::unpack_int4");
  return op.call(packed, size, is_signed);
}

Tensor hadamard_transform(const Tensor& x, int64_t dim, const std::string& hadamard, int64_t block) {
  static const auto op = handle<Tensor(const Tensor&, int64_t, Text, int64_t)>("quintil::hadamard_transform");
  return op.call(x, dim, hadamard, block);
}

Tensor tiled_int_mm(const Tensor& a, const Tensor& b, int64_t tile_size, int64_t accumulator_bits,
                    const std::string& accumulate, const std::string& overflow) {
  static const auto op =
      handle<Tensor(const Tensor&, const Tensor&, int64_t, int64_t, Text, Text)>("quintil::tiled_int_mm");
  return op.call(a, b, tile_size, accumulator_bits, accumulate, overflow);
}

Tensor tile_saturation(const Tensor& a, const Tensor& b, int64_t tile_size, int64_t accumulator_bits) {
  static const auto op = handle<Tensor(const Tensor&, const Tensor&, int64_t, int64_t)>("quintil::tile_saturation");
  return op.call(a, b, tile_size, accumulator_bits);
}

Tensor hadamard_linear(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias,
                       const HadamardOptions& o, std::optional<int64_t> seed) {
  static const auto op =
      handle<Tensor(const Tensor&, const Tensor&, const std::optional<Tensor>&, int64_t, int64_t, int64_t,
                    std::optional<int64_t>, std::optional<int64_t>, int64_t, Text, Text, Text, int64_t, bool, Text,
                    Text, Text, double, Seed)>("quintil::hadamard_linear");
  return op.call(x, weight, bias, o.bits, o.accumulator_bits, o.tile_size, o.backward_accumulator_bits,
                 o.weight_gradient_accumulator_bits, o.backward_tile_size, o.accumulate, o.overflow, o.hadamard,
                 o.hadamard_block, o.requantize, o.dc_row, o.ste, o.stochastic, o.range_fraction, symbolic(seed));
}

Tensor hadamard_conv2d(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, const ConvOptions& c,
                       const HadamardOptions& o, std::optional<int64_t> seed) {
  using Pair = c10::SymIntArrayRef;
  static const auto op =
      handle<Tensor(const Tensor&, const Tensor&, const std::optional<Tensor>&, Pair, Pair, Pair, int64_t, int64_t,
                    int64_t, std::optional<int64_t>, std::optional<int64_t>, int64_t, Text, Text, Text, int64_t, bool,
                    Text, Text, Text, double, Seed, Text, Text)>("quintil::hadamard_conv2d");
  const auto stride = symbolic(c.stride), padding = symbolic(c.padding), dilation = symbolic(c.dilation);
  return op.call(x, weight, bias, stride, padding, dilation, o.bits, o.accumulator_bits, o.tile_size,
                 o.backward_accumulator_bits, o.weight_gradient_accumulator_bits, o.backward_tile_size, o.accumulate,
                 o.overflow, o.hadamard, o.hadamard_block, o.requantize, o.dc_row, o.ste, o.stochastic,
                 o.range_fraction, symbolic(seed), c.conv_backward, c.tile_order);
}

std::tuple<Tensor, Tensor, Tensor> hadamard_conv2d_batch_norm(const Tensor& x, const Tensor& weight,
                                                              const Tensor& norm_weight, const Tensor& norm_bias,
                                                              const std::optional<Tensor>& residual,
                                                              const ConvOptions& c, bool relu, double eps,
                                                              const HadamardOptions& o, std::optional<int64_t> seed) {
  using Pair = c10::SymIntArrayRef;
  static const auto op = handle<std::tuple<Tensor, Tensor, Tensor>(
      const Tensor&, const Tensor&, const Tensor&, const Tensor&, const std::optional<Tensor>&, Pair, Pair, Pair, bool,
      double, int64_t, int64_t, int64_t, std::optional<int64_t>, std::optional<int64_t>, int64_t, Text, Text, Text,
      int64_t, bool, Text, Text, Text, double, Seed, Text, Text)>("quintil::hadamard_conv2d_batch_norm");
  const auto stride = symbolic(c.stride), padding = symbolic(c.padding), dilation = symbolic(c.dilation);
  return op.call(x, weight, norm_weight, norm_bias, residual, stride, padding, dilation, relu, eps, o.bits,
                 o.accumulator_bits, o.tile_size, o.backward_accumulator_bits, o.weight_gradient_accumulator_bits,
                 o.backward_tile_size, o.accumulate, o.overflow, o.hadamard, o.hadamard_block, o.requantize, o.dc_row,
                 o.ste, o.stochastic, o.range_fraction, symbolic(seed), c.conv_backward, c.tile_order);
}

Tensor lsq_quantize(const Tensor& x, const Tensor& scale, int64_t bits, bool is_signed,
                    const std::optional<Tensor>& offset, const std::string& mask_on) {
  static const auto op =
      handle<Tensor(const Tensor&, const Tensor&, int64_t, bool, const std::optional<Tensor>&, Text)>(
          "quintil::lsq_quantize");
  return op.call(x, scale, bits, is_signed, offset, mask_on);
}

Tensor double_round(const Tensor& codes, int64_t from_bits, int64_t to_bits, const std::string& rounding) {
  static const auto op = handle<Tensor(const Tensor&, int64_t, int64_t, Text)>("quintil::double_round");
  return op.call(codes, from_bits, to_bits, rounding);
}

Tensor double_round_quantize(const Tensor& x, const Tensor& scale, int64_t from_bits, int64_t to_bits,
                             const DoubleRoundOptions& o) {
  static const auto op =
      handle<Tensor(const Tensor&, const Tensor&, int64_t, int64_t, Text, bool, Text, Text, Text, Text)>(
          "quintil::double_round_quantize");
  return op.call(x, scale, from_bits, to_bits, o.rounding, o.chain_pow2, o.weight_source, o.mask_on, o.scale_residual,
                 o.scale_grad_sum);
}

Tensor affine_quantize(const Tensor& x, const Tensor& gain, const Tensor& shift, const Tensor& scale, int64_t bits,
                       bool is_signed) {
  static const auto op = handle<Tensor(const Tensor&, const Tensor&, const Tensor&, const Tensor&, int64_t, bool)>(
      "quintil::affine_quantize");
  return op.call(x, gain, shift, scale, bits, is_signed);
}

Tensor int_linear(const Tensor& x, const Tensor& x_scale, const Tensor& weight, const Tensor& weight_scale,
                  const std::optional<Tensor>& bias, const IntOptions& o) {
  static const auto op =
      handle<Tensor(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const std::optional<Tensor>&, int64_t,
                    int64_t, const std::optional<Tensor>&, bool, const std::optional<Tensor>&, int64_t)>(
          "quintil::int_linear");
  return op.call(x, x_scale, weight, weight_scale, bias, o.x_zero2, o.weight_zero2, o.residual, o.relu, o.out_scale,
                 o.out_bits);
}

Tensor int_conv2d(const Tensor& x, const Tensor& x_scale, const Tensor& weight, const Tensor& weight_scale,
                  const std::optional<Tensor>& bias, const IntConvOptions& o) {
  using Pair = c10::SymIntArrayRef;
  static const auto op =
      handle<Tensor(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const std::optional<Tensor>&, Pair,
                    Pair, Pair, int64_t, int64_t, const std::optional<Tensor>&, bool, const std::optional<Tensor>&,
                    int64_t)>("quintil::int_conv2d");
  const auto stride = symbolic(o.stride), padding = symbolic(o.padding), dilation = symbolic(o.dilation);
  const IntOptions& p = o.product;
  return op.call(x, x_scale, weight, weight_scale, bias, stride, padding, dilation, p.x_zero2, p.weight_zero2,
                 p.residual, p.relu, p.out_scale, p.out_bits);
}

Tensor vecq_step(const Tensor& x, int64_t bits, const VecqStepOptions& o) {
  static const auto op = handle<Tensor(const Tensor&, int64_t, bool, int64_t, Text, Text)>("quintil::vecq_step");
  return op.call(x, bits, o.per_channel, o.group_size, o.sigma, o.lambda_mode);
}

std::tuple<Tensor, Tensor, Tensor> vecq_quantize(const Tensor& x, int64_t bits, const VecqOptions& o) {
  using Maybe = const std::optional<Tensor>&;
  static const auto op =
      handle<std::tuple<Tensor, Tensor, Tensor>(const Tensor&, int64_t, Maybe, Text, Maybe, Text, double)>(
          "quintil::vecq_quantize");
  return op.call(x, bits, o.step, o.drive, o.alpha, o.grad_mode, o.grad_ratio);
}

Tensor vecq_codes(const Tensor& x, int64_t bits, const Tensor& step) {
  static const auto op = handle<Tensor(const Tensor&, int64_t, const Tensor&)>("quintil::vecq_codes");
  return op.call(x, bits, step);
}

std::tuple<Tensor, Tensor> vecq_activation(const Tensor& x, int64_t bits, const Tensor& averages, bool training,
                                           double momentum, const std::string& drive, const std::string& sigma) {
  static const auto op =
      handle<std::tuple<Tensor, Tensor>(const Tensor&, int64_t, const Tensor&, bool, double, Text, Text)>(
          "quintil::vecq_activation");
  return op.call(x, bits, averages, training, momentum, drive, sigma);
}

std::tuple<Tensor, Tensor, Tensor> vecq_losses(const Tensor& x, const Tensor& y, bool per_channel) {
  static const auto op =
      handle<std::tuple<Tensor, Tensor, Tensor>(const Tensor&, const Tensor&, bool)>("quintil::vecq_losses");
  return op.call(x, y, per_channel);
}

Tensor luq_quantize(const Tensor& x, int64_t seed, int64_t bits, int64_t samples, const std::string& levels) {
  static const auto op = handle<Tensor(const Tensor&, c10::SymInt, int64_t, int64_t, Text)>("quintil::luq_quantize");
  return op.call(x, seed, bits, samples, levels);
}

std::tuple<Tensor, Tensor> luq_codes(const Tensor& x, int64_t seed, int64_t bits, int64_t sample) {
  static const auto op =
      handle<std::tuple<Tensor, Tensor>(const Tensor&, c10::SymInt, int64_t, int64_t)>("quintil::luq_codes");
  return op.call(x, seed, bits, sample);
}

Tensor sawb_clip(const Tensor& x) {
  static const auto op = handle<Tensor(const Tensor&)>("quintil::sawb_clip");
  return op.call(x);
}

Tensor minifloat_quantize(const Tensor& x, const std::vector<int64_t>& significand_bits, const Tensor& exponent,
                          std::optional<int64_t> seed, const std::optional<Tensor>& previous) {
  static const auto op =
      handle<Tensor(const Tensor&, at::IntArrayRef, const Tensor&, Seed, const std::optional<Tensor>&)>(
          "quintil::minifloat_quantize");
  return op.call(x, significand_bits, exponent, symbolic(seed), previous);
}

std::string active_isa() {
  return kernels::active_name();
}

void set_checked(bool on) {
  ops::set_checked(on);
}

}  // namespace quintil
