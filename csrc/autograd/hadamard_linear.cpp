// Gradient of hadamard_linear [HDQT H9-H11], straight through the quantisers:
//   dx = (Qs(g H) Qn(H w)) s2 s1 s_w / p      dw = (Qs(H g)^T Qs(H x)) s4 s3 s_x / p      db = sum of rows of g
// Saved for it: the packed codes of x and w and four scalars, nothing in float.
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
using Forward = std::tuple<Tensor, Tensor, Tensor, Tensor>;
using Backward = std::tuple<Tensor, Tensor, Tensor>;

Forward forward_below(const Tensor& x, const Tensor& weight, const optional<Tensor>& bias, at::IntArrayRef options,
                      double range_fraction, Seed seed, bool save) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("quintil::_hadamard_linear_forward", "")
          .typed<Forward(const Tensor&, const Tensor&, const optional<Tensor>&, at::IntArrayRef, double, Seed, bool)>();
  const at::AutoDispatchBelowAutograd guard;
  return op.call(x, weight, bias, options, range_fraction, std::move(seed), save);
}

Backward call_backward(const Tensor& grad, const variable_list& saved, const c10::SymInt& k, at::IntArrayRef options,
                       Seed seed, std::array<bool, 3> needed) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("quintil::_hadamard_linear_backward", "")
                             .typed<Backward(const Tensor&, const Tensor&, const Tensor&, const Tensor&, c10::SymInt,
                                             at::IntArrayRef, Seed, std::array<bool, 3>)>();
  return op.call(grad, saved[0], saved[1], saved[2], k, options, std::move(seed), needed);
}

struct HadamardLinear : torch::autograd::Function<HadamardLinear> {
  static variable_list forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight,
                               const optional<Tensor>& bias, std::vector<int64_t> options, double range_fraction,
                               Seed seed) {
    const auto config = ops::HadamardConfig::decode(options);
    auto [y, x_codes, weight_codes, scales] = forward_below(x, weight, bias, options, range_fraction, seed, true);
    ctx->save_for_backward({x_codes, weight_codes, scales, straight_through_mask(x, config, range_fraction),
                            straight_through_mask(weight, config, range_fraction)});
    ctx->saved_data["options"] = options;
    ctx->saved_data["seed"] = seed;
    ctx->saved_data["has_bias"] = bias.has_value();
    ctx->saved_data["x_size"] = x.sym_sizes();
    ctx->mark_non_differentiable({x_codes, weight_codes, scales});
    ctx->set_materialize_grads(false);
    return {y, x_codes, weight_codes, scales};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    if (!grads[0].defined()) return variable_list(6);
    const variable_list saved = ctx->get_saved_variables();
    const auto options = ctx->saved_data["options"].toIntVector();
    const auto seed = ctx->saved_data["seed"].toOptional<c10::SymInt>();
    const auto x_size = ctx->saved_data["x_size"].toSymIntVector();
    check_seed("hadamard_linear", ops::HadamardConfig::decode(options), seed);
    const c10::SymInt n = grads[0].sym_size(-1);
    const Tensor g = grads[0].reshape_symint({saved[0].sym_size(0), n});
    const std::array<bool, 3> needed = needed_gradients(*ctx);
    auto [dx, dw, db] = call_backward(g, saved, x_size.back(), options, seed, needed);
    return {needed[0] ? masked(dx.view_symint(x_size), saved[3]) : Tensor(),
            needed[1] ? masked(dw, saved[4]) : Tensor(),
            needed[2] ? db : Tensor(),
            Tensor(),
            Tensor(),
            Tensor()};
  }
};

Forward forward_autograd(const Tensor& x, const Tensor& weight, const optional<Tensor>& bias, at::IntArrayRef options,
                         double range_fraction, Seed seed, bool save) {
  check_no_tangent("hadamard_linear", x, weight, bias);
  if (!save) return forward_below(x, weight, bias, options, range_fraction, std::move(seed), save);
  const auto r = HadamardLinear::apply(x, weight, bias, options.vec(), range_fraction, std::move(seed));
  return {r[0], r[1], r[2], r[3]};
}

Backward backward_autograd(const Tensor& grad, const Tensor& x_codes, const Tensor& weight_codes, const Tensor& scales,
                           c10::SymInt k, at::IntArrayRef options, Seed seed, std::array<bool, 3> needed) {
  check_once("hadamard_linear", grad);
  const at::AutoDispatchBelowAutograd guard;
  return call_backward(grad, {x_codes, weight_codes, scales}, k, options, std::move(seed), needed);
}

}  // namespace

TORCH_LIBRARY_IMPL(quintil, Autograd, m) {
  m.impl("_hadamard_linear_forward", forward_autograd);
  m.impl("_hadamard_linear_backward", backward_autograd);
}

}  // namespace quintil::autograd
