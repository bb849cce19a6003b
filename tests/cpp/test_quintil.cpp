// The C++ face hands every argument to its place: options that differ from the defaults change results as the formulas
// say.
#include <ATen/ATen.h>

#include <cmath>

#include "csrc/quintil.h"
#include "tests/cpp/catch.h"

namespace quintil {
namespace {

at::Tensor values(std::initializer_list<float> list) {
  return at::tensor(at::ArrayRef<float>(list));
}

at::Tensor codes(std::initializer_list<int> list) {
  return at::tensor(at::ArrayRef<int>(list)).to(at::kChar);
}

TEST_CASE("lsq_quantize takes sign, offset and mask") {
  const at::Tensor x = values({-3.0f, 0.25f, 1.75f, 4.0f}), scale = at::scalar_tensor(0.5f);
  CHECK(at::equal(lsq_quantize(x, scale, 2), values({0.0f, 0.0f, 1.5f, 1.5f})));
  CHECK(at::equal(lsq_quantize(x, scale, 2, true), values({-1.0f, 0.0f, 0.5f, 0.5f})));
  CHECK(at::equal(lsq_quantize(x, scale, 2, true, at::scalar_tensor(1.0f)), values({0.0f, 0.0f, 1.5f, 1.5f})));
  at::Tensor beside = values({1.7f}).requires_grad_();  // 3.4 steps: rounded it lies inside
  lsq_quantize(beside, scale, 2, false, std::nullopt, "rounded").sum().backward();
  CHECK(at::equal(beside.grad(), values({1.0f})));
  beside.mutable_grad().reset();
  lsq_quantize(beside, scale, 2).sum().backward();
  CHECK(at::equal(beside.grad(), values({0.0f})));
}

TEST_CASE("double_round takes both widths and the rule") {
  const at::Tensor q = codes({-128, -24, 8, 24, 127});
  CHECK(at::equal(double_round(q, 8, 4), codes({-8, -2, 0, 2, 7})));
  CHECK(at::equal(double_round(q, 8, 4, "half_up"), codes({-8, -1, 1, 2, 7})));
  CHECK(at::equal(double_round(q, 8, 4, "floor"), codes({-8, -2, 0, 1, 7})));
}

TEST_CASE("double_round_quantize takes every option") {
  const at::Tensor x = values({0.74f, -0.74f, 3.0f, 0.25f}), scale = at::scalar_tensor(0.25f);
  const auto gradient = [&](const DoubleRoundOptions& options) {
    at::Tensor step = scale.clone().requires_grad_();
    double_round_quantize(x, step, 4, 3, options).sum().backward();
    return step.grad().item<double>();
  };
  const double c = 1 / std::sqrt(4.0 * 3.0);
  const double u = 0.74 / 0.5;  // 1.48; the stored integer 3 is a tie at 3 bits and becomes 2
  const auto near = [](double a, double b) { return std::fabs(a - b) < 1e-5; };
  CHECK(at::equal(double_round_quantize(x, scale, 4, 3), values({1.0f, -1.0f, 1.5f, 0.0f})));
  CHECK(at::equal(double_round_quantize(x, scale, 4, 3, {.rounding = "floor"}), values({0.5f, -1.0f, 1.5f, 0.0f})));
  CHECK(
      at::equal(double_round_quantize(x, scale, 4, 3, {.weight_source = "float"}), values({0.5f, -0.5f, 1.5f, 0.0f})));
  CHECK(near(gradient({}), c * ((2 - u) + (-2 + u) + 3 - 0.5)));
  CHECK(near(gradient({.chain_pow2 = true}), 2 * gradient({})));
  CHECK(near(gradient({.rounding = "half_up"}), c * ((2 - u) + (-1 + u) + 3 + 0.5)));
  CHECK(near(gradient({.rounding = "half_up", .scale_residual = "single"}), c * ((1 - u) + (-1 + u) + 3 + 0.5)));

  at::Tensor steps = at::full({4}, 0.25f).requires_grad_();
  double_round_quantize(x, steps, 4, 3, {.mask_on = "rounded", .scale_grad_sum = "all"}).sum().backward();
  CHECK(at::equal(steps.grad(), steps.grad()[0].expand({4})));
  CHECK(near(steps.grad()[0].item<double>(), 2 * gradient({})));  // of one element each: c is twice as large
}

}  // namespace
}  // namespace quintil
