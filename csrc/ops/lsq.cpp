// _lsq_forward, _lsq_backward: quantisers with a given step and the gradients of x, step and offset [DR D1-D8, D10,
// D11, D13].
// What both public ops share, with the checks for every caller (D10). Sums run over the elements of a step in memory
// order, in chunks that do not depend on threads (N8).
#include "csrc/ops/lsq.h"

#include <ATen/ATen.h>
#include <torch/library.h>

#include <cmath>

#include "csrc/kernels/dispatch.h"
#include "csrc/ops/check.h"
#include "csrc/ops/groups.h"
#include "csrc/quantizers/double_rounding.h"

namespace quintil::ops {

namespace {

using at::Tensor;
using std::optional;

void check_step(const StepConfig& config, const Tensor& x, const Tensor& scale, const optional<Tensor>& offset) {
  const char* op = config.op();
  check_dtype(op, "x", x, at::kFloat);
  check_dtype(op, "scale", scale, at::kFloat);
  TORCH_CHECK_VALUE(scale.dim() == 0 || (scale.dim() == 1 && x.dim() >= 1 && scale.sym_size(0) == x.sym_size(0)), op,
                    ": expected scale to be 0-dim or to hold one value per x.size(0), got ", scale.sym_sizes(),
                    " (x is ", x.sym_sizes(), ")");
  if (!offset) return;
  check_dtype(op, "offset", *offset, at::kFloat);
  check_dim(op, "offset", *offset, 0);
}

// Grids of all steps: they differ in divisor and step.
class Grids {
 public:
  Grids(const StepConfig& c, const Tensor& scale, const optional<Tensor>& offset)
      : steps_(scale.contiguous()), growth_(std::ldexp(1.0f, static_cast<int>(c.stored_bits - c.bits))) {
    const int32_t hi = highest_code(c.bits, c.is_signed);
    grid_ = {
        .divisor = 0,
        .offset = offset ? *offset->const_data_ptr<float>() : 0.0f,
        .shrink = 1.0f / growth_,
        .step = 0,
        .lo = static_cast<float>(lowest_code(c.bits, c.is_signed)),
        .hi = static_cast<float>(hi),
        .top = static_cast<float>(c.is_weight && c.stored ? highest_reached(c.stored_bits, c.bits, c.rounding) : hi),
        .rounding = c.rounding,
        .stored = c.stored,
        .mask_on_rounded = c.mask_on_rounded,
        .single_residual = c.single_residual};
  }

  StepGrid of(int64_t group) const {
    const float step = steps_.const_data_ptr<float>()[group];
    StepGrid grid = grid_;
    grid.divisor = step + kStepEpsilon;
    grid.step = step * growth_;
    return grid;
  }

