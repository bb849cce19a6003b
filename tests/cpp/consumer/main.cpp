// Uses the installed header and library as a stranger would: one op, its gradient, and a seed; prints `ok`.
#include <quintil.h>

#include <ATen/ATen.h>

#include <iostream>

int main() {
  const at::Tensor x = at::rand({8, 32});
  at::Tensor weight = at::randn({4, 32}).requires_grad_();
  const at::Tensor y = quintil::hadamard_linear(x, weight, {}, {.bits = 4, .tile_size = 32}, quintil::draw_seed());
  y.sum().backward();
  const bool ok = y.size(0) == 8 && y.size(1) == 4 && weight.grad().sizes() == weight.sizes();
  std::cout << (ok ? "ok" : "wrong shapes") << '\n';
  return ok ? 0 : 1;
}
