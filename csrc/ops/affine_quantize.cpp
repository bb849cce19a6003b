// affine_quantize: codes of x * gain + shift per channel, as a layer needs them whose input a BatchNorm made.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include "csrc/kernels/dispatch.h"
#include "csrc/ops/check.h"
#include "csrc/quantizers/uniform.h"

namespace quintil::ops {

namespace {

using at::Tensor;

constexpr const char* kOp = "affine_quantize";
constexpr int64_t kElementsPerTask = 1 << 15;

void check_per_channel(const char* name, const Tensor& t, const Tensor& x) {
  check_floating(kOp, name, t);
  TORCH_CHECK_VALUE(t.dim() == 1 && t.sym_size(0) == x.sym_size(1), kOp, ": expected ", name,
                    " to hold one value per channel, got ", t.sym_sizes(), " (x is ", x.sym_sizes(), ")");
}

void check_affine(const Tensor& x, const Tensor& gain, const Tensor& shift, const Tensor& scale, int64_t bits) {
  check_floating(kOp, "x", x);
  TORCH_CHECK_VALUE(x.dim() >= 2, kOp, ": expected x to have at least 2 dimensions, got ", x.dim());
  check_per_channel("gain", gain, x);
  check_per_channel("shift", shift, x);
  check_floating(kOp, "scale", scale);
  check_dim(kOp, "scale", scale, 0);
  check_range(kOp, "bits", bits, 2, 8);
}

// Channels come last in memory, in their usual place in the result.
Tensor empty_codes(const Tensor& x, bool is_signed) {
  return at::empty_symint(x.movedim(1, -1).sym_sizes(), x.options().dtype(is_signed ? at::kChar : at::kByte));
}

Tensor affine_cpu(const Tensor& x, const Tensor& gain, const Tensor& shift, const Tensor& scale, int64_t bits,
                  bool is_signed) {
  check_affine(x, gain, shift, scale, bits);
  check_finite(kOp, "x", x);
  const Tensor data = x.to(at::kFloat).movedim(1, -1).contiguous();
  const Tensor gains = gain.to(at::kFloat).contiguous(), shifts = shift.to(at::kFloat).contiguous();
  const int32_t top = largest_code(bits, is_signed);
  const CodeGrid grid{scale.to(at::kFloat).item<float>() + kStepEpsilon, is_signed ? -top - 1 : 0, top, 0};
  Tensor codes = empty_codes(x, is_signed);
  const int64_t cols = x.size(1), rows = cols == 0 ? 0 : x.numel() / cols;
  const auto* from = data.const_data_ptr<float>();
  auto* to = static_cast<uint8_t*>(codes.mutable_data_ptr());
  at::parallel_for(
      0, rows, std::max<int64_t>(1, kElementsPerTask / std::max<int64_t>(1, cols)), [&](int64_t begin, int64_t end) {
        kernels::active().quantize_f32u8_columns(from + begin * cols, end - begin, cols, cols,
                                                 gains.const_data_ptr<float>(), shifts.const_data_ptr<float>(), grid,
                                                 to + begin * cols, cols);
      });
  return codes.movedim(-1, 1);
}

Tensor affine_meta(const Tensor& x, const Tensor& gain, const Tensor& shift, const Tensor& scale, int64_t bits,
                   bool is_signed) {
  check_affine(x, gain, shift, scale, bits);
  return empty_codes(x, is_signed).movedim(-1, 1);
}

}  // namespace

TORCH_LIBRARY_IMPL(quintil, CPU, m) {
  m.impl("affine_quantize", affine_cpu);
}

TORCH_LIBRARY_IMPL(quintil, Meta, m) {
  m.impl("affine_quantize", affine_meta);
}

// Codes are integers: no gradient passes.
TORCH_LIBRARY_IMPL(quintil, Autograd, m) {
  m.impl("affine_quantize", torch::CppFunction::makeFallthrough());
}

}  // namespace quintil::ops