 private:
  Tensor steps_;
  float growth_;
  StepGrid grid_;
};

Tensor forward_cpu(const Tensor& x, const Tensor& scale, const optional<Tensor>& offset, at::IntArrayRef options) {
  const StepConfig config = StepConfig::decode(options);
  check_step(config, x, scale, offset);
  check_finite(config.op(), "x", x);
  check_finite(config.op(), "scale", scale);
  const auto format = x.suggest_memory_format();
  const Tensor data = x.contiguous(format);
  Tensor y = at::empty(x.sizes(), x.options().memory_format(format));
  const auto* from = data.const_data_ptr<float>();
  auto* to = y.mutable_data_ptr<float>();
  const Grids grids(config, scale, offset);
  Groups(x.numel(), scale.numel()).for_each_chunk([&](int64_t group, int64_t first, int64_t n, int64_t) {
    kernels::active().lsq_f32f32(from + first, n, grids.of(group), to + first);
  });
  return y;
}

Tensor forward_meta(const Tensor& x, const Tensor& scale, const optional<Tensor>& offset, at::IntArrayRef options) {
  check_step(StepConfig::decode(options), x, scale, offset);
  return at::empty_symint(x.sym_sizes(), x.options().memory_format(x.suggest_memory_format()));
}

// [D8, D11] kappa / sqrt(N Qp).
double gradient_factor(const StepConfig& config, int64_t elements) {
  const double top = highest_code(config.bits, config.is_signed);
  const double kappa = config.chain_pow2 ? std::ldexp(1.0, static_cast<int>(config.stored_bits - config.bits)) : 1.0;
  return elements == 0 ? 0.0 : kappa / std::sqrt(static_cast<double>(elements) * top);
}

using Backward = std::tuple<Tensor, Tensor, Tensor>;

Backward backward_cpu(const Tensor& grad, const Tensor& x, const Tensor& scale, const optional<Tensor>& offset,
                      at::IntArrayRef options) {
  const StepConfig config = StepConfig::decode(options);
  check_dtype(config.op(), "grad", grad, at::kFloat);
  check_finite(config.op(), "grad", grad);
  const auto format = x.suggest_memory_format();
  const Tensor data = x.contiguous(format), g = grad.contiguous(format);
  Tensor dx = at::empty(x.sizes(), x.options().memory_format(format));
  Tensor dscale = at::empty(scale.sizes(), scale.options());
  const auto *from = data.const_data_ptr<float>(), *slope = g.const_data_ptr<float>();
  auto *to = dx.mutable_data_ptr<float>(), *steps = dscale.mutable_data_ptr<float>();
  const Grids grids(config, scale, offset);
  const Groups groups(x.numel(), scale.numel());
  std::vector<StepSums> parts(static_cast<size_t>(groups.count * groups.chunks));
  groups.for_each_chunk([&](int64_t group, int64_t first, int64_t n, int64_t chunk) {
    parts[static_cast<size_t>(chunk)] =
        kernels::active().lsq_f32f32f32_backward(from + first, slope + first, n, grids.of(group), to + first);
  });
  const double factor = gradient_factor(config, groups.length);
  double all_steps = 0, all_offsets = 0;
  for (int64_t group = 0; group < groups.count; ++group) {
    double step = 0;
    for (int64_t chunk = 0; chunk < groups.chunks; ++chunk) {
      const StepSums& part = parts[static_cast<size_t>(group * groups.chunks + chunk)];
      step += part.step;
      all_offsets += part.offset;
    }
    steps[group] = static_cast<float>(step * factor);
    all_steps += step;
  }
  if (config.sum_all) std::fill_n(steps, groups.count, static_cast<float>(all_steps * factor));
  return {dx, dscale, at::scalar_tensor(all_offsets * factor, x.options())};
}

Backward backward_meta(const Tensor&, const Tensor& x, const Tensor& scale, const optional<Tensor>&, at::IntArrayRef) {
  return {at::empty_symint(x.sym_sizes(), x.options().memory_format(x.suggest_memory_format())),
          at::empty_symint(scale.sym_sizes(), scale.options()), at::empty({}, x.options())};
}

}  // namespace

std::vector<int64_t> StepConfig::encode() const {
  return {is_weight,       stored_bits,     bits,    is_signed, static_cast<int64_t>(rounding), stored,
          mask_on_rounded, single_residual, sum_all, chain_pow2};
}

StepConfig StepConfig::decode(at::IntArrayRef v) {
  TORCH_CHECK_VALUE(v.size() == 10, "quintil: expected options to hold 10 integers, got ", v.size());
  return {v[0] != 0, v[1],      v[2],      v[3] != 0, static_cast<Rounding>(v[4]),
          v[5] != 0, v[6] != 0, v[7] != 0, v[8] != 0, v[9] != 0};
}

Rounding parse_rounding(const char* op, std::string_view rounding) {
  return static_cast<Rounding>(check_name(op, "rounding", rounding, {"half_even", "half_up", "floor"}));
}

bool parse_mask_on(const char* op, std::string_view mask_on) {
  return check_name(op, "mask_on", mask_on, {"scaled", "rounded"}) == 1;
}

Tensor quantize_with_step(const Tensor& x, const Tensor& scale, const optional<Tensor>& offset,
                          const StepConfig& config) {
  static const auto forward =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("quintil::_lsq_forward", "")
          .typed<Tensor(const Tensor&, const Tensor&, const optional<Tensor>&, at::IntArrayRef)>();
  check_floating(config.op(), "x", x);
  check_floating(config.op(), "scale", scale);
  if (offset) check_floating(config.op(), "offset", *offset);
  const auto shift = offset ? optional<Tensor>(offset->to(at::kFloat)) : std::nullopt;
  return forward.call(x.to(at::kFloat), scale.to(at::kFloat), shift, config.encode()).to(x.scalar_type());
}

TORCH_LIBRARY_IMPL(quintil, CPU, m) {
  m.impl("_lsq_forward", forward_cpu);
  m.impl("_lsq_backward", backward_cpu);
}

TORCH_LIBRARY_IMPL(quintil, Meta, m) {
  m.impl("_lsq_forward", forward_meta);
  m.impl("_lsq_backward", backward_meta);
}

}  // namespace quintil::ops
