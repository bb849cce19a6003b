// Gradient of hadamard_transform: y = H x with H symmetric, so dx = H g, cut back to the length of x where the transform
// was padded. Exact, and differentiable any number of times.
#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

namespace quintil::autograd {

namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

Tensor call(const Tensor& x, int64_t dim, c10::string_view hadamard, int64_t block) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("quintil::hadamard_transform", "")
                             .typed<Tensor(const Tensor&, int64_t, c10::string_view, int64_t)>();
  return op.call(x, dim, hadamard, block);
}

struct HadamardTransform : torch::autograd::Function<HadamardTransform> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, int64_t dim, std::string hadamard, int64_t block) {
    const at::AutoDispatchBelowAutograd guard;
    ctx->saved_data["dim"] = dim;
    ctx->saved_data["hadamard"] = hadamard;
    ctx->saved_data["block"] = block;
    Tensor y = call(x, dim, hadamard, block);
    ctx->saved_data["size"] = x.sym_size(dim);
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const int64_t dim = ctx->saved_data["dim"].toInt();
    const Tensor dx = call(grads[0], dim, ctx->saved_data["hadamard"].toStringRef(), ctx->saved_data["block"].toInt());
    return {dx.narrow_symint(dim, 0, ctx->saved_data["size"].toSymInt()), Tensor(), Tensor(), Tensor()};
  }
};

Tensor transform_autograd(const Tensor& x, int64_t dim, c10::string_view hadamard, int64_t block) {
  return HadamardTransform::apply(x, dim, std::string(hadamard), block);
}

}  // namespace

TORCH_LIBRARY_IMPL(quintil, Autograd, m) {
  m.impl("hadamard_transform", transform_autograd);
}

}  // namespace quintil::autograd
