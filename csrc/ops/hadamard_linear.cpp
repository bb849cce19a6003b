// hadamard_linear: a fully connected layer whose three products run on integer codes [HDQT H1-H11].
// The public op casts and parses; its private halves compute, and hold the checks for every caller (D10).
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include "csrc/ops/check.h"
#include "csrc/ops/hadamard_products.h"
#include "csrc/ops/weight_gradient.h"

namespace quintil::ops {

namespace {

using at::Tensor;
using std::optional;

constexpr const char* kOp = "hadamard_linear";

void check_forward(const Tensor& x, const Tensor& weight, const optional<Tensor>& bias,
                   const optional<c10::SymInt>& seed) {
  check_layer(kOp, x, weight, bias);
  check_seed_value(kOp, seed);
  check_dim(kOp, "weight", weight, 2);
  check_not_scalar(kOp, "x", x);
  TORCH_CHECK_VALUE(x.sym_size(-1) == weight.sym_size(1), kOp, ": expected x.size(-1) to equal weight.size(1), got ",
                    x.sym_size(-1), " and ", weight.sym_size(1), " (x is ", x.sym_sizes(), ", weight is ",
                    weight.sym_sizes(), ")");
}

std::vector<c10::SymInt> output_sizes(const Tensor& x, const c10::SymInt& features) {
  std::vector<c10::SymInt> sizes = x.sym_sizes().vec();
  sizes.back() = features;
  return sizes;
}

c10::SymInt batch_of(const Tensor& x) {  // all dimensions but the last
  c10::SymInt rows = 1;
  for (int64_t d = 0; d + 1 < x.dim(); ++d) rows = rows * x.sym_size(d);
  return rows;
}

using Forward = std::tuple<Tensor, Tensor, Tensor, Tensor>;

Forward forward_cpu(const Tensor& x, const Tensor& weight, const optional<Tensor>& bias, at::IntArrayRef options,
                    double range_fraction, optional<int64_t> seed, bool save) {
  check_forward(x, weight, bias, seed);
  check_finite(kOp, "x", x);
  check_finite(kOp, "weight", weight);
  const HadamardConfig config = HadamardConfig::decode(options);
  const Tensor rows = x.contiguous(), columns = weight.contiguous();
  const Tensor offsets = bias ? bias->contiguous() : Tensor();
  const int64_t k = weight.size(1), n = weight.size(0), batch = batch_of(x).expect_int();
  Workspace scratch;
  const auto fraction = static_cast<float>(range_fraction);
  const auto site = [&](Site s) { return draw_for(seed, s, config.rounds_stochastically(s)); };
  const CodeMatrix xc =
      quantize_operand(scratch, rows.const_data_ptr<float>(), batch, k, config, fraction, site(Site::kForwardInput));
  const CodeMatrix wc =
      quantize_operand(scratch, columns.const_data_ptr<float>(), n, k, config, fraction, site(Site::kForwardWeight));
  Tensor y = at::empty_symint(output_sizes(x, n), x.options());
  Out out;
  out.f32 = y.mutable_data_ptr<float>();
  out.ld = n;
  out.epilogue = {{wc.step, xc.step, 1.0f}, 1.0f, bias ? offsets.const_data_ptr<float>() : nullptr};
  multiply(pack_weight(kOp, scratch, wc, left_operand(xc), config.forward), left_operand(xc), batch, out);
  if (!save) return {y, at::empty({0, 0}, at::kByte), at::empty({0, 0}, at::kByte), at::empty({0}, at::kFloat)};
  return {y, save_codes(xc, config.bits), save_codes(wc, config.bits), save_scales(xc, wc)};
}

Forward forward_meta(const Tensor& x, const Tensor& weight, const optional<Tensor>& bias, at::IntArrayRef options,
                     double, optional<c10::SymInt> seed, bool save) {
  check_forward(x, weight, bias, seed);
  const int64_t bits = HadamardConfig::decode(options).bits;
  const auto bytes = x.options().dtype(at::kByte);
  Tensor y = at::empty_symint(output_sizes(x, weight.sym_size(0)), x.options());
  if (!save) return {y, at::empty({0, 0}, bytes), at::empty({0, 0}, bytes), at::empty({0}, x.options())};
  const c10::SymInt k = weight.sym_size(1);
  const c10::SymInt width = bits <= 4 ? (k + 1) / 2 : k;
  return {y, at::empty_symint({batch_of(x), width}, bytes), at::empty_symint({weight.sym_size(0), width}, bytes),
          at::empty({4}, x.options())};
}

using Backward = std::tuple<Tensor, Tensor, Tensor>;

// Gradients of x [rows, k], weight [n, k] and bias [n]; those that `needed` does not ask for come back empty.
Backward backward_cpu(const Tensor& grad, const Tensor& x_codes, const Tensor& weight_codes, const Tensor& scales,
                      int64_t k, at::IntArrayRef options, optional<int64_t> seed, std::array<bool, 3> needed) {
  check_dtype(kOp, "grad", grad, at::kFloat);
  check_finite(kOp, "grad", grad);
  const HadamardConfig config = HadamardConfig::decode(options);
  const Tensor g = grad.contiguous();
  const auto* data = g.const_data_ptr<float>();
  const auto* s = scales.const_data_ptr<float>();
  const int64_t batch = x_codes.size(0), n = weight_codes.size(0);
  const auto result = [&](bool wanted, at::IntArrayRef sizes) {
    return at::empty(wanted ? sizes : at::IntArrayRef{0}, grad.options());
  };
  Tensor dx = result(needed[0], {batch, k}), dw = result(needed[1], {n, k}), db = result(needed[2], {n});
  const auto input_product = [&] {
    Workspace scratch;
    const CodeMatrix wc = load_codes(scratch, weight_codes, k, config.bits, s[2], s[3]);
    const InputGradWeight weight = prepare_input_gradient(kOp, scratch, config, wc, seed);
    const CodeMatrix gc = quantize_input_gradient(scratch, config, data, batch, n, seed, {});
    Out out;
    out.f32 = dx.mutable_data_ptr<float>();
    out.ld = k;
    out.epilogue = input_gradient_epilogue(config, gc, weight, wc.step, n);
    multiply(weight.packed, left_operand(gc), batch, out);
  };
  const auto weight_product = [&] {
    Workspace scratch;
    const CodeMatrix xc = load_codes(scratch, x_codes, k, config.bits, s[0], s[1]);
    weight_gradient(kOp, config, xc, data, n, seed, {}, dw.mutable_data_ptr<float>());
  };
  if (needed[0] && needed[1] && at::get_num_threads() == 2 && !at::in_parallel_region()) {
    // One product each: about equal, and the threads meet once instead of after every pass.
    at::parallel_for(0, 2, 1, [&](int64_t begin, int64_t end) {
      if (begin == 0) input_product();
      if (end == 2) weight_product();
    });
  } else {
    if (needed[0]) input_product();
    if (needed[1]) weight_product();
  }
  if (needed[2]) bias_gradient(data, batch, n, db.mutable_data_ptr<float>());
  return {dx, dw, db};
}

Backward backward_meta(const Tensor& grad, const Tensor& x_codes, const Tensor& weight_codes, const Tensor&,
                       c10::SymInt k, at::IntArrayRef, optional<c10::SymInt>, std::array<bool, 3> needed) {
  const c10::SymInt n = weight_codes.sym_size(0), none = 0;
  const auto empty = [&](std::vector<c10::SymInt> sizes) { return at::empty_symint(sizes, grad.options()); };
  using Sizes = std::vector<c10::SymInt>;
  return {empty(needed[0] ? Sizes{x_codes.sym_size(0), k} : Sizes{none}), empty(needed[1] ? Sizes{n, k} : Sizes{none}),
          empty(needed[2] ? Sizes{n} : Sizes{none})};
}

// The public op is composite: it parses and casts, and tells whether a backward can follow; the casts carry gradients.
Tensor hadamard_linear(const Tensor& x, const Tensor& weight, const optional<Tensor>& bias, int64_t bits,
                       int64_t accumulator_bits, int64_t tile_size, optional<int64_t> backward_accumulator_bits,
                       optional<int64_t> weight_gradient_accumulator_bits, int64_t backward_tile_size,
                       c10::string_view accumulate, c10::string_view overflow, c10::string_view hadamard,
                       int64_t hadamard_block, bool requantize, c10::string_view dc_row, c10::string_view ste,
                       c10::string_view stochastic, double range_fraction, optional<c10::SymInt> seed) {
  const HadamardConfig config =
      parse(kOp, {bits, accumulator_bits, tile_size, backward_accumulator_bits, weight_gradient_accumulator_bits,
                  backward_tile_size, accumulate, overflow, hadamard, hadamard_block, requantize, dc_row, ste,
                  stochastic, range_fraction});
  const FloatOperands t = float_operands(kOp, x, weight, bias);
  static const auto forward = c10::Dispatcher::singleton()
                                  .findSchemaOrThrow("quintil::_hadamard_linear_forward", "")
                                  .typed<Forward(const Tensor&, const Tensor&, const optional<Tensor>&, at::IntArrayRef,
                                                 double, optional<c10::SymInt>, bool)>();
  const auto result = forward.call(t.x, t.weight, t.bias, config.encode(), range_fraction, seed, t.needs_gradient);
  return std::get<0>(result).to(x.scalar_type());
}

}  // namespace

TORCH_LIBRARY_IMPL(quintil, CPU, m) {
  m.impl("_hadamard_linear_forward", forward_cpu);
  m.impl("_hadamard_linear_backward", backward_cpu);
}

TORCH_LIBRARY_IMPL(quintil, Meta, m) {
  m.impl("_hadamard_linear_forward", forward_meta);
  m.impl("_hadamard_linear_backward", backward_meta);
}

TORCH_LIBRARY_IMPL(quintil, CompositeImplicitAutograd, m) {
  m.impl("hadamard_linear", hadamard_linear);
}

}  // namespace quintil::ops
