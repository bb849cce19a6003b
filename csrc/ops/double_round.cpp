// double_round: the integers of a lower width from the stored ones [DR D2, D5].
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include "csrc/kernels/dispatch.h"
#include "csrc/ops/check.h"
#include "csrc/ops/lsq.h"
#include "csrc/quantizers/double_rounding.h"

namespace quintil::ops {

namespace {

using at::Tensor;

constexpr int64_t kCodesPerTask = 1 << 18;  // about 10 us

Narrowing check_double_round(const Tensor& codes, int64_t from_bits, int64_t to_bits, c10::string_view rounding) {
  constexpr const char* op = "double_round";
  check_dtype(op, "codes", codes, at::kChar);
  check_range(op, "from_bits", from_bits, 1, 8);
  check_range(op, "to_bits", to_bits, 1, from_bits);
  return {static_cast<int32_t>(from_bits - to_bits), lowest_code(to_bits, true), highest_code(to_bits, true),
          parse_rounding(op, rounding)};
}

// data and out share an order in memory without gaps.
void narrow(const Tensor& data, const Narrowing& to, const Tensor& out) {
  const auto* in = data.const_data_ptr<int8_t>();
  auto* result = out.mutable_data_ptr<int8_t>();
  at::parallel_for(0, data.numel(), kCodesPerTask, [&](int64_t begin, int64_t end) {
    kernels::active().double_round_s8s8(in + begin, end - begin, to, result + begin);
  });
}

Tensor double_round_cpu(const Tensor& codes, int64_t from_bits, int64_t to_bits, c10::string_view rounding) {
  const Narrowing to = check_double_round(codes, from_bits, to_bits, rounding);
  const auto format = codes.suggest_memory_format();
  const Tensor data = codes.contiguous(format);
  Tensor result = at::empty(codes.sizes(), codes.options().memory_format(format));
  narrow(data, to, result);
  return result;
}

// A switch of a stored model: no memory is asked for, which costs more than the rounding.
Tensor& double_round_out(const Tensor& codes, int64_t from_bits, int64_t to_bits, c10::string_view rounding,
                         Tensor& out) {
  const Narrowing to = check_double_round(codes, from_bits, to_bits, rounding);
  check_dtype("double_round", "out", out, at::kChar);
  TORCH_CHECK_VALUE(out.sizes() == codes.sizes(), "double_round: expected out to have the size of codes, got ",
                    out.sizes(), " (codes is ", codes.sizes(), ")");
  if (codes.strides() == out.strides() && codes.is_non_overlapping_and_dense()) {
    narrow(codes, to, out);
  } else {
    out.copy_(double_round_cpu(codes, from_bits, to_bits, rounding));
  }
  return out;
}

Tensor double_round_meta(const Tensor& codes, int64_t from_bits, int64_t to_bits, c10::string_view rounding) {
  check_double_round(codes, from_bits, to_bits, rounding);
  return at::empty_symint(codes.sym_sizes(), codes.options().memory_format(codes.suggest_memory_format()));
}

Tensor& double_round_out_meta(const Tensor& codes, int64_t from_bits, int64_t to_bits, c10::string_view rounding,
                              Tensor& out) {
  check_double_round(codes, from_bits, to_bits, rounding);
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(quintil, CPU, m) {
  m.impl("double_round", double_round_cpu);
  m.impl("double_round.out", double_round_out);
}

TORCH_LIBRARY_IMPL(quintil, Meta, m) {
  m.impl("double_round", double_round_meta);
  m.impl("double_round.out", double_round_out_meta);
}

}  // namespace quintil::ops
