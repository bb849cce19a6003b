// vecq_losses: how far y is from x, in direction and in length [VECQ V2].
#include <ATen/ATen.h>
#include <torch/library.h>

#include <cmath>

#include "csrc/kernels/dispatch.h"
#include "csrc/ops/check.h"
#include "csrc/ops/groups.h"

namespace quintil::ops {

namespace {

using at::Tensor;
using Losses = std::tuple<Tensor, Tensor, Tensor>;

constexpr const char* kOp = "vecq_losses";

// Sizes of each loss.
std::vector<c10::SymInt> check_losses(const Tensor& x, const Tensor& y, bool per_channel) {
  check_floating(kOp, "x", x);
  check_floating(kOp, "y", y);
  TORCH_CHECK_VALUE(x.sym_sizes() == y.sym_sizes(), kOp, ": expected y to have the sizes of x, got ", y.sym_sizes(),
                    " and ", x.sym_sizes());
  if (!per_channel) return {};
  check_not_scalar(kOp, "x", x);
  return {x.sym_size(0)};
}

// 1 - cos; nothing is lost where x is zero, everything where only y is.
double orientation_loss(const PairSums& sums) {
  if (sums.xx == 0) return 0;
  return sums.yy == 0 ? 1 : 1 - sums.xy / (std::sqrt(sums.xx) * std::sqrt(sums.yy));
}

Losses losses_cpu(const Tensor& x, const Tensor& y, bool per_channel) {
  const auto sizes = check_losses(x, y, per_channel);
  check_finite(kOp, "x", x);
  check_finite(kOp, "y", y);
  const auto format = x.suggest_memory_format();
  const Tensor data = x.to(at::kFloat).contiguous(format), other = y.to(at::kFloat).contiguous(format);
  const auto *a = data.const_data_ptr<float>(), *b = other.const_data_ptr<float>();
  Tensor orientation = at::empty_symint(sizes, x.options().dtype(at::kDouble));
  Tensor modulus = at::empty_like(orientation);
  const Groups groups(x.numel(), orientation.numel());
  std::vector<PairSums> parts(static_cast<size_t>(groups.count * groups.chunks));
  groups.for_each_chunk([&](int64_t, int64_t first, int64_t n, int64_t chunk) {
    parts[static_cast<size_t>(chunk)] = kernels::active().compare_f32f32(a + first, b + first, n);
  });
  for (int64_t g = 0; g < groups.count; ++g) {
    const PairSums sums = groups.total(parts, g, PairSums{0, 0, 0, 0}, [](PairSums& total, const PairSums& part) {
      total = {total.xy + part.xy, total.yy + part.yy, total.xx + part.xx, total.error + part.error};
    });
    orientation.mutable_data_ptr<double>()[g] = orientation_loss(sums);
    modulus.mutable_data_ptr<double>()[g] = sums.error;
  }
  return {orientation, modulus, orientation + modulus};
}

Losses losses_meta(const Tensor& x, const Tensor& y, bool per_channel) {
  const auto sizes = check_losses(x, y, per_channel);
  const auto make = [&] { return at::empty_symint(sizes, x.options().dtype(at::kDouble)); };
  return {make(), make(), make()};
}

}  // namespace

TORCH_LIBRARY_IMPL(quintil, CPU, m) {
  m.impl("vecq_losses", losses_cpu);
}

TORCH_LIBRARY_IMPL(quintil, Meta, m) {
  m.impl("vecq_losses", losses_meta);
}

// Numbers to look at: no gradient passes.
TORCH_LIBRARY_IMPL(quintil, Autograd, m) {
  m.impl("vecq_losses", torch::CppFunction::makeFallthrough());
}

}  // namespace quintil::ops
