// vecq_step: the step that half-integer levels are chosen with [VECQ V4, V5, V7].
#include <ATen/ATen.h>
#include <torch/library.h>

#include <cmath>

#include "csrc/kernels/dispatch.h"
#include "csrc/ops/check.h"
#include "csrc/ops/vecq.h"
#include "csrc/ops/vecq_search.h"
#include "csrc/quantizers/vecq.h"

namespace quintil::ops {

namespace {

using at::Tensor;

constexpr const char* kOp = "vecq_step";

struct StepRequest {
  std::vector<c10::SymInt> sizes;  // of the result
  bool unbiased;
  bool search;
};

StepRequest check_step(const Tensor& x, int64_t bits, bool per_channel, int64_t group_size, c10::string_view sigma,
                       c10::string_view lambda_mode) {
  check_floating(kOp, "x", x);
  check_range(kOp, "bits", bits, 1, 16);
  TORCH_CHECK_VALUE(group_size >= 0, kOp, ": expected group_size >= 0, got ", group_size);
  StepRequest request{{},
                      check_name(kOp, "sigma", sigma, {"population", "unbiased"}) == 1,
                      check_name(kOp, "lambda_mode", lambda_mode, {"table", "search"}) == 1};
  if (!per_channel && group_size == 0) return request;
  check_not_scalar(kOp, "x", x);
  request.sizes.push_back(x.sym_size(0));
  if (group_size == 0) return request;
  c10::SymInt elements = 1;
  for (int64_t d = 1; d < x.dim(); ++d) elements *= x.sym_size(d);
  TORCH_CHECK_VALUE(elements % group_size == 0, kOp, ": expected group_size to divide the ", elements,
                    " elements of x[0], got ", group_size, " (x is ", x.sym_sizes(), ")");
  request.sizes.push_back(elements / group_size);
  return request;
}

// [V5] NaN where an element is not finite (N10): squares are NaN or infinite then, and so is the sum.
float step_of(const Moments& moments, int64_t n, int64_t bits, bool unbiased) {
  const double count = static_cast<double>(n), spread = moments.squares - moments.sum * moments.sum / count;
  const double variance = n < 2 ? 0.0 * moments.squares : spread / (unbiased ? count - 1 : count);
  const double sigma = std::sqrt(variance < 0 ? 0.0 : variance);
  return static_cast<float>(gaussian_step(bits) * sigma + kVecqEpsilon);
}

Tensor step_cpu(const Tensor& x, int64_t bits, bool per_channel, int64_t group_size, c10::string_view sigma,
                c10::string_view lambda_mode) {
  const StepRequest request = check_step(x, bits, per_channel, group_size, sigma, lambda_mode);
  check_finite(kOp, "x", x);
  Tensor steps = at::empty_symint(request.sizes, x.options().dtype(at::kFloat));
  const Tensor data = x.to(at::kFloat).contiguous(level_format(x, steps));
  const auto* from = data.const_data_ptr<float>();
  auto* out = steps.mutable_data_ptr<float>();
  const Groups groups(x.numel(), steps.numel());
  std::vector<Moments> parts(static_cast<size_t>(groups.count * groups.chunks));
  groups.for_each_chunk([&](int64_t group, int64_t first, int64_t n, int64_t chunk) {
    parts[static_cast<size_t>(chunk)] = kernels::active().moments_f32(from + first, n, from[group * groups.length]);
  });
  for (int64_t g = 0; g < groups.count; ++g) {
    const Moments all = groups.total(parts, g, Moments{0, 0}, [](Moments& total, const Moments& part) {
      total.sum += part.sum;
      total.squares += part.squares;
    });
    out[g] = step_of(all, groups.length, bits, request.unbiased);
  }
  if (request.search) {
    at::parallel_for(0, groups.count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t g = begin; g < end; ++g) {
        out[g] = searched_step(from + g * groups.length, groups.length, bits, out[g]);
      }
    });
  }
  return steps;
}

Tensor step_meta(const Tensor& x, int64_t bits, bool per_channel, int64_t group_size, c10::string_view sigma,
                 c10::string_view lambda_mode) {
  const StepRequest request = check_step(x, bits, per_channel, group_size, sigma, lambda_mode);
  return at::empty_symint(request.sizes, x.options().dtype(at::kFloat));
}

}  // namespace

TORCH_LIBRARY_IMPL(quintil, CPU, m) {
  m.impl("vecq_step", step_cpu);
}

TORCH_LIBRARY_IMPL(quintil, Meta, m) {
  m.impl("vecq_step", step_meta);
}

// A constant for every gradient [VECQ 2.5].
TORCH_LIBRARY_IMPL(quintil, Autograd, m) {
  m.impl("vecq_step", torch::CppFunction::makeFallthrough());
}

}  // namespace quintil::ops
