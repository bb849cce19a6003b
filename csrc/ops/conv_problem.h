// The geometry of a convolution that every integer convolution shares: sizes, tap order, unfolding of codes [HDQT H12].
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/SymInt.h>
#include <c10/core/SymIntArrayRef.h>

#include <cstdint>
#include <vector>

#include "csrc/core/types.h"
#include "csrc/ops/code_matrix.h"
#include "csrc/ops/workspace.h"

namespace quintil::ops {

// Checks shapes, stride, padding and dilation of x [N, C, H, W] and weight [O, C, kh, kw]; sizes of the output [N, O, H', W'].
std::vector<c10::SymInt> conv_output_sizes(const char* op, const at::Tensor& x, const at::Tensor& weight,
                                           c10::SymIntArrayRef stride, c10::SymIntArrayRef padding,
                                           c10::SymIntArrayRef dilation);

// Output position l of a sample is row l of a matrix [L, K] of unfolded taps.
struct ConvProblem {
  int64_t samples, outputs, positions, depth;  // N, O, L, K
  ConvShape shape;
};
ConvProblem conv_problem(at::IntArrayRef x, at::IntArrayRef w, at::IntArrayRef stride, at::IntArrayRef padding,
                         at::IntArrayRef dilation, bool channels_last_taps);

// The weight as a matrix [O, K] in the tap order, and back in the memory format that costs no copy.
at::Tensor weight_matrix(const at::Tensor& weight, bool channels_last_taps);
inline at::MemoryFormat weight_format(bool channels_last_taps) {
  return channels_last_taps ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
}
at::Tensor weight_image(const at::Tensor& matrix, at::IntArrayRef w, bool channels_last_taps);

// Unfolded codes of output positions [first, first + count) of the image batch, rows running over (sample, position).
// `image` is [N, H * W * C] in channels-last order.
CodeMatrix unfold(Workspace& scratch, const ConvProblem& p, const CodeMatrix& image, int64_t first, int64_t count);

}  // namespace quintil::ops
