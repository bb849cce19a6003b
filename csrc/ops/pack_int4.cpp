// pack_int4, unpack_int4: two 4-bit codes per byte along the last dimension, even index in the low nibble.
#include <ATen/ATen.h>
#include <torch/library.h>

#include "csrc/kernels/dispatch.h"
#include "csrc/ops/check.h"

namespace quintil::ops {

namespace {

using at::Tensor;

std::vector<c10::SymInt> with_last(const Tensor& t, c10::SymInt last) {
  std::vector<c10::SymInt> sizes = t.sym_sizes().vec();
  sizes.back() = std::move(last);
  return sizes;
}

void check_pack(const Tensor& codes) {
  check_byte_codes("pack_int4", "codes", codes);
  check_not_scalar("pack_int4", "codes", codes);
}

Tensor pack_meta(const Tensor& codes) {
  check_pack(codes);
  return at::empty_symint(with_last(codes, (codes.sym_size(-1) + 1) / 2), codes.options().dtype(at::kByte));
}

Tensor pack_cpu(const Tensor& codes) {
  check_pack(codes);
  const Tensor data = codes.contiguous();
  if (data.numel() > 0) {
    const bool is_signed = data.scalar_type() == at::kChar;
    const auto [least, most] = at::aminmax(data);
    const int64_t lo = least.item<int64_t>(), hi = most.item<int64_t>();
    TORCH_CHECK_VALUE(lo >= (is_signed ? -8 : 0) && hi <= (is_signed ? 7 : 15), "pack_int4: expected codes to lie in ",
                      is_signed ? "-8..7" : "0..15", ", got ", lo < (is_signed ? -8 : 0) ? lo : hi, " (codes is ",
                      data.scalar_type(), ")");
  }
  const int64_t cols = data.size(-1), width = (cols + 1) / 2, rows = cols == 0 ? 0 : data.numel() / cols;
  Tensor packed = at::empty_symint(with_last(codes, width), codes.options().dtype(at::kByte));
  const auto* in = static_cast<const uint8_t*>(data.const_data_ptr());
  auto* out = packed.mutable_data_ptr<uint8_t>();
  for (int64_t r = 0; r < rows; ++r) kernels::active().pack_u8u4(in + r * cols, cols, out + r * width);
  return packed;
}

void check_unpack(const Tensor& packed, const c10::SymInt& size) {
  constexpr const char* op = "unpack_int4";
  check_dtype(op, "packed", packed, at::kByte);
  check_not_scalar(op, "packed", packed);
  TORCH_CHECK_VALUE(size >= 0 && packed.sym_size(-1) == (size + 1) / 2, op,
                    ": expected size to fit packed.size(-1) bytes of two codes, got ", size, " (packed is ",
                    packed.sym_sizes(), ")");
}

Tensor unpack_meta(const Tensor& packed, c10::SymInt size, bool is_signed) {
  check_unpack(packed, size);
  return at::empty_symint(with_last(packed, size), packed.options().dtype(is_signed ? at::kChar : at::kByte));
}

Tensor unpack_cpu(const Tensor& packed, int64_t size, bool is_signed) {
  check_unpack(packed, size);
  const Tensor data = packed.contiguous();
  const int64_t width = data.size(-1), rows = width == 0 ? 0 : data.numel() / width;
  Tensor codes = at::empty_symint(with_last(packed, size), packed.options().dtype(is_signed ? at::kChar : at::kByte));
  const auto* in = data.const_data_ptr<uint8_t>();
  auto* out = static_cast<uint8_t*>(codes.mutable_data_ptr());
  for (int64_t r = 0; r < rows; ++r) kernels::active().unpack_u4u8(in + r * width, size, is_signed, out + r * size);
  return codes;
}

}  // namespace

TORCH_LIBRARY_IMPL(quintil, CPU, m) {
  m.impl("pack_int4", pack_cpu);
  m.impl("unpack_int4", unpack_cpu);
}

TORCH_LIBRARY_IMPL(quintil, Meta, m) {
  m.impl("pack_int4", pack_meta);
  m.impl("unpack_int4", unpack_meta);
}

}  // namespace quintil::ops
