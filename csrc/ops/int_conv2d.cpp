// int_conv2d: a convolution on stored codes, for inference. A strip of output positions is unfolded at a time, padding
// as the code of 0; int32 codes are unfolded as runs of four bytes.
#include <ATen/ATen.h>
#include <torch/library.h>

#include "csrc/ops/check.h"
#include "csrc/ops/conv_problem.h"
#include "csrc/ops/int_products.h"

namespace quintil::ops {

namespace {

using at::Tensor;
using std::optional;

constexpr const char* kOp = "int_conv2d";
constexpr auto kChannelsLast = at::MemoryFormat::ChannelsLast;

// Sizes of the output [N, O, H', W'].
std::vector<c10::SymInt> check_conv(const Tensor& x, const Tensor& weight, const IntScales& scales,
                                    const IntOutput& output, c10::SymIntArrayRef stride, c10::SymIntArrayRef padding,
                                    c10::SymIntArrayRef dilation) {
  std::vector<c10::SymInt> sizes = conv_output_sizes(kOp, x, weight, stride, padding, dilation);
  check_int_product(kOp, x, weight, scales, weight.sym_size(1) * weight.sym_size(2) * weight.sym_size(3));
  check_int_output(kOp, output, sizes);
  return sizes;
}

// The batch in bytes, [N, H * W * C], and the problem that unfolds them.
struct ByteImage {
  ConvProblem p;
  CodeMatrix codes;
  bool fits;

  ByteImage(const ConvProblem& problem, const CentredCodes& x) : p(problem), fits(x.fits) {
    const int64_t width = fits ? 1 : static_cast<int64_t>(sizeof(int32_t));
    p.shape.channels *= width;
    p.depth *= width;
    const int64_t bytes = p.shape.height * p.shape.width * p.shape.channels;
    auto* data = static_cast<uint8_t*>(const_cast<void*>(x.data.const_data_ptr()));
    codes = {data, p.samples, bytes, bytes, fits ? x.zero : 0, x.max_code, 1.0f};
  }

  Left strip(Workspace& scratch, int64_t first, int64_t count) const {
    const CodeMatrix u = unfold(scratch, p, codes, first, count);
    if (fits) return {u.data, u.ld, 1, u.zero, u.max_code, u.ld - u.cols, nullptr};
    const int64_t ld = u.ld / static_cast<int64_t>(sizeof(int32_t));
    return {nullptr, ld, 1, 0, u.max_code, 0, reinterpret_cast<const int32_t*>(u.data)};
  }
};

Tensor conv_cpu(const Tensor& x, const Tensor& x_scale, const Tensor& weight, const Tensor& weight_scale,
                const optional<Tensor>& bias, at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation,
                int64_t x_zero2, int64_t weight_zero2, const optional<Tensor>& residual, bool relu,
                const optional<Tensor>& out_scale, int64_t out_bits) {
  const IntScales scales{x_scale, weight_scale, bias, x_zero2, weight_zero2};
  const IntOutput output{residual, relu, out_scale, out_bits};
  const auto sizes = check_conv(x, weight, scales, output, c10::fromIntArrayRefSlow(stride),
                                c10::fromIntArrayRefSlow(padding), c10::fromIntArrayRefSlow(dilation));
  const ConvProblem p = conv_problem(x.sizes(), weight.sizes(), stride, padding, dilation, true);
  const CentredCodes codes = centred_left(x.contiguous(kChannelsLast), x_zero2);
  Workspace scratch;
  const IntProduct product =
      int_product(kOp, scratch, codes, weight_matrix(weight, true), scales, output, kChannelsLast);
  const auto options = x.options().dtype(output.type());
  Tensor y = at::empty_symint(sizes, options.memory_format(kChannelsLast));
  const ByteImage image(p, codes);
  for_each_row_strip(p.outputs == 0 ? 0 : p.samples * p.positions, [&](int64_t first, int64_t count) {
    Workspace strip;
    multiply_rows(product, image.strip(strip, first, count), first, count, y);
  });
  const at::MemoryFormat format = x.suggest_memory_format();
  return y.numel() == 0 ? at::empty_symint(sizes, options.memory_format(format)) : y.contiguous(format);
}

Tensor conv_meta(const Tensor& x, const Tensor& x_scale, const Tensor& weight, const Tensor& weight_scale,
                 const optional<Tensor>& bias, c10::SymIntArrayRef stride, c10::SymIntArrayRef padding,
                 c10::SymIntArrayRef dilation, int64_t x_zero2, int64_t weight_zero2, const optional<Tensor>& residual,
                 bool relu, const optional<Tensor>& out_scale, int64_t out_bits) {
  const IntScales scales{x_scale, weight_scale, bias, x_zero2, weight_zero2};
  const IntOutput output{residual, relu, out_scale, out_bits};
  const auto options = x.options().dtype(output.type()).memory_format(x.suggest_memory_format());
  return at::empty_symint(check_conv(x, weight, scales, output, stride, padding, dilation), options);
}

}  // namespace

TORCH_LIBRARY_IMPL(quintil, CPU, m) {
  m.impl("int_conv2d", conv_cpu);
}

TORCH_LIBRARY_IMPL(quintil, Meta, m) {
  m.impl("int_conv2d", conv_meta);
}

// Codes are integers: no gradient passes.
TORCH_LIBRARY_IMPL(quintil, Autograd, m) {
  m.impl("int_conv2d", torch::CppFunction::makeFallthrough());
}

}  // namespace quintil::ops
