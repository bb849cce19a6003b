// quantize, dequantize: uniform codes with a dynamic or a given scale [HDQT H1, H2, H7, H8].
#include <ATen/ATen.h>
#include <torch/library.h>

#include "csrc/ops/check.h"
#include "csrc/ops/code_matrix.h"
#include "csrc/quantizers/uniform.h"

namespace quintil::ops {

namespace {

using at::Tensor;
using std::optional;

constexpr const char* kOp = "quantize";

void check_quantize(const Tensor& x, int64_t bits, double range_fraction, const optional<Tensor>& scale,
                    const optional<c10::SymInt>& seed) {
  check_floating(kOp, "x", x);
  check_seed_value(kOp, seed);
  check_range(kOp, "bits", bits, 2, 8);
  TORCH_CHECK_VALUE(range_fraction > 0 && range_fraction <= 1, kOp, ": expected range_fraction in (0, 1], got ",
                    range_fraction);
  if (!scale) return;
  check_floating(kOp, "scale", *scale);
  TORCH_CHECK_VALUE(scale->dim() == 0 || (scale->dim() == 1 && x.dim() >= 1 && scale->sym_size(0) == x.sym_size(0)),
                    kOp, ": expected scale to be 0-dim or to hold one value per x.size(0), got ", scale->sym_sizes(),
                    " (x is ", x.sym_sizes(), ")");
}

// One step and nothing to draw: an element's code depends on its value alone, so the order in memory may stay.
bool keeps_order(const optional<Tensor>& scale, bool draws) {
  return !draws && (!scale || scale->dim() == 0);
}

CodeGrid given_grid(float step, int64_t bits, bool is_signed, bool narrow) {
  const int32_t top = largest_code(bits, is_signed);
  return {step + kStepEpsilon, is_signed ? -top - (narrow ? 0 : 1) : 0, top, 0};
}

using Result = std::tuple<Tensor, Tensor>;

Result quantize_cpu(const Tensor& x, int64_t bits, bool is_signed, bool narrow, double range_fraction,
                    const optional<Tensor>& scale, optional<int64_t> seed) {
  check_quantize(x, bits, range_fraction, scale, seed);
  check_finite(kOp, "x", x);
  const bool in_order = keeps_order(scale, seed.has_value());
  const auto options = x.options().dtype(is_signed ? at::kChar : at::kByte);
  Tensor codes = in_order ? at::empty_like(x, options) : at::empty(x.sizes(), options);
  Tensor data = x.to(at::kFloat);
  if (data.strides() != codes.strides())
    data = at::empty_strided(x.sizes(), codes.strides(), data.options()).copy_(data);
  const auto* values = data.const_data_ptr<float>();
  auto* out = static_cast<uint8_t*>(codes.mutable_data_ptr());
  const int64_t cols = x.dim() == 0 ? 1 : x.size(-1), rows = cols == 0 ? 0 : x.numel() / cols;
  const auto draw = draw_for(seed, Site::kSingle, true);
  if (!scale) {
    Quantizer q = dynamic_quantizer(absmax(values, data.numel()), static_cast<float>(range_fraction), bits, is_signed,
                                    false, draw);
    q.grid.lo = given_grid(q.step, bits, is_signed, narrow).lo;
    quantize_matrix(q, values, rows, cols, cols, {}, out, cols);
    return {codes, at::scalar_tensor(q.step, data.options())};
  }
  const Tensor steps = scale->to(at::kFloat).contiguous();
  const int64_t groups = steps.dim() == 0 ? 1 : steps.size(0), group_rows = groups == 0 ? 0 : rows / groups;
  for (int64_t g = 0; g < groups && rows > 0; ++g) {  // x [n] with a scale each: every group is part of one row
    Quantizer q;
    q.step = steps.const_data_ptr<float>()[g];
    q.grid = given_grid(q.step, bits, is_signed, narrow);
    q.draw = draw;
    if (x.dim() == 1 && groups > 1) {
      out[g] = draw ? stochastic_code(values[g], q.grid, *draw, 0, g) : nearest_code(values[g], q.grid);
    } else {
      const int64_t at = g * group_rows * cols;
      quantize_matrix(q, values + at, group_rows, cols, cols, {g * group_rows}, out + at, cols);
    }
  }
  return {codes, steps.clone()};
}

Result quantize_meta(const Tensor& x, int64_t bits, bool is_signed, bool, double range_fraction,
                     const optional<Tensor>& scale, optional<c10::SymInt> seed) {
  check_quantize(x, bits, range_fraction, scale, seed);
  const auto floats = x.options().dtype(at::kFloat);
  const auto options = x.options().dtype(is_signed ? at::kChar : at::kByte);
  return {keeps_order(scale, seed.has_value()) ? at::empty_like(x, options) : at::empty_symint(x.sym_sizes(), options),
          scale ? at::empty_symint(scale->sym_sizes(), floats) : at::empty({}, floats)};
}

// A product of ATen ops: one conversion and one multiplication per element, the same on every instruction set.
Tensor dequantize(const Tensor& codes, const Tensor& scale) {
  constexpr const char* op = "dequantize";
  check_byte_codes(op, "codes", codes);
  check_floating(op, "scale", scale);
  TORCH_CHECK_VALUE(
      scale.dim() == 0 || (scale.dim() == 1 && codes.dim() >= 1 && scale.sym_size(0) == codes.sym_size(0)), op,
      ": expected scale to be 0-dim or to hold one value per codes.size(0), got ", scale.sym_sizes(), " (codes is ",
      codes.sym_sizes(), ")");
  std::vector<c10::SymInt> shape(static_cast<size_t>(scale.dim() == 0 ? 0 : codes.dim()), 1);
  if (!shape.empty()) shape[0] = scale.sym_size(0);
  return codes.to(at::kFloat) * scale.to(at::kFloat).reshape_symint(shape);
}

}  // namespace

TORCH_LIBRARY_IMPL(quintil, CPU, m) {
  m.impl("quantize", quantize_cpu);
}

TORCH_LIBRARY_IMPL(quintil, Meta, m) {
  m.impl("quantize", quantize_meta);
}

TORCH_LIBRARY_IMPL(quintil, CompositeExplicitAutograd, m) {
  m.impl("dequantize", dequantize);
}

// Codes are integers: no gradient passes.
TORCH_LIBRARY_IMPL(quintil, Autograd, m) {
  m.impl("quantize", torch::CppFunction::makeFallthrough());
  m.impl("dequantize", torch::CppFunction::makeFallthrough());
}

}  // namespace quintil::ops
