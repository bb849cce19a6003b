// Gradients of lsq_quantize and double_round_quantize [DR D6-D8, D11, D13], straight through the roundings. With
// u = (x - offset) / (s 2^D), q the integer of y, and lo..hi the range of its width:
//   dx = g where lo <= u <= hi, else 0        doffset = c SUM g where u is outside
//   ds = c SUM g (lo where u < lo, hi where u > hi, else q - u)        c = kappa / sqrt(N hi), kappa = 1 or 2^D
// Saved for it: x, scale and offset.
#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "csrc/autograd/layer.h"
#include "csrc/ops/lsq.h"

namespace quintil::autograd {

namespace {

using at::Tensor;
using std::optional;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Backward = std::tuple<Tensor, Tensor, Tensor>;

Tensor forward_below(const Tensor& x, const Tensor& scale, const optional<Tensor>& offset, at::IntArrayRef options) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("quintil::_lsq_forward", "")
                             .typed<Tensor(const Tensor&, const Tensor&, const optional<Tensor>&, at::IntArrayRef)>();
  const at::AutoDispatchBelowAutograd guard;
  return op.call(x, scale, offset, options);
}

Backward call_backward(const Tensor& grad, const Tensor& x, const Tensor& scale, const optional<Tensor>& offset,
                       at::IntArrayRef options) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("quintil::_lsq_backward", "")
          .typed<Backward(const Tensor&, const Tensor&, const Tensor&, const optional<Tensor>&, at::IntArrayRef)>();
  return op.call(grad, x, scale, offset, options);
}

struct Lsq : torch::autograd::Function<Lsq> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& scale, const optional<Tensor>& offset,
                        std::vector<int64_t> options) {
    ctx->save_for_backward({x, scale, offset.value_or(Tensor())});
    ctx->saved_data["options"] = options;
    return forward_below(x, scale, offset, options);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const auto offset = saved[2].defined() ? optional<Tensor>(saved[2]) : std::nullopt;
    auto [dx, dscale, doffset] =
        call_backward(grads[0], saved[0], saved[1], offset, ctx->saved_data["options"].toIntVector());
    return {dx, dscale, offset ? doffset : Tensor(), Tensor()};
  }
};

Tensor forward_autograd(const Tensor& x, const Tensor& scale, const optional<Tensor>& offset, at::IntArrayRef options) {
  check_no_tangent(ops::StepConfig::decode(options).op(), x, scale, offset);
  return Lsq::apply(x, scale, offset, options.vec());
}

Backward backward_autograd(const Tensor& grad, const Tensor& x, const Tensor& scale, const optional<Tensor>& offset,
                           at::IntArrayRef options) {
  check_once(ops::StepConfig::decode(options).op(), grad);
  const at::AutoDispatchBelowAutograd guard;
  return call_backward(grad, x, scale, offset, options);
}

}  // namespace

TORCH_LIBRARY_IMPL(quintil, Autograd, m) {
  m.impl("_lsq_forward", forward_autograd);
  m.impl("_lsq_backward", backward_autograd);
}

}  // namespace quintil::autograd
