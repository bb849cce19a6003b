// tiled_int_mm: an integer matrix product with A-bit accumulators over tiles of K [HDQT H3]; tile_saturation counts the
// tiles that did not fit.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>

#include "csrc/core/saturate.h"
#include "csrc/kernels/dispatch.h"
#include "csrc/ops/check.h"
#include "csrc/ops/hadamard_options.h"
#include "csrc/ops/matmul_wide.h"

namespace quintil::ops {

namespace {

using at::Tensor;

void check_product(const char* op, const Tensor& a, const Tensor& b) {
  check_byte_codes(op, "a", a);
  check_dtype(op, "b", b, at::kChar);
  check_dim(op, "a", a, 2);
  check_dim(op, "b", b, 2);
  TORCH_CHECK_VALUE(a.sym_size(1) == b.sym_size(0), op, ": expected b.size(0) to equal a.size(1), got ", b.sym_size(0),
                    " and ", a.sym_size(1), " (a is ", a.sym_sizes(), ", b is ", b.sym_sizes(), ")");
  const int64_t most = a.scalar_type() == at::kByte ? 255 : 128, deepest = ((int64_t{1} << 31) - 1) / (most * 128);
  TORCH_CHECK_VALUE(a.sym_size(1) <= deepest, op, ": expected a.size(1) <= ", deepest,
                    " so that totals are exact in int32, got ", a.sym_size(1), " (a is ", a.scalar_type(), ")");
}

constexpr int64_t kBytesPerTask = 1 << 18;  // about 10 us of reading

// Largest magnitude really present: 4-bit codes in int8 tensors then take the narrow kernels. `t` is dense in any order.
int32_t largest(const Tensor& t) {
  const bool is_signed = t.scalar_type() == at::kChar;
  const auto* x = static_cast<const uint8_t*>(t.const_data_ptr());
  const auto part = [&](int64_t begin, int64_t end, int32_t most) {
    const auto& kernels = kernels::active();
    return std::max(most, is_signed ? kernels.absmax_s8(reinterpret_cast<const int8_t*>(x) + begin, end - begin)
                                    : kernels.absmax_u8(x + begin, end - begin));
  };
  return at::parallel_reduce(0, t.numel(), kBytesPerTask, 0, part, [](int32_t a, int32_t b) { return std::max(a, b); });
}

// Signed codes as offset bytes: q + 2^7 is q with its top bit flipped.
Tensor offset_bytes(const Tensor& a) {
  return a.view(at::kByte).bitwise_xor(128);
}

struct Operands {
  Tensor a, b;  // what left and right point into
  Left left;
  Right right;
};

Operands operands(const Tensor& a, const Tensor& b) {
  Operands o;
  const bool is_signed = a.scalar_type() == at::kChar;
  const Tensor rows = a.contiguous();
  o.left.max_code = largest(rows);
  o.left.zero = is_signed ? 128 : 0;
  o.a = is_signed ? offset_bytes(rows) : rows;
  o.left.data = o.a.const_data_ptr<uint8_t>();
  o.left.m_stride = a.size(1);
  o.b = b.t().is_contiguous() ? b : b.contiguous();
  o.right = {o.b.const_data_ptr<int8_t>(), o.b.stride(0), o.b.stride(1), largest(o.b), nullptr};
  return o;
}

Tensor tiled_int_mm_cpu(const Tensor& a, const Tensor& b, int64_t tile_size, int64_t accumulator_bits,
                        c10::string_view accumulate, c10::string_view overflow) {
  constexpr const char* op = "tiled_int_mm";
  check_product(op, a, b);
  const Accumulator accumulator = parse_accumulator(op, tile_size, accumulator_bits, accumulate, overflow);
  const Operands o = operands(a, b);
  Tensor c = at::empty({a.size(0), b.size(1)}, a.options().dtype(at::kInt));
  Workspace scratch;
  Out out;
  out.s32 = c.mutable_data_ptr<int32_t>();
  out.ld = b.size(1);
  multiply(pack_right(op, scratch, o.right, o.left, a.size(1), b.size(1), accumulator), o.left, a.size(0), out);
  return c;
}

Tensor tiled_int_mm_meta(const Tensor& a, const Tensor& b, int64_t tile_size, int64_t accumulator_bits,
                         c10::string_view accumulate, c10::string_view overflow) {
  check_product("tiled_int_mm", a, b);
  parse_accumulator("tiled_int_mm", tile_size, accumulator_bits, accumulate, overflow);
  return at::empty_symint({a.sym_size(0), b.sym_size(1)}, a.options().dtype(at::kInt));
}

Tensor tile_saturation_cpu(const Tensor& a, const Tensor& b, int64_t tile_size, int64_t accumulator_bits) {
  constexpr const char* op = "tile_saturation";
  check_product(op, a, b);
  const Accumulator accumulator = parse_accumulator(op, tile_size, accumulator_bits, "tile_end", "saturate");
  const Operands o = operands(a, b);
  return at::scalar_tensor(count_limited_tiles(o.right, o.left, a.size(0), a.size(1), b.size(1), accumulator),
                           a.options().dtype(at::kLong));
}

Tensor tile_saturation_meta(const Tensor& a, const Tensor& b, int64_t tile_size, int64_t accumulator_bits) {
  check_product("tile_saturation", a, b);
  parse_accumulator("tile_saturation", tile_size, accumulator_bits, "tile_end", "saturate");
  return at::empty({}, a.options().dtype(at::kLong));
}

}  // namespace

TORCH_LIBRARY_IMPL(quintil, CPU, m) {
  m.impl("tiled_int_mm", tiled_int_mm_cpu);
  m.impl("tile_saturation", tile_saturation_cpu);
}

TORCH_LIBRARY_IMPL(quintil, Meta, m) {
  m.impl("tiled_int_mm", tiled_int_mm_meta);
  m.impl("tile_saturation", tile_saturation_meta);
}

}  // namespace quintil::ops
