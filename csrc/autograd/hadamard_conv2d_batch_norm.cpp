// Gradient of hadamard_conv2d_batch_norm. With a = the integer sums, n = a * scale + shift the normalised ones, g the gradient
// where the ReLU passed (all of it without one), mean over a channel:
//   d norm_bias = sum g,  d norm_weight = sum g n,  d residual = g,  dy = ((g - mean g) - n mean(g n)) * gain
// and dy is the gradient of a convolution's output, which goes on as in hadamard_conv2d [HDQT H9-H12].
// Saved: sums (two bytes each), one bit per ReLU, three floats per channel, the packed codes of x and of the weight.
#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "csrc/autograd/layer.h"

namespace quintil::autograd {

namespace {

using at::Tensor;
using std::optional;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Seed = optional<c10::SymInt>;
using Sizes = std::vector<c10::SymInt>;
using SizesRef = c10::SymIntArrayRef;
using Forward = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;
using Backward = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

constexpr const char* kOp = "hadamard_conv2d_batch_norm";

struct Geometry {
  Sizes x, w, stride, padding, dilation;
};

// What is neither a tensor nor geometry.
struct Settings {
  std::vector<int64_t> options;
  bool relu;
  double eps, range_fraction;
  Seed seed;
};

Forward forward_below(const Tensor& x, const Tensor& weight, const Tensor& norm_weight, const Tensor& norm_bias,
                      const optional<Tensor>& residual, const Geometry& g, const Settings& s) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("quintil::_hadamard_conv2d_batch_norm_forward", "")
          .typed<Forward(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const optional<Tensor>&, SizesRef,
                         SizesRef, SizesRef, at::IntArrayRef, bool, double, double, Seed)>();
  const at::AutoDispatchBelowAutograd guard;
  return op.call(x, weight, norm_weight, norm_bias, residual, g.stride, g.padding, g.dilation, s.options, s.relu, s.eps,
                 s.range_fraction, s.seed);
}

Backward call_backward(const Tensor& grad, const variable_list& saved, const Geometry& g, at::IntArrayRef options,
                       Seed seed, std::array<bool, 3> needed) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("quintil::_hadamard_conv2d_batch_norm_backward", "")
                             .typed<Backward(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                             const Tensor&, const Tensor&, SizesRef, SizesRef, SizesRef, SizesRef,
                                             SizesRef, at::IntArrayRef, Seed, std::array<bool, 3>)>();
  return op.call(grad, saved[0], saved[1], saved[2], saved[3], saved[4], saved[5], g.x, g.w, g.stride, g.padding,
                 g.dilation, options, std::move(seed), needed);
}

