// Gradient of vecq_quantize [VECQ V8]: step and alpha are constants for it, and so is the rounding.
//   ste, pwl   dx = g everywhere
//   pwl_c      dx = g where min y <= x <= max y of the group, before any blending, else 0
// Saved for it: x and those bounds, with pwl_c alone. It is linear in g, so it can be differentiated again.
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
using Forward = std::tuple<Tensor, Tensor, Tensor, Tensor>;

constexpr int64_t kClipped = 2;  // grad_mode 'pwl_c'

Forward forward_below(const Tensor& x, int64_t bits, const Tensor& step, const optional<Tensor>& alpha, int64_t drive,
                      int64_t grad_mode, double ratio) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("quintil::_vecq_forward", "")
          .typed<Forward(const Tensor&, int64_t, const Tensor&, const optional<Tensor>&, int64_t, int64_t, double)>();
  const at::AutoDispatchBelowAutograd guard;
  return op.call(x, bits, step, alpha, drive, grad_mode, ratio);
}

// g with 0 where x lies outside the bounds of its group, [2, ...].
Tensor inside(const Tensor& g, const Tensor& x, const Tensor& bounds) {
  const int64_t levels = bounds.dim() - 1;  // dimensions of a step
  std::vector<c10::SymInt> runs = x.sym_sizes().vec(), shape(bounds.sym_sizes().begin() + 1, bounds.sym_sizes().end());
  if (levels == 2) runs = {shape[0], shape[1], x.sym_numel() == 0 ? 0 : x.sym_numel() / (shape[0] * shape[1])};
  if (levels > 0) shape.resize(runs.size(), 1);
  const Tensor numbers = x.reshape_symint(runs);
  const Tensor outside =
      numbers.lt(bounds[0].reshape_symint(shape)).logical_or(numbers.gt(bounds[1].reshape_symint(shape)));
  return g.masked_fill(outside.reshape_symint(x.sym_sizes()), 0);
}

struct VecqQuantize : torch::autograd::Function<VecqQuantize> {
  static variable_list forward(AutogradContext* ctx, const Tensor& x, int64_t bits, const Tensor& step,
                               const optional<Tensor>& alpha, int64_t drive, int64_t grad_mode, double ratio) {
    auto [y, codes, length, bounds] = forward_below(x, bits, step, alpha, drive, grad_mode, ratio);
    if (grad_mode == kClipped) ctx->save_for_backward({x, bounds});
    ctx->mark_non_differentiable({codes, length, bounds});
    ctx->set_materialize_grads(false);
    ctx->saved_data["grad_mode"] = grad_mode;
    return {y, codes, length, bounds};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    Tensor dx = grads[0];
    if (dx.defined() && ctx->saved_data["grad_mode"].toInt() == kClipped) {
      const variable_list saved = ctx->get_saved_variables();
      dx = inside(dx, saved[0], saved[1]);
    }
    return {dx, Tensor(), Tensor(), Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

Forward forward_autograd(const Tensor& x, int64_t bits, const Tensor& step, const optional<Tensor>& alpha,
                         int64_t drive, int64_t grad_mode, double ratio) {
  check_no_tangent("vecq_quantize", x, step, alpha);
  const variable_list out = VecqQuantize::apply(x, bits, step, alpha, drive, grad_mode, ratio);
  return {out[0], out[1], out[2], out[3]};
}

}  // namespace

TORCH_LIBRARY_IMPL(quintil, Autograd, m) {
  m.impl("_vecq_forward", forward_autograd);
}

}  // namespace quintil::autograd
