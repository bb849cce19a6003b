#include "csrc/autograd/layer.h"

#include <ATen/ATen.h>

namespace quintil::autograd {

at::Tensor straight_through_mask(const at::Tensor& t, const ops::HadamardConfig& config, double range_fraction) {
  if (config.ste == ops::Ste::kIdentity) return {};
  const at::Tensor magnitude = t.detach().abs();
  if (config.ste == ops::Ste::kRaw) return magnitude.le(static_cast<double>((int64_t{1} << (config.bits - 1)) - 1));
  if (t.sym_numel() == 0) return magnitude.le(0.0);
  return magnitude.le(magnitude.max().mul(range_fraction));
}

at::Tensor masked(const at::Tensor& grad, const at::Tensor& mask) {
  return mask.defined() ? grad.mul(mask) : grad;
}

void check_seed(const char* op, const ops::HadamardConfig& config, const std::optional<c10::SymInt>& seed) {
  TORCH_CHECK_VALUE(seed.has_value() || !config.backward_is_stochastic(), op,
                    ": expected seed to be an integer for a gradient through stochastic rounding, got None");
}

std::array<bool, 3> needed_gradients(const torch::autograd::AutogradContext& ctx) {
  const bool has_bias = ctx.saved_data.at("has_bias").toBool();
  return {ctx.needs_input_grad(0), ctx.needs_input_grad(1), has_bias && ctx.needs_input_grad(2)};
}

void check_no_tangent(const char* op, const at::Tensor& x, const at::Tensor& weight,
                      const std::optional<at::Tensor>& bias) {
  const auto has_tangent = [](const at::Tensor& t) { return t._fw_grad(0).defined(); };
  TORCH_CHECK_NOT_IMPLEMENTED(!has_tangent(x) && !has_tangent(weight) && !(bias && has_tangent(*bias)), op,
                              ": expected inputs without a tangent, got one (differentiable in reverse mode only)");
}

void check_once(const char* op, const at::Tensor& grad) {
  TORCH_CHECK_NOT_IMPLEMENTED(!at::GradMode::is_enabled() || !grad.requires_grad(), op,
                              ": expected a first derivative, got create_graph=True (not twice differentiable)");
}

}  // namespace quintil::autograd
