// vecq_quantize, vecq_codes: numbers on half-integer levels times a length [VECQ V3, V6, V8, V9, V13].
#include <ATen/ATen.h>
#include <torch/library.h>

#include <cmath>
#include <limits>

#include "csrc/kernels/dispatch.h"
#include "csrc/ops/check.h"
#include "csrc/ops/vecq.h"
#include "csrc/quantizers/vecq.h"

namespace quintil::ops {

namespace {

using at::Tensor;
using std::optional;

constexpr const char* kOp = "vecq_quantize";
constexpr float kInfinity = std::numeric_limits<float>::infinity();

enum class Drive : int64_t { kProjection = 0, kNorm = 1, kNone = 2 };
enum class GradMode : int64_t { kSte = 0, kPwl = 1, kPwlClipped = 2 };

void check_given(const char* op, const Tensor& x, int64_t bits, const Tensor& step) {
  check_dtype(op, "x", x, at::kFloat);
  check_range(op, "bits", bits, 1, 16);
  check_dtype(op, "step", step, at::kFloat);
  check_levels(op, "step", x, step);
}

void check_forward(const Tensor& x, int64_t bits, const Tensor& step, const optional<Tensor>& alpha) {
  check_given(kOp, x, bits, step);
  if (!alpha) return;
  check_dtype(kOp, "alpha", *alpha, at::kFloat);
  TORCH_CHECK_VALUE(alpha->sym_sizes() == step.sym_sizes(), kOp, ": expected alpha to have the sizes of step, got ",
                    alpha->sym_sizes(), " and ", step.sym_sizes());
}

// [V6], the ratio of norms of the authors' later code, or the step itself [V13].
float length_of(Drive drive, const LevelSums& sums, float step) {
  switch (drive) {
    case Drive::kProjection: return static_cast<float>(sums.vx / (sums.vv + kVecqEpsilon));
    case Drive::kNorm: return static_cast<float>(std::sqrt(sums.xx) / (std::sqrt(sums.vv) + kVecqEpsilon));
    case Drive::kNone: break;
  }
  return step;
}

LevelSums group_sums(const Groups& groups, const std::vector<LevelSums>& parts, int64_t group) {
  constexpr LevelSums nothing{0, 0, 0, std::numeric_limits<int32_t>::max(), std::numeric_limits<int32_t>::min()};
  return groups.total(parts, group, nothing, [](LevelSums& total, const LevelSums& part) {
    total.vx += part.vx;
    total.vv += part.vv;
    total.xx += part.xx;
    total.least = std::min(total.least, part.least);
    total.most = std::max(total.most, part.most);
  });
}

using Forward = std::tuple<Tensor, Tensor, Tensor, Tensor>;

// y, codes, alpha, and the smallest and the largest value of every group before any blending, [2, *alpha.sizes()].
Forward forward_cpu(const Tensor& x, int64_t bits, const Tensor& step, const optional<Tensor>& alpha, int64_t drive,
                    int64_t grad_mode, double ratio) {
  check_forward(x, bits, step, alpha);
  check_finite(kOp, "x", x);
  check_finite(kOp, "step", step);
  const auto format = level_format(x, step);
  const Tensor data = x.contiguous(format), steps = step.contiguous();
  Tensor y = at::empty(x.sizes(), x.options().memory_format(format));
  Tensor codes = at::empty(x.sizes(), x.options().dtype(code_type(bits)).memory_format(format));
  Tensor lengths = alpha ? alpha->clone(at::MemoryFormat::Contiguous) : at::empty(step.sizes(), x.options());
  std::vector<int64_t> bound_sizes = step.sizes().vec();
  bound_sizes.insert(bound_sizes.begin(), 2);
  Tensor bounds = at::empty(bound_sizes, x.options());
  const auto *from = data.const_data_ptr<float>(), *step_of = steps.const_data_ptr<float>();
  auto *to = y.mutable_data_ptr<float>(), *length = lengths.mutable_data_ptr<float>();
  auto *least = bounds.mutable_data_ptr<float>(), *most = least + step.numel();
  const Groups groups(x.numel(), step.numel());
  const std::vector<LevelSums> parts = steer(from, groups, step_of, bits, codes);
  for (int64_t g = 0; g < groups.count; ++g) {
    const LevelSums sums = group_sums(groups, parts, g);
    if (!alpha) length[g] = length_of(static_cast<Drive>(drive), sums, step_of[g]);
    least[g] = groups.length == 0 ? 0.0f : length[g] * (static_cast<float>(sums.least) + 0.5f);
    most[g] = groups.length == 0 ? 0.0f : length[g] * (static_cast<float>(sums.most) + 0.5f);
  }
  const bool clips = static_cast<GradMode>(grad_mode) == GradMode::kPwlClipped;
  groups.for_each_chunk([&](int64_t g, int64_t first, int64_t n, int64_t) {
    const LevelValue value{length[g], static_cast<float>(ratio), clips ? least[g] : -kInfinity,
                           clips ? most[g] : kInfinity};
    kernels::active().drive_f32f32(from + first, n, level_grid(step_of[g], bits), value, to + first);
  });
  return {y, codes, lengths, bounds};
}

Forward forward_meta(const Tensor& x, int64_t bits, const Tensor& step, const optional<Tensor>& alpha, int64_t, int64_t,
                     double) {
  check_forward(x, bits, step, alpha);
  const auto options = x.options().memory_format(level_format(x, step));
  std::vector<c10::SymInt> bound_sizes = step.sym_sizes().vec();
  bound_sizes.insert(bound_sizes.begin(), 2);
  return {at::empty_symint(x.sym_sizes(), options), at::empty_symint(x.sym_sizes(), options.dtype(code_type(bits))),
          at::empty_symint(step.sym_sizes(), x.options()), at::empty_symint(bound_sizes, x.options())};
}

Tensor codes_cpu(const Tensor& x, int64_t bits, const Tensor& step) {
  constexpr const char* op = "vecq_codes";
  check_floating(op, "x", x);
  check_floating(op, "step", step);
  const Tensor numbers = x.to(at::kFloat), steps = step.to(at::kFloat).contiguous();
  check_given(op, numbers, bits, steps);
  check_finite(op, "x", x);
  const auto format = level_format(x, step);
  const Tensor data = numbers.contiguous(format);
  Tensor codes = at::empty(x.sizes(), x.options().dtype(code_type(bits)).memory_format(format));
  steer(data.const_data_ptr<float>(), Groups(x.numel(), step.numel()), steps.const_data_ptr<float>(), bits, codes);
  return codes;
}

Tensor codes_meta(const Tensor& x, int64_t bits, const Tensor& step) {
  constexpr const char* op = "vecq_codes";
  check_floating(op, "x", x);
  check_floating(op, "step", step);
  check_given(op, x.to(at::kFloat), bits, step.to(at::kFloat));
  return at::empty_symint(x.sym_sizes(), x.options().dtype(code_type(bits)).memory_format(level_format(x, step)));
}

Tensor gaussian_step_of(const Tensor& x, int64_t bits) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("quintil::vecq_step", "")
          .typed<Tensor(const Tensor&, int64_t, bool, int64_t, c10::string_view, c10::string_view)>();
  return op.call(x, bits, false, 0, "population", "table");
}

std::tuple<Tensor, Tensor, Tensor> vecq_quantize(const Tensor& x, int64_t bits, const optional<Tensor>& step,
                                                 c10::string_view drive, const optional<Tensor>& alpha,
                                                 c10::string_view grad_mode, double grad_ratio) {
  static const auto forward =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("quintil::_vecq_forward", "")
          .typed<Forward(const Tensor&, int64_t, const Tensor&, const optional<Tensor>&, int64_t, int64_t, double)>();
  check_floating(kOp, "x", x);
  check_range(kOp, "bits", bits, 1, 16);
  if (step) check_floating(kOp, "step", *step);
  TORCH_CHECK_VALUE(!alpha || step, kOp, ": expected step where alpha is given, got None");
  if (alpha) check_floating(kOp, "alpha", *alpha);
  const int64_t driven = check_name(kOp, "drive", drive, {"projection", "norm", "none"});
  const int64_t mode = check_name(kOp, "grad_mode", grad_mode, {"ste", "pwl", "pwl_c"});
  TORCH_CHECK_VALUE(grad_ratio >= 0 && grad_ratio <= 1, kOp, ": expected grad_ratio in [0, 1], got ", grad_ratio);
  TORCH_CHECK_VALUE(grad_ratio == 0 || mode != static_cast<int64_t>(GradMode::kSte), kOp,
                    ": expected grad_ratio to be 0 with grad_mode 'ste', got ", grad_ratio);
  const Tensor numbers = x.to(at::kFloat), steps = step ? step->to(at::kFloat) : gaussian_step_of(numbers, bits);
  const auto lengths = alpha ? optional<Tensor>(alpha->to(at::kFloat)) : std::nullopt;
  auto [y, codes, length, bounds] = forward.call(numbers, bits, steps, lengths, driven, mode, grad_ratio);
  return {y.to(x.scalar_type()), codes, length};
}

}  // namespace

TORCH_LIBRARY_IMPL(quintil, CPU, m) {
  m.impl("_vecq_forward", forward_cpu);
  m.impl("vecq_codes", codes_cpu);
}

TORCH_LIBRARY_IMPL(quintil, Meta, m) {
  m.impl("_vecq_forward", forward_meta);
  m.impl("vecq_codes", codes_meta);
}

// Composite: it parses and casts; the casts carry gradients.
TORCH_LIBRARY_IMPL(quintil, CompositeImplicitAutograd, m) {
  m.impl("vecq_quantize", vecq_quantize);
}

// Codes are integers: no gradient passes.
TORCH_LIBRARY_IMPL(quintil, Autograd, m) {
  m.impl("vecq_codes", torch::CppFunction::makeFallthrough());
}

}  // namespace quintil::ops
