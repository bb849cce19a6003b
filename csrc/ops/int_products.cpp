#include "csrc/ops/int_products.h"

#include <ATen/ATen.h>

#include <cstdlib>

#include "csrc/kernels/dispatch.h"
#include "csrc/ops/check.h"
#include "csrc/quantizers/uniform.h"

namespace quintil::ops {

namespace {

using at::Tensor;

constexpr int64_t kMostRows = 96;  // whose sums stay in L2
constexpr int64_t kCodesPerTask = 1 << 17;
constexpr int64_t kLargestZero2 = 512;  // beyond every code, either sign

// centred = factor * q - offset.
struct Centring {
  int64_t factor, offset;

  explicit Centring(int64_t zero2) : factor(zero2 % 2 == 0 ? 1 : 2), offset(zero2 % 2 == 0 ? zero2 / 2 : zero2) {}
  int64_t of(int64_t q) const { return factor * q - offset; }
};

// Largest |centred| of any code of a type.
int64_t largest_centred(at::ScalarType type, int64_t zero2) {
  const Centring centring(zero2);
  const bool is_signed = type == at::kChar;
  return std::max(std::abs(centring.of(is_signed ? -128 : 0)), std::abs(centring.of(is_signed ? 127 : 255)));
}

struct Bounds {
  int64_t lo = 0, hi = 0;
};

int64_t largest_magnitude(const Tensor& codes) {
  const auto& k = kernels::active();
  const void* data = codes.const_data_ptr();
  return at::parallel_reduce(
      0, codes.numel(), kCodesPerTask, int64_t{0},
      [&](int64_t begin, int64_t end, int64_t most) {
        const int32_t found = codes.scalar_type() == at::kChar
                                  ? k.absmax_s8(static_cast<const int8_t*>(data) + begin, end - begin)
                                  : k.absmax_u8(static_cast<const uint8_t*>(data) + begin, end - begin);
        return std::max<int64_t>(most, found);
      },
      [](int64_t a, int64_t b) { return std::max(a, b); });
}

// The range of the codes, or of their magnitude where that decides as well.
Bounds centred_bounds(const Tensor& codes, const Centring& centring) {
  if (codes.numel() == 0) return {};
  if (centring.factor == 1 && centring.offset == 0 && codes.is_non_overlapping_and_dense()) {
    const int64_t most = largest_magnitude(codes);
    return codes.scalar_type() == at::kChar ? Bounds{-most, std::min<int64_t>(most, 127)} : Bounds{0, most};
  }
  const auto [least, most] = at::aminmax(codes);
  return {centring.of(least.item<int64_t>()), centring.of(most.item<int64_t>())};
}

// Bytes that hold centred + zero, modulo 256; or int32.
CentredCodes centred(const Tensor& codes, const Centring& centring, const Bounds& bounds, int64_t zero, bool fits) {
  CentredCodes result;
  result.zero = static_cast<int32_t>(zero);
  result.max_code = static_cast<int32_t>(std::max(std::abs(bounds.lo), std::abs(bounds.hi)));
  result.inverse = 1.0f / static_cast<float>(centring.factor);
  result.fits = fits;
  if (!fits) {
    result.data = codes.to(at::kInt).mul(centring.factor).sub(centring.offset);
    return result;
  }
  const int64_t shift = (zero - centring.offset) & 255;
  result.data = codes.view(at::kByte);
  if (centring.factor != 1) result.data = result.data.mul(centring.factor);
  if (shift != 0) result.data = result.data.add(shift);
  return result;
}

void check_scale(const char* op, const char* name, const Tensor& scale, const c10::SymInt& outputs, bool per_output) {
  check_floating(op, name, scale);
  if (!per_output) return check_dim(op, name, scale, 0);
  TORCH_CHECK_VALUE(scale.dim() == 0 || (scale.dim() == 1 && scale.sym_size(0) == outputs), op, ": expected ", name,
                    " to be 0-dim or to hold one value per output, got ", scale.sym_sizes(), " (", outputs,
                    " outputs)");
}

}  // namespace

void check_int_product(const char* op, const Tensor& x, const Tensor& weight, const IntScales& scales,
                       const c10::SymInt& depth) {
  check_byte_codes(op, "x", x);
  check_dtype(op, "weight", weight, at::kChar);
  const c10::SymInt outputs = weight.sym_size(0);
  check_scale(op, "x_scale", scales.x, outputs, false);
  check_scale(op, "weight_scale", scales.weight, outputs, true);
  check_range(op, "x_zero2", scales.x_zero2, -kLargestZero2, kLargestZero2);
  check_range(op, "weight_zero2", scales.weight_zero2, -kLargestZero2, kLargestZero2);
  if (scales.bias) {
    check_floating(op, "bias", *scales.bias);
    TORCH_CHECK_VALUE(scales.bias->dim() == 1 && scales.bias->sym_size(0) == outputs, op,
                      ": expected bias to hold one element per output, got bias ", scales.bias->sym_sizes(), " (",
                      outputs, " outputs)");
  }
  const int64_t deepest = ((int64_t{1} << 31) - 1) / (largest_centred(x.scalar_type(), scales.x_zero2) *
                                                      largest_centred(at::kChar, scales.weight_zero2));
  TORCH_CHECK_VALUE(depth <= deepest, op, ": expected weight to hold at most ", deepest,
                    " codes per output so that sums are exact in int32, got ", depth, " (x is ", x.scalar_type(),
                    ", x_zero2 is ", scales.x_zero2, ", weight_zero2 is ", scales.weight_zero2, ")");
}

void check_int_output(const char* op, const IntOutput& output, c10::SymIntArrayRef sizes) {
  check_range(op, "out_bits", output.bits, 2, 8);
  if (output.scale) check_scale(op, "out_scale", *output.scale, 1, false);
  if (!output.residual) return;
  check_floating(op, "residual", *output.residual);
  TORCH_CHECK_VALUE(output.residual->sym_sizes() == sizes, op,
                    ": expected residual to have the size of the output, got ", output.residual->sym_sizes(),
                    " (the output is ", sizes, ")");
}

CentredCodes centred_left(const Tensor& codes, int64_t zero2) {
  const Centring centring(zero2);
  const Bounds bounds = centred_bounds(codes, centring);
  const int64_t zero = std::max<int64_t>(0, -bounds.lo);
  return centred(codes, centring, bounds, zero, zero <= 255 && zero + bounds.hi <= 255);
}

CentredCodes centred_right(const Tensor& codes, int64_t zero2) {
  const Centring centring(zero2);
  const Bounds bounds = centred_bounds(codes, centring);
  return centred(codes, centring, bounds, 0, bounds.lo >= -128 && bounds.hi <= 127);
}

IntProduct int_product(const char* op, Workspace& scratch, const CentredCodes& x, const Tensor& weight,
                       const IntScales& scales, const IntOutput& output, at::MemoryFormat format) {
  const int64_t n = weight.size(0), k = weight.size(1);
  const CentredCodes codes = centred_right(weight, scales.weight_zero2);
  Right right{nullptr, 1, k, codes.max_code, nullptr};
  if (codes.fits) {
    right.data = static_cast<const int8_t*>(codes.data.const_data_ptr());
  } else {
    right.wide = codes.data.const_data_ptr<int32_t>();
  }
  Left like_x;
  like_x.zero = x.zero;
  like_x.max_code = x.max_code;
  like_x.wide = x.fits ? nullptr : x.data.const_data_ptr<int32_t>();
  IntProduct product;
  product.packed = pack_right(op, scratch, right, like_x, k, n, {.tile = 0, .bits = 32});
  product.column_scale = scales.weight.to(at::kFloat).expand({n}).contiguous();
  if (scales.bias) product.bias = scales.bias->to(at::kFloat).contiguous();
  if (output.residual) product.residual = output.residual->to(at::kFloat).contiguous(format);
  if (output.scale)
    product.grid = {output.scale->to(at::kFloat).item<float>() + kStepEpsilon, 0, largest_code(output.bits, false), 0};
  product.epilogue = {product.column_scale.const_data_ptr<float>(),
                      scales.x.to(at::kFloat).item<float>(),
                      x.inverse * codes.inverse,
                      scales.bias ? product.bias.const_data_ptr<float>() : nullptr,
                      output.residual ? product.residual.const_data_ptr<float>() : nullptr,
                      n,
                      output.relu};
  return product;
}

void multiply_rows(const IntProduct& product, const Left& left, int64_t first, int64_t rows, const Tensor& out) {
  Workspace scratch;
  const int64_t n = product.packed.n;
  Out sums;
  sums.s32 = scratch.take<int32_t>(rows * n);
  sums.ld = n;
  multiply(product.packed, left, rows, sums);
  ColumnEpilogue epilogue = product.epilogue;
  if (epilogue.residual != nullptr) epilogue.residual += first * n;
  const auto& k = kernels::active();
  if (out.scalar_type() == at::kFloat) {
    k.scale_s32f32_columns(sums.s32, rows, n, n, epilogue, out.mutable_data_ptr<float>() + first * n, n);
  } else {
    auto* codes = out.mutable_data_ptr<uint8_t>() + first * n;
    k.scale_s32u8_columns(sums.s32, rows, n, n, epilogue, product.grid, codes, n);
  }
}

int64_t rows_per_strip(int64_t rows) {
  const int64_t threads = at::get_num_threads();
  int64_t strips = std::max<int64_t>(1, (rows + kMostRows - 1) / kMostRows);
  if (strips > 1) strips = (strips + threads - 1) / threads * threads;
  return std::max<int64_t>(1, (rows + strips - 1) / strips);
}

}  // namespace quintil::ops
