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

Tensor double_round_cpu(const Tensor& codes, int64_t from_bits, int64_t to_bits, c10::string_view rounding) {
  const Narrowing to = check_double_round(codes, from_bits, to_bits, rounding);
  const auto format = codes.suggest_memory_format();
  const Tensor data = codes.contiguous(format);
  Tensor result = at::empty(codes.sizes(), codes.options().memory_format(format));
  const auto* in = data.const_data_ptr<int8_t>();
  auto* out = result.mutable_data_ptr<int8_t>();
  at::parallel_for(0, data.numel(), kCodesPerTask, [&](int64_t begin, int64_t end) {
    kernels::active().double_round_s8s8(in + begin, end - begin, to, out + begin);
  });
  return result;
}

Tensor double_round_meta(const Tensor& codes, int64_t from_bits, int64_t to_bits, c10::string_view rounding) {
  check_double_round(codes, from_bits, to_bits, rounding);
  return at::empty_symint(codes.sym_sizes(), codes.options().memory_format(codes.suggest_memory_format()));
}

}  // namespace

TORCH_LIBRARY_IMPL(quintil, CPU, m) {
  m.impl("double_round", double_round_cpu);
}

TORCH_LIBRARY_IMPL(quintil, Meta, m) {
  m.impl("double_round", double_round_meta);
}

}  // namespace quintil::ops
