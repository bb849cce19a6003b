// What the autograd functions of the HDQT layers share: the straight-through masks and two guards.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/SymInt.h>
#include <torch/csrc/autograd/custom_function.h>

#include <array>
#include <optional>

#include "csrc/ops/hadamard_options.h"

namespace quintil::autograd {

// Where the gradient passes the quantiser of `t` [HDQT H11] (N12). `identity`: everywhere, an undefined tensor.
// `clip`: not where the range clamped, |t| > fraction * max|t|. `raw`: not where |t| > 2^(b-1)-1 in unscaled units, the
// authors' published comparison.
at::Tensor straight_through_mask(const at::Tensor& t, const ops::HadamardConfig& config, double range_fraction);

// grad * mask, or grad where there is no mask.
at::Tensor masked(const at::Tensor& grad, const at::Tensor& mask);

// A gradient through a stochastic site needs the seed of its forward.
void check_seed(const char* op, const ops::HadamardConfig& config, const std::optional<c10::SymInt>& seed);

// Which of x, weight and bias want a gradient. An absent bias is no input of the node, so its place cannot be asked for;
// the forward saves "has_bias".
std::array<bool, 3> needed_gradients(const torch::autograd::AutogradContext& ctx);

// Forward-mode differentiation is absent: without this a tangent would silently be lost where no input wants a gradient.
void check_no_tangent(const char* op, const at::Tensor& x, const at::Tensor& weight,
                      const std::optional<at::Tensor>& bias);

// The backward is not differentiable itself: without this a second derivative would silently be missing.
void check_once(const char* op, const at::Tensor& grad);

}  // namespace quintil::autograd
