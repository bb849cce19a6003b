#include "csrc/ops/hadamard_products.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <type_traits>

#include "csrc/kernels/dispatch.h"
#include "csrc/ops/check.h"
#include "csrc/quantizers/uniform.h"

namespace quintil::ops {

namespace {

constexpr int64_t kSumChunk = 1024;  // rows of one partial bias sum (N8)

int64_t row_bytes(int64_t cols) {
  return (cols + kDepth - 1) / kDepth * kDepth;
}

// to[i] = code of byte i; the difference wraps in the width of T, so that whole vectors are subtracted.
template <class T>
void subtract_zero(const uint8_t* from, int64_t n, std::make_unsigned_t<T> zero, T* to) {
  for (int64_t i = 0; i < n; ++i) to[i] = static_cast<T>(static_cast<std::make_unsigned_t<T>>(from[i] - zero));
}

template <class T>
const T* signed_codes(Workspace& scratch, const CodeMatrix& weight) {
  T* codes = scratch.take<T>(weight.rows * weight.cols);
  const int64_t grain = std::max<int64_t>(1, (1 << 16) / std::max<int64_t>(1, weight.cols));
  at::parallel_for(0, weight.rows, grain, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      subtract_zero(weight.data + r * weight.ld, weight.cols, static_cast<std::make_unsigned_t<T>>(weight.zero),
                    codes + r * weight.cols);
    }
  });
  return codes;
}

// Codes of the weight as signed numbers, or as int32 where unsigned 8-bit codes do not fit a signed byte.
Right right_codes(Workspace& scratch, const CodeMatrix& weight) {
  Right right{nullptr, 1, weight.cols, weight.max_code, nullptr};
  if (weight.max_code <= 127) {
    right.data = signed_codes<int8_t>(scratch, weight);
  } else {
    right.wide = signed_codes<int32_t>(scratch, weight);
  }
  return right;
}

// What the gradient's codes will look like: signed, in offset bytes.
Left gradient_layout(int64_t bits) {
  Left left;
  left.zero = int32_t{1} << (bits - 1);
  left.max_code = largest_code(bits, true);
  return left;
}

}  // namespace

FloatOperands float_operands(const char* op, const at::Tensor& x, const at::Tensor& weight,
                             const std::optional<at::Tensor>& bias) {
  check_floating(op, "x", x);
  check_floating(op, "weight", weight);
  if (bias) check_floating(op, "bias", *bias);
  const bool needs_gradient =
      at::GradMode::is_enabled() && (x.requires_grad() || weight.requires_grad() || (bias && bias->requires_grad()));
  return {x.to(at::kFloat), weight.to(at::kFloat),
          bias ? std::optional<at::Tensor>(bias->to(at::kFloat)) : std::nullopt, needs_gradient};
}

void check_layer(const char* op, const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias) {
  check_dtype(op, "x", x, at::kFloat);
  check_dtype(op, "weight", weight, at::kFloat);
  if (!bias) return;
  check_dtype(op, "bias", *bias, at::kFloat);
  TORCH_CHECK_VALUE(bias->dim() == 1 && bias->sym_size(0) == weight.sym_size(0), op,
                    ": expected bias to hold one element per output, got bias ", bias->sym_sizes(), " (weight is ",
                    weight.sym_sizes(), ")");
}

CodeMatrix quantize_operand(Workspace& scratch, const float* x, int64_t rows, int64_t cols,
                            const HadamardConfig& config, float range_fraction, std::optional<Draw> draw) {
  const AbsMax range = absmax(x, rows * cols);
  const Quantizer q = dynamic_quantizer(range, range_fraction, config.bits, range.negative != 0, true, draw);
  CodeMatrix codes{nullptr, rows, cols, row_bytes(cols), q.grid.zero, q.grid.hi, q.step};
  codes.data = scratch.take<uint8_t>(rows * codes.ld);
  quantize_matrix(q, x, rows, cols, cols, {}, codes.data, codes.ld);
  return codes;
}

int64_t saved_width(int64_t cols, int64_t bits) {
  return bits <= 4 ? (cols + 1) / 2 : cols;
}

at::Tensor save_codes(const CodeMatrix& codes, int64_t bits) {
  at::Tensor saved = at::empty({codes.rows, saved_width(codes.cols, bits)}, at::kByte);
  auto* out = saved.mutable_data_ptr<uint8_t>();
  const int64_t width = saved.size(1);
  at::parallel_for(0, codes.rows, std::max<int64_t>(1, (1 << 16) / std::max<int64_t>(1, codes.cols)),
                   [&](int64_t begin, int64_t end) {
                     for (int64_t r = begin; r < end; ++r) {
                       const uint8_t* row = codes.data + r * codes.ld;
                       if (bits <= 4) {
                         kernels::active().pack_u8u4(row, codes.cols, out + r * width);
                       } else {
                         std::copy_n(row, codes.cols, out + r * width);
                       }
                     }
                   });
  return saved;
}

