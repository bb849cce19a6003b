// Products of codes for inference: code q of zero point zero2 means scale * (q - zero2 / 2), so that half-integer
// levels have codes too. What int_linear and int_conv2d share.
//
// Both operands become integers centred on their zero, factor * q - offset with factor 1, or 2 where zero2 is odd:
// their products are exact, and padding adds 0. Centred integers that fit a byte take the byte kernels; the others, of
// 8-bit codes with a zero point, the reference kernel.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <optional>

#include "csrc/core/types.h"
#include "csrc/ops/matmul_plan.h"

namespace quintil::ops {

// The scales, bias and zero points of a product, as the schemas spell them.
struct IntScales {
  const at::Tensor& x;       // 0-dim
  const at::Tensor& weight;  // 0-dim or one per output
  const std::optional<at::Tensor>& bias;
  int64_t x_zero2;
  int64_t weight_zero2;
};

// What becomes of the real numbers, as the schemas spell it: + residual, ReLU, and codes of out_bits bits of the scale.
struct IntOutput {
  const std::optional<at::Tensor>& residual;  // of the output's size
  bool relu;
  const std::optional<at::Tensor>& scale;  // 0-dim
  int64_t bits;

  at::ScalarType type() const { return scale ? at::kByte : at::kFloat; }
};
void check_int_output(const char* op, const IntOutput& output, c10::SymIntArrayRef sizes);

// What both ops check, beside shapes; `depth` products are summed for an output.
void check_int_product(const char* op, const at::Tensor& x, const at::Tensor& weight, const IntScales& scales,
                       const c10::SymInt& depth);

// Codes centred on their zero, in the memory order of the tensor that they come from.
struct CentredCodes {
  at::Tensor data;       // bytes that hold centred + zero; without `fits` int32
  int32_t zero = 0;      // the byte of 0
  int32_t max_code = 0;  // largest |centred|
  float inverse = 1;     // 1 / factor
  bool fits = true;
};
CentredCodes centred_left(const at::Tensor& codes, int64_t zero2);
CentredCodes centred_right(const at::Tensor& codes, int64_t zero2);  // zero = 0: two's complement

// A weight [N, K] packed for left operands like x, and the way from sums to the output.
struct IntProduct {
  PackedRight packed;
  ColumnEpilogue epilogue;
  CodeGrid grid{};                          // of codes
  at::Tensor column_scale, bias, residual;  // what the epilogue points into
};
// format: of the output, whose rows of N elements lie one after the other.
IntProduct int_product(const char* op, Workspace& scratch, const CentredCodes& x, const at::Tensor& weight,
                       const IntScales& scales, const IntOutput& output, at::MemoryFormat format);

// Rows [first, first + rows) of out [.., N], for the rows of `left`. Threads are used where the caller is no task itself.
void multiply_rows(const IntProduct& product, const Left& left, int64_t first, int64_t rows, const at::Tensor& out);

// At most 96, and the same number of strips for every thread.
int64_t rows_per_strip(int64_t rows);

// Calls f(first, count) for strips of rows, in parallel; a single strip leaves the threads to its product.
template <class F>
void for_each_row_strip(int64_t rows, F f) {
  const int64_t strip = rows_per_strip(rows);
  at::parallel_for(0, (rows + strip - 1) / strip, 1, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) f(s * strip, std::min(strip, rows - s * strip));
  });
}

}  // namespace quintil::ops
