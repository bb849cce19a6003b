// Gradients of luq_quantize and minifloat_quantize: the quantisers of LUQ and FP134 are straight-through, dx = g
// everywhere. Nothing is saved. A second derivative is refused, as for the other stochastic ops.
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

struct Luq : torch::autograd::Function<Luq> {
  static Tensor forward(AutogradContext*, const Tensor& x, c10::SymInt seed, int64_t bits, int64_t samples,
                        int64_t levels) {
    static const auto op = c10::Dispatcher::singleton()
                               .findSchemaOrThrow("quintil::_luq_forward", "")
                               .typed<Tensor(const Tensor&, c10::SymInt, int64_t, int64_t, int64_t)>();
    const at::AutoDispatchBelowAutograd guard;
    return op.call(x, seed, bits, samples, levels);
  }

  static variable_list backward(AutogradContext*, variable_list grads) {
    check_once("luq_quantize", grads[0]);
    return {grads[0], Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

struct Minifloat : torch::autograd::Function<Minifloat> {
  static Tensor forward(AutogradContext*, const Tensor& x, std::vector<int64_t> bits, const Tensor& exponent,
                        const Seed& seed, const optional<Tensor>& previous) {
    static const auto op =
        c10::Dispatcher::singleton()
            .findSchemaOrThrow("quintil::_minifloat_forward", "")
            .typed<Tensor(const Tensor&, at::IntArrayRef, const Tensor&, Seed, const optional<Tensor>&)>();
    const at::AutoDispatchBelowAutograd guard;
    return op.call(x, bits, exponent, seed, previous);
  }

  static variable_list backward(AutogradContext*, variable_list grads) {
    check_once("minifloat_quantize", grads[0]);
    return {grads[0], Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

Tensor luq_autograd(const Tensor& x, c10::SymInt seed, int64_t bits, int64_t samples, int64_t levels) {
  check_no_tangent("luq_quantize", x, x, std::nullopt);
  return Luq::apply(x, seed, bits, samples, levels);
}

Tensor minifloat_autograd(const Tensor& x, at::IntArrayRef bits, const Tensor& exponent, Seed seed,
                          const optional<Tensor>& previous) {
  check_no_tangent("minifloat_quantize", x, x, previous);
  return Minifloat::apply(x, bits.vec(), exponent, seed, previous);
}

}  // namespace

TORCH_LIBRARY_IMPL(quintil, Autograd, m) {
  m.impl("_luq_forward", luq_autograd);
  m.impl("_minifloat_forward", minifloat_autograd);
}

}  // namespace quintil::autograd
