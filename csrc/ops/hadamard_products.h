// The forward and B1 of an HDQT layer on matrices in scratch memory [HDQT H3, H9], and what they share with B2, which is in
// weight_gradient. A linear layer runs each product once; a convolution runs the backward ones once per sample (or per
// batch) on unfolded codes.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "csrc/ops/code_transforms.h"
#include "csrc/ops/hadamard_options.h"
#include "csrc/ops/matmul_plan.h"

namespace quintil::ops {

// The operands of a layer as float32, by casts that carry gradients, and whether a backward can follow.
struct FloatOperands {
  at::Tensor x, weight;
  std::optional<at::Tensor> bias;
  bool needs_gradient;
};
FloatOperands float_operands(const char* op, const at::Tensor& x, const at::Tensor& weight,
                             const std::optional<at::Tensor>& bias);

// Checks shared by the layers: dtypes, and one bias element per output.
void check_layer(const char* op, const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias);

// Dynamic codes of float data [rows, cols], unsigned unless an element is negative [H1, H2]. Rows are padded to a
// multiple of four bytes, as a left operand wants them.
CodeMatrix quantize_operand(Workspace& scratch, const float* x, int64_t rows, int64_t cols,
                            const HadamardConfig& config, float range_fraction, std::optional<Draw> draw);

// Codes for the backward: two per byte up to 4 bits, else one; and the steps and zeros of both operands.
at::Tensor save_codes(const CodeMatrix& codes, int64_t bits);
CodeMatrix load_codes(Workspace& scratch, const at::Tensor& saved, int64_t cols, int64_t bits, float step, float zero);
at::Tensor save_scales(const CodeMatrix& x, const CodeMatrix& weight);
int64_t saved_width(int64_t cols, int64_t bits);

Left left_operand(const CodeMatrix& codes);
// Transformed codes as the right operand of a product along their rows, and signed codes of a gradient [rows, n] in offset
// bytes as its left one, grad^T.
Right right_of(const TransformedCodes& codes);
Left gradient_operand(int64_t bits, const uint8_t* codes, int64_t n);
// Codes of a weight [n, k] packed as the right operand of x w^T.
PackedRight pack_weight(const char* op, Workspace& scratch, const CodeMatrix& weight, const Left& left,
                        const Accumulator& accumulator);

// B1, the weight's half: Qn(H_N w) packed once for any number of gradients [H9].
struct InputGradWeight {
  PackedRight packed;
  float step = 1;  // s1
};
InputGradWeight prepare_input_gradient(const char* op, Workspace& scratch, const HadamardConfig& config,
                                       const CodeMatrix& weight, std::optional<int64_t> seed);

// B1, the gradient's half: Qs(g H_N) of g [rows, n]; with the draws of `place`.
CodeMatrix quantize_input_gradient(Workspace& scratch, const HadamardConfig& config, const float* grad, int64_t rows,
                                   int64_t n, std::optional<int64_t> seed, DrawRows place);
Epilogue input_gradient_epilogue(const HadamardConfig& config, const CodeMatrix& grad, const InputGradWeight& weight,
                                 float weight_step, int64_t n);

// Column sums of grad [rows, n]: chunks of 1024 rows, chunks ascending (N8).
void bias_gradient(const float* grad, int64_t rows, int64_t n, float* db);

}  // namespace quintil::ops