struct HadamardConv2dBatchNorm : torch::autograd::Function<HadamardConv2dBatchNorm> {
  static variable_list forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight, const Tensor& norm_weight,
                               const Tensor& norm_bias, const optional<Tensor>& residual, const Geometry& g,
                               const Settings& s) {
    const auto config = ops::HadamardConfig::decode(s.options);
    auto [y, mean, variance, sums, positive, constants, x_codes, weight_codes, scales] =
        forward_below(x, weight, norm_weight, norm_bias, residual, g, s);
    ctx->save_for_backward({sums, positive, constants, x_codes, weight_codes, scales,
                            straight_through_mask(x, config, s.range_fraction),
                            straight_through_mask(weight, config, s.range_fraction)});
    ctx->saved_data["options"] = s.options;
    ctx->saved_data["seed"] = s.seed;
    ctx->saved_data["relu"] = s.relu;
    ctx->saved_data["has_residual"] = residual.has_value();
    ctx->saved_data["x_size"] = g.x;
    ctx->saved_data["w_size"] = g.w;
    ctx->saved_data["stride"] = g.stride;
    ctx->saved_data["padding"] = g.padding;
    ctx->saved_data["dilation"] = g.dilation;
    ctx->mark_non_differentiable({mean, variance, sums, positive, constants, x_codes, weight_codes, scales});
    ctx->set_materialize_grads(false);
    return {y, mean, variance, sums, positive, constants, x_codes, weight_codes, scales};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    if (!grads[0].defined()) return variable_list(7);
    const variable_list saved = ctx->get_saved_variables();
    const auto options = ctx->saved_data["options"].toIntVector();
    const auto seed = ctx->saved_data["seed"].toOptional<c10::SymInt>();
    check_seed(kOp, ops::HadamardConfig::decode(options), seed);
    const auto sizes = [&](const char* name) { return ctx->saved_data[name].toSymIntVector(); };
    const Geometry g{sizes("x_size"), sizes("w_size"), sizes("stride"), sizes("padding"), sizes("dilation")};
    const bool residual = ctx->saved_data["has_residual"].toBool() && ctx->needs_input_grad(4);
    const bool relu = ctx->saved_data["relu"].toBool();
    const std::array<bool, 3> needed = {ctx->needs_input_grad(0), ctx->needs_input_grad(1), residual && relu};
    auto [dx, dw, norm_weight, norm_bias, passed] = call_backward(grads[0], saved, g, options, seed, needed);
    variable_list result = {needed[0] ? masked(dx, saved[6]) : Tensor(), needed[1] ? masked(dw, saved[7]) : Tensor(),
                            ctx->needs_input_grad(2) ? norm_weight : Tensor(),
                            ctx->needs_input_grad(3) ? norm_bias : Tensor(),
                            residual ? (relu ? passed : grads[0]) : Tensor()};
    result.resize(7);
    return result;
  }
};

Forward forward_autograd(const Tensor& x, const Tensor& weight, const Tensor& norm_weight, const Tensor& norm_bias,
                         const optional<Tensor>& residual, SizesRef stride, SizesRef padding, SizesRef dilation,
                         at::IntArrayRef options, bool relu, double eps, double range_fraction, Seed seed) {
  const Geometry g{x.sym_sizes().vec(), weight.sym_sizes().vec(), stride.vec(), padding.vec(), dilation.vec()};
  const Settings s{options.vec(), relu, eps, range_fraction, std::move(seed)};
  check_no_tangent(kOp, x, weight, residual);
  check_no_tangent(kOp, norm_weight, norm_bias, std::nullopt);
  const bool wanted = x.requires_grad() || weight.requires_grad() || norm_weight.requires_grad() ||
                      norm_bias.requires_grad() || (residual && residual->requires_grad());
  if (!at::GradMode::is_enabled() || !wanted) {
    return forward_below(x, weight, norm_weight, norm_bias, residual, g, s);
  }
  const auto r = HadamardConv2dBatchNorm::apply(x, weight, norm_weight, norm_bias, residual, g, s);
  return {r[0], r[1], r[2], r[3], r[4], r[5], r[6], r[7], r[8]};
}

Backward backward_autograd(const Tensor& grad, const Tensor& sums, const Tensor& positive, const Tensor& constants,
                           const Tensor& x_codes, const Tensor& weight_codes, const Tensor& scales, SizesRef x_size,
                           SizesRef w_size, SizesRef stride, SizesRef padding, SizesRef dilation,
                           at::IntArrayRef options, Seed seed, std::array<bool, 3> needed) {
  const Geometry g{x_size.vec(), w_size.vec(), stride.vec(), padding.vec(), dilation.vec()};
  check_once(kOp, grad);
  const at::AutoDispatchBelowAutograd guard;
  return call_backward(grad, {sums, positive, constants, x_codes, weight_codes, scales}, g, options, std::move(seed),
                       needed);
}

}  // namespace

TORCH_LIBRARY_IMPL(quintil, Autograd, m) {
  m.impl("_hadamard_conv2d_batch_norm_forward", forward_autograd);
  m.impl("_hadamard_conv2d_batch_norm_backward", backward_autograd);
}

}  // namespace quintil::autograd
