#include "csrc/ops/conv_problem.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "csrc/kernels/dispatch.h"
#include "csrc/ops/check.h"

namespace quintil::ops {

namespace {

using at::Tensor;

void check_pair(const char* op, const char* name, c10::SymIntArrayRef pair, int64_t least) {
  TORCH_CHECK_VALUE(pair.size() == 2 && pair[0] >= least && pair[1] >= least, op, ": expected ", name,
                    " to be two integers >= ", least, ", got ", pair);
}

}  // namespace

std::vector<c10::SymInt> conv_output_sizes(const char* op, const Tensor& x, const Tensor& weight,
                                           c10::SymIntArrayRef stride, c10::SymIntArrayRef padding,
                                           c10::SymIntArrayRef dilation) {
  check_dim(op, "x", x, 4);
  check_dim(op, "weight", weight, 4);
  TORCH_CHECK_VALUE(x.sym_size(1) == weight.sym_size(1), op, ": expected x.size(1) to equal weight.size(1), got ",
                    x.sym_size(1), " and ", weight.sym_size(1), " (x is ", x.sym_sizes(), ", weight is ",
                    weight.sym_sizes(), ")");
  check_pair(op, "stride", stride, 1);
  check_pair(op, "padding", padding, 0);
  check_pair(op, "dilation", dilation, 1);
  std::vector<c10::SymInt> sizes = {x.sym_size(0), weight.sym_size(0)};
  for (int64_t d = 0; d < 2; ++d) {
    TORCH_CHECK_VALUE(weight.sym_size(2 + d) >= 1, op, ": expected weight to have a kernel of at least 1 x 1, got ",
                      weight.sym_sizes());
    const c10::SymInt room = x.sym_size(2 + d) + 2 * padding[d] - dilation[d] * (weight.sym_size(2 + d) - 1) - 1;
    TORCH_CHECK_VALUE(room >= 0, op, ": expected the kernel to fit the padded image, got weight ", weight.sym_sizes(),
                      " (x is ", x.sym_sizes(), ", padding is ", padding, ", dilation is ", dilation, ")");
    sizes.push_back(room / stride[d] + 1);
  }
  return sizes;
}

ConvProblem conv_problem(at::IntArrayRef x, at::IntArrayRef w, at::IntArrayRef stride, at::IntArrayRef padding,
                         at::IntArrayRef dilation, bool channels_last_taps) {
  ConvProblem p{};
  const auto length = [&](int64_t d) {
    return (x[2 + d] + 2 * padding[d] - dilation[d] * (w[2 + d] - 1) - 1) / stride[d] + 1;
  };
  p.shape = {x[2],       x[3],       x[1],        w[2],        w[3],      stride[0], stride[1],
             padding[0], padding[1], dilation[0], dilation[1], length(0), length(1), channels_last_taps};
  p.samples = x[0];
  p.outputs = w[0];
  p.positions = p.shape.out_h * p.shape.out_w;
  p.depth = w[1] * w[2] * w[3];
  return p;
}

Tensor weight_matrix(const Tensor& weight, bool channels_last_taps) {
  const Tensor taps = channels_last_taps ? weight.permute({0, 2, 3, 1}) : weight;
  return taps.contiguous().view({weight.size(0), weight.numel() / std::max<int64_t>(1, weight.size(0))});
}

Tensor weight_image(const Tensor& matrix, at::IntArrayRef w, bool channels_last_taps) {
  if (!channels_last_taps) return matrix.view(w);
  return matrix.view({w[0], w[2], w[3], w[1]}).permute({0, 3, 1, 2});
}

CodeMatrix unfold(Workspace& scratch, const ConvProblem& p, const CodeMatrix& image, int64_t first, int64_t count) {
  CodeMatrix out = image;
  out.rows = count;
  out.cols = p.depth;
  out.ld = (p.depth + kDepth - 1) / kDepth * kDepth;
  out.data = scratch.take<uint8_t>(count * out.ld);
  for (int64_t row = 0; row < count;) {
    const int64_t sample = (first + row) / p.positions, position = (first + row) % p.positions;
    const int64_t run = std::min(count - row, p.positions - position);
    kernels::active().im2col_u8(image.data + sample * image.ld, p.shape, position, run,
                                static_cast<uint8_t>(image.zero), out.data + row * out.ld, out.ld);
    row += run;
  }
  return out;
}

}  // namespace quintil::ops
