// B2, the weight gradient of an HDQT layer: one product of transformed operands [HDQT H10], or with dc_row='separate' the sum
// of two [HDQT H23]. The first row of a Sylvester block is the plain sum of its rows: of codes 0..15 it is far larger
// than the others, and leaves them few levels of a step that all share. Apart, it has 8-bit codes and an accumulator without
// limit; the others have a step to themselves:
//   (X~, s3) = Qs(R_x)  (G^, s4) = Qs(R_g)    the rows that follow the first of their block, P - 1 of every P
//   (d_x, u3) = Q8(D_x) (d_g, u4) = Qs8(D_g)  the first rows, one per block; d_x to nearest, d_g as b2g rounds
//   dw = ((float(sat(G^ X~)) * s4 * s3) + (float(d_g^T d_x) * u4 * u3)) * s_x * (1 / P)
// in this order, each operation its own rounding (N9). The row of a block that stands apart takes part in the first product
// as zeros, so a tile is the same run of rows as without it. Where blocks have order 1, nothing is summed: H10 holds.
#pragma once

#include <cstdint>
#include <optional>

#include "csrc/ops/code_matrix.h"
#include "csrc/ops/hadamard_options.h"
#include "csrc/ops/matmul_plan.h"

namespace quintil::ops {

// dw [n, x.cols]: `product` alone, or (product + first_rows) * step * inverse.
struct WeightGradProduct {
  IntegerProduct product;
  std::optional<IntegerProduct> first_rows;
  float step = 1;
  float inverse = 1;
};

// For codes x and grad [x.rows, n], with the draws of `place` for padded rows. First rows draw d_g at the site 7 as a matrix of
// [blocks, n] whose first row is place.first / P, in runs like place.run.
WeightGradProduct prepare_weight_gradient(const char* op, Workspace& scratch, const HadamardConfig& config,
                                          const CodeMatrix& x, const float* grad, int64_t n,
                                          std::optional<int64_t> seed, DrawRows place);
// Rows [first, first + count) of it.
void multiply(const WeightGradProduct& product, int64_t first, int64_t count, float* dw);
// Both at once.
void weight_gradient(const char* op, const HadamardConfig& config, const CodeMatrix& x, const float* grad, int64_t n,
                     std::optional<int64_t> seed, DrawRows place, float* dw);

}  // namespace quintil::ops
