// int_linear: a fully connected layer on stored codes, for inference.
#include <ATen/ATen.h>
#include <torch/library.h>

#include "csrc/ops/check.h"
#include "csrc/ops/int_products.h"

namespace quintil::ops {

namespace {

using at::Tensor;
using std::optional;

constexpr const char* kOp = "int_linear";

// Sizes of the output [..., N].
std::vector<c10::SymInt> check_linear(const Tensor& x, const Tensor& weight, const IntScales& scales,
                                      const IntOutput& output) {
  check_dim(kOp, "weight", weight, 2);
  check_not_scalar(kOp, "x", x);
  TORCH_CHECK_VALUE(x.sym_size(-1) == weight.sym_size(1), kOp, ": expected x.size(-1) to equal weight.size(1), got ",
                    x.sym_size(-1), " and ", weight.sym_size(1), " (x is ", x.sym_sizes(), ", weight is ",
                    weight.sym_sizes(), ")");
  check_int_product(kOp, x, weight, scales, weight.sym_size(1));
  std::vector<c10::SymInt> sizes = x.sym_sizes().vec();
  sizes.back() = weight.sym_size(0);
  check_int_output(kOp, output, sizes);
  return sizes;
}

Tensor linear_cpu(const Tensor& x, const Tensor& x_scale, const Tensor& weight, const Tensor& weight_scale,
                  const optional<Tensor>& bias, int64_t x_zero2, int64_t weight_zero2, const optional<Tensor>& residual,
                  bool relu, const optional<Tensor>& out_scale, int64_t out_bits) {
  const IntScales scales{x_scale, weight_scale, bias, x_zero2, weight_zero2};
  const IntOutput output{residual, relu, out_scale, out_bits};
  Tensor y = at::empty_symint(check_linear(x, weight, scales, output), x.options().dtype(output.type()));
  const int64_t n = weight.size(0), k = weight.size(1), rows = n == 0 ? 0 : y.numel() / n;
  const CentredCodes codes = centred_left(x.contiguous(), x_zero2);
  Workspace scratch;
  const IntProduct product =
      int_product(kOp, scratch, codes, weight.contiguous(), scales, output, at::MemoryFormat::Contiguous);
  for_each_row_strip(rows, [&](int64_t first, int64_t count) {
    Left left{nullptr, k, 1, codes.zero, codes.max_code, 0, nullptr};
    if (codes.fits) {
      left.data = codes.data.const_data_ptr<uint8_t>() + first * k;
    } else {
      left.wide = codes.data.const_data_ptr<int32_t>() + first * k;
    }
    multiply_rows(product, left, first, count, y);
  });
  return y;
}

Tensor linear_meta(const Tensor& x, const Tensor& x_scale, const Tensor& weight, const Tensor& weight_scale,
                   const optional<Tensor>& bias, int64_t x_zero2, int64_t weight_zero2,
                   const optional<Tensor>& residual, bool relu, const optional<Tensor>& out_scale, int64_t out_bits) {
  const IntScales scales{x_scale, weight_scale, bias, x_zero2, weight_zero2};
  const IntOutput output{residual, relu, out_scale, out_bits};
  return at::empty_symint(check_linear(x, weight, scales, output), x.options().dtype(output.type()));
}

}  // namespace

TORCH_LIBRARY_IMPL(quintil, CPU, m) {
  m.impl("int_linear", linear_cpu);
}

TORCH_LIBRARY_IMPL(quintil, Meta, m) {
  m.impl("int_linear", linear_meta);
}

// Codes are integers: no gradient passes.
TORCH_LIBRARY_IMPL(quintil, Autograd, m) {
  m.impl("int_linear", torch::CppFunction::makeFallthrough());
}

}  // namespace quintil::ops