CodeMatrix load_codes(Workspace& scratch, const at::Tensor& saved, int64_t cols, int64_t bits, float step, float zero) {
  const int64_t rows = saved.size(0), width = saved.size(1);
  const auto* packed = saved.const_data_ptr<uint8_t>();
  CodeMatrix codes{scratch.take<uint8_t>(rows * row_bytes(cols)),
                   rows,
                   cols,
                   row_bytes(cols),
                   static_cast<int32_t>(zero),
                   largest_code(bits, zero != 0),
                   step};
  at::parallel_for(0, rows, std::max<int64_t>(1, (1 << 16) / std::max<int64_t>(1, cols)),
                   [&](int64_t begin, int64_t end) {
                     for (int64_t r = begin; r < end; ++r) {
                       uint8_t* row = codes.data + r * codes.ld;
                       if (bits <= 4) {
                         kernels::active().unpack_u4u8(packed + r * width, cols, false, row);
                       } else {
                         std::copy_n(packed + r * width, cols, row);
                       }
                     }
                   });
  return codes;
}

at::Tensor save_scales(const CodeMatrix& x, const CodeMatrix& weight) {
  at::Tensor scales = at::empty({4}, at::kFloat);
  auto* s = scales.mutable_data_ptr<float>();
  s[0] = x.step;
  s[1] = static_cast<float>(x.zero);
  s[2] = weight.step;
  s[3] = static_cast<float>(weight.zero);
  return scales;
}

Right right_of(const TransformedCodes& codes) {
  return {codes.codes, codes.cols, 1, codes.max_code, codes.exact};
}

Left gradient_operand(int64_t bits, const uint8_t* codes, int64_t n) {
  Left left = gradient_layout(bits);
  left.data = codes;
  left.m_stride = 1;
  left.k_stride = n;
  return left;
}

Left left_operand(const CodeMatrix& codes) {
  return {codes.data, codes.ld, 1, codes.zero, codes.max_code, codes.ld - codes.cols, nullptr};
}

PackedRight pack_weight(const char* op, Workspace& scratch, const CodeMatrix& weight, const Left& left,
                        const Accumulator& accumulator) {
  return pack_right(op, scratch, right_codes(scratch, weight), left, weight.cols, weight.rows, accumulator);
}

InputGradWeight prepare_input_gradient(const char* op, Workspace& scratch, const HadamardConfig& config,
                                       const CodeMatrix& weight, std::optional<int64_t> seed) {
  const auto draw = draw_for(seed, Site::kInputGradWeight, config.rounds_stochastically(Site::kInputGradWeight));
  const TransformedCodes wt = transform_codes(scratch, config.blocks, weight, config.bits, config.requantize, draw, {});
  return {pack_right(op, scratch, right_of(wt), gradient_layout(config.bits), wt.rows, wt.cols, config.input_gradient),
          wt.step};
}

CodeMatrix quantize_input_gradient(Workspace& scratch, const HadamardConfig& config, const float* grad, int64_t rows,
                                   int64_t n, std::optional<int64_t> seed, DrawRows place) {
  const auto draw = draw_for(seed, Site::kInputGradGrad, config.rounds_stochastically(Site::kInputGradGrad));
  const int64_t cols = config.blocks.padded(n);
  const TransformedFloats z = transform_cols_axis(scratch, config.blocks, grad, rows, n);
  const Quantizer q = dynamic_quantizer(z.range, 1.0f, config.bits, true, true, draw);
  CodeMatrix codes{nullptr, rows, cols, row_bytes(cols), q.grid.zero, q.grid.hi, q.step};
  codes.data = scratch.take<uint8_t>(rows * codes.ld);
  quantize_matrix(q, z.data, rows, cols, cols, place, codes.data, codes.ld);
  return codes;
}

Epilogue input_gradient_epilogue(const HadamardConfig& config, const CodeMatrix& grad, const InputGradWeight& weight,
                                 float weight_step, int64_t n) {
  return {{grad.step, weight.step, weight_step}, config.blocks.inverse(n), nullptr};
}

void bias_gradient(const float* grad, int64_t rows, int64_t n, float* db) {
  Workspace scratch;
  const int64_t chunks = (rows + kSumChunk - 1) / kSumChunk;
  auto* parts = scratch.take<float>(chunks * n);
  at::parallel_for(0, chunks, std::max<int64_t>(1, (1 << 16) / std::max<int64_t>(1, kSumChunk * n)),
                   [&](int64_t begin, int64_t end) {
                     for (int64_t c = begin; c < end; ++c) {
                       kernels::active().sum_rows_f32(grad + c * kSumChunk * n,
                                                      std::min(kSumChunk, rows - c * kSumChunk), n, n, parts + c * n);
                     }
                   });
  kernels::active().sum_rows_f32(parts, chunks, n, n, db);
}

}  // namespace quintil::ops
