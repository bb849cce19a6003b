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

TEST_CASE("the ops of half-integer levels take every option") {
  const at::Tensor x = values({-3.0f, -1.0f, 1.0f, 3.0f, -2.0f, 0.5f, 0.5f, 1.0f}).reshape({2, 4});
  const auto near = [](const at::Tensor& a, double b) { return std::fabs(a.item<double>() - b) < 1e-5; };
  CHECK(near(vecq_step(x, 2), 0.9957 * std::sqrt(25.5 / 8)));
  const at::Tensor rows = vecq_step(x, 2, {.per_channel = true, .sigma = "unbiased"});
  CHECK((near(rows[0], 0.9957 * std::sqrt(20.0 / 3)) && near(rows[1], 0.9957 * std::sqrt(5.5 / 3))));
  CHECK(vecq_step(x, 2, {.group_size = 2}).sizes() == at::IntArrayRef({2, 2}));
  const at::Tensor step = at::scalar_tensor(2.0f);
  const auto [y, q, alpha] = vecq_quantize(x, 2, {.step = step});
  CHECK(at::equal(q, codes({-2, -1, 0, 1, -2, 0, 0, 0}).reshape({2, 4})));
  CHECK(at::equal(vecq_codes(x, 2, step), q));
  CHECK(near(alpha, 14.0 / 8.0));  // <v,x> / <v,v>
  CHECK(at::allclose(y, alpha * (q + 0.5)));
  CHECK(near(std::get<2>(vecq_quantize(x, 2, {.step = step, .drive = "norm"})), std::sqrt(25.5 / 8)));
  CHECK(at::equal(std::get<2>(vecq_quantize(x, 2, {.step = step, .drive = "none"})), step));
  at::Tensor leaf = x.clone().requires_grad_();
  const VecqOptions given{.step = step, .alpha = at::scalar_tensor(1.0f), .grad_mode = "pwl_c", .grad_ratio = 0.5};
  const at::Tensor moved = std::get<0>(vecq_quantize(leaf, 2, given));
  CHECK(at::equal(moved[0], values({-1.5f, -0.75f, 0.75f, 1.5f})));
  moved.sum().backward();
  CHECK(at::equal(leaf.grad()[0], values({0.0f, 1.0f, 1.0f, 0.0f})));
  const auto [z, averages] = vecq_activation(x, 2, at::ones({3}), true, 0.5);
  CHECK((near(averages[0], 0.5 + 0.5 * vecq_step(x, 2).item<double>()) && near(averages[2], 0.5)));
  CHECK(at::equal(std::get<0>(vecq_activation(x, 2, values({2.0f, 3.0f, 0.0f}), false)), 3 * (q + 0.5)));
  const auto [orientation, modulus, total] = vecq_losses(x, y);
  CHECK((near(orientation, 1 - 14 / std::sqrt(25.5 * 8)) && near(modulus, 1.0) &&
         near(total, 2 - 14 / std::sqrt(204.0))));
  CHECK(std::get<0>(vecq_losses(x, y, true)).sizes() == at::IntArrayRef({2}));
}

TEST_CASE("int_linear and int_conv2d take scales, bias, zero points and geometry") {
  const at::Tensor x = codes({1, 2, 3, 4}).reshape({1, 4}), weight = codes({1, 0, -1, 2, 1, 1, 1, 1}).reshape({2, 4});
  const at::Tensor half = at::scalar_tensor(0.5f), bias = values({10.0f, 20.0f});
  // Sums 6 and 10; with the zero point 1/2 of the weight each product loses half a code of x, 5 in all.
  CHECK(at::equal(int_linear(x, half, weight, values({2.0f, 4.0f})), values({6.0f, 20.0f}).reshape({1, 2})));
  CHECK(at::equal(int_linear(x, half, weight, half, bias, {.weight_zero2 = 1}),
                  values({10.25f, 21.25f}).reshape({1, 2})));
  CHECK(at::equal(int_linear(x, half, weight, half, bias, {.x_zero2 = 2}), values({11.0f, 21.5f}).reshape({1, 2})));
  const at::Tensor image = x.reshape({1, 1, 2, 2}), kernel = codes({1, 2}).reshape({1, 1, 1, 2});
  const at::Tensor padded = int_conv2d(image, half, kernel, half, std::nullopt, {.padding = {0, 1}});
  CHECK(at::equal(padded, values({0.5f, 1.25f, 0.5f, 1.5f, 2.75f, 1.0f}).reshape({1, 1, 2, 3})));
  CHECK(at::equal(int_conv2d(image, half, kernel, half, std::nullopt, {.stride = {2, 1}}),
                  values({1.25f}).reshape({1, 1, 1, 1})));
  const at::Tensor wide = int_conv2d(image, half, kernel, half, std::nullopt, {.padding = {0, 1}, .dilation = {1, 2}});
  CHECK(at::equal(wide, values({1.0f, 0.25f, 2.0f, 0.75f}).reshape({1, 1, 2, 2})));
}

TEST_CASE("int_linear joins what follows it, and affine_quantize what stands before") {
  const at::Tensor x = codes({1, 2, 3, 4}).reshape({1, 4}), weight = codes({1, 0, -1, 2, 1, 1, 1, 1}).reshape({2, 4});
  const at::Tensor half = at::scalar_tensor(0.5f), steps = values({2.0f, 4.0f});
  IntOptions joined;
  joined.residual = values({-1.0f, -100.0f}).reshape({1, 2});
  joined.relu = true;
  CHECK(at::equal(int_linear(x, half, weight, steps, std::nullopt, joined), values({5.0f, 0.0f}).reshape({1, 2})));
  joined.out_scale = at::scalar_tensor(2.0f);
  const at::Tensor handed_over = int_linear(x, half, weight, steps, std::nullopt, joined);
  CHECK(handed_over.scalar_type() == at::kByte);
  CHECK(at::equal(handed_over.to(at::kFloat), values({2.0f, 0.0f}).reshape({1, 2})));
  const at::Tensor made =
      affine_quantize(values({1.0f, 2.0f}).reshape({1, 2}), steps, values({0.0f, -9.0f}), half, 8, true);
  CHECK(at::equal(made.to(at::kFloat), values({4.0f, -2.0f}).reshape({1, 2})));
}

}  // namespace
}  // namespace quintil
