// vecq_activation: half-integer levels for activations, whose step and length are those of the batch in training and
// running averages of them afterwards [VECQ V11, V12].
#include <ATen/ATen.h>
#include <torch/library.h>

#include "csrc/ops/check.h"

namespace quintil::ops {

namespace {

using at::Tensor;
using std::optional;
using Quantized = std::tuple<Tensor, Tensor, Tensor>;

constexpr const char* kOp = "vecq_activation";

Tensor step_of(const Tensor& x, int64_t bits, c10::string_view sigma) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("quintil::vecq_step", "")
          .typed<Tensor(const Tensor&, int64_t, bool, int64_t, c10::string_view, c10::string_view)>();
  return op.call(x, bits, false, 0, sigma, "table");
}

Quantized quantized(const Tensor& x, int64_t bits, const Tensor& step, c10::string_view drive,
                    const optional<Tensor>& alpha) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("quintil::vecq_quantize", "")
                             .typed<Quantized(const Tensor&, int64_t, const optional<Tensor>&, c10::string_view,
                                              const optional<Tensor>&, c10::string_view, double)>();
  return op.call(x, bits, step, drive, alpha, "ste", 0.0);
}

std::tuple<Tensor, Tensor> vecq_activation(const Tensor& x, int64_t bits, const Tensor& averages, bool training,
                                           double momentum, c10::string_view drive, c10::string_view sigma) {
  check_floating(kOp, "x", x);
  check_range(kOp, "bits", bits, 1, 16);
  check_dtype(kOp, "averages", averages, at::kFloat);
  TORCH_CHECK_VALUE(averages.dim() == 1 && averages.sym_size(0) == 3, kOp,
                    ": expected averages to hold step, length and the share of their start, got ",
                    averages.sym_sizes());
  TORCH_CHECK_VALUE(momentum >= 0 && momentum < 1, kOp, ": expected momentum in [0, 1), got ", momentum);
  if (!training) return {std::get<0>(quantized(x, bits, averages[0], drive, averages[1])), averages.clone()};
  const Tensor numbers = x.to(at::kFloat), step = step_of(numbers, bits, sigma);
  const auto [y, codes, alpha] = quantized(numbers, bits, step, drive, std::nullopt);
  if (x.sym_numel() == 0) return {y.to(x.scalar_type()), averages.clone()};
  const Tensor batch = at::stack({step, alpha, at::zeros_like(step)});  // of a start of 1, nothing is left in a batch
  return {y.to(x.scalar_type()), averages * momentum + batch * (1 - momentum)};
}

}  // namespace

TORCH_LIBRARY_IMPL(quintil, CompositeImplicitAutograd, m) {
  m.impl("vecq_activation", vecq_activation);
}

}  // namespace quintil::ops
