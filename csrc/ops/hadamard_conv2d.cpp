// hadamard_conv2d: a convolution whose three products run on integer codes [HDQT H12]. The image is quantised once in
// channels-last order; the unfolded operand exists as bytes only, a strip of output positions at a time. The backward
// works sample by sample (or on the whole batch) and adds weight gradients in the fixed order of N8.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include "csrc/kernels/dispatch.h"
#include "csrc/ops/check.h"
#include "csrc/ops/hadamard_products.h"

namespace quintil::ops {

namespace {

using at::Tensor;
using std::optional;

constexpr const char* kOp = "hadamard_conv2d";
constexpr int64_t kStripRows = 96;     // output positions unfolded at a time
constexpr int64_t kSamplesPerSum = 8;  // samples of one partial weight gradient (N8)
constexpr auto kChannelsLast = at::MemoryFormat::ChannelsLast;

void check_pair(const char* name, c10::SymIntArrayRef pair, int64_t least) {
  TORCH_CHECK_VALUE(pair.size() == 2 && pair[0] >= least && pair[1] >= least, kOp, ": expected ", name,
                    " to be two integers >= ", least, ", got ", pair);
}

// Sizes of the output [N, O, H', W'].
std::vector<c10::SymInt> check_forward(const Tensor& x, const Tensor& weight, const optional<Tensor>& bias,
                                       c10::SymIntArrayRef stride, c10::SymIntArrayRef padding,
                                       c10::SymIntArrayRef dilation, const optional<c10::SymInt>& seed) {
  check_layer(kOp, x, weight, bias);
  check_seed_value(kOp, seed);
  check_dim(kOp, "x", x, 4);
  check_dim(kOp, "weight", weight, 4);
  TORCH_CHECK_VALUE(x.sym_size(1) == weight.sym_size(1), kOp, ": expected x.size(1) to equal weight.size(1), got ",
                    x.sym_size(1), " and ", weight.sym_size(1), " (x is ", x.sym_sizes(), ", weight is ",
                    weight.sym_sizes(), ")");
  check_pair("stride", stride, 1);
  check_pair("padding", padding, 0);
  check_pair("dilation", dilation, 1);
  std::vector<c10::SymInt> sizes = {x.sym_size(0), weight.sym_size(0)};
  for (int64_t d = 0; d < 2; ++d) {
    TORCH_CHECK_VALUE(weight.sym_size(2 + d) >= 1, kOp, ": expected weight to have a kernel of at least 1 x 1, got ",
                      weight.sym_sizes());
    const c10::SymInt room = x.sym_size(2 + d) + 2 * padding[d] - dilation[d] * (weight.sym_size(2 + d) - 1) - 1;
    TORCH_CHECK_VALUE(room >= 0, kOp, ": expected the kernel to fit the padded image, got weight ", weight.sym_sizes(),
                      " (x is ", x.sym_sizes(), ", padding is ", padding, ", dilation is ", dilation, ")");
    sizes.push_back(room / stride[d] + 1);
  }
  return sizes;
}

struct Problem {
  int64_t samples, outputs, positions, depth;  // N, O, L, K
  ConvShape shape;
};

Problem make_problem(at::IntArrayRef x, at::IntArrayRef w, at::IntArrayRef stride, at::IntArrayRef padding,
                     at::IntArrayRef dilation, bool channels_last_taps) {
  Problem p{};
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

// The weight as a matrix [O, K] in the tile order, and back.
Tensor weight_matrix(const Tensor& weight, bool channels_last_taps) {
  const Tensor taps = channels_last_taps ? weight.permute({0, 2, 3, 1}) : weight;
  return taps.contiguous().view({weight.size(0), weight.numel() / std::max<int64_t>(1, weight.size(0))});
}

Tensor weight_image(const Tensor& matrix, at::IntArrayRef w, bool channels_last_taps) {
  if (!channels_last_taps) return matrix.view(w);
  return matrix.view({w[0], w[2], w[3], w[1]}).permute({0, 3, 1, 2}).contiguous();
}

// Unfolded codes of output positions [first, first + count) of the image batch, rows running over (sample, position).
CodeMatrix unfold(Workspace& scratch, const Problem& p, const CodeMatrix& image, int64_t first, int64_t count) {
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

CodeMatrix quantize_image(Workspace& scratch, const Tensor& x, const HadamardConfig& config, float fraction,
                          optional<Draw> draw) {
  const int64_t channels = x.size(1), pixels = x.size(0) * x.size(2) * x.size(3);
  const auto* data = x.const_data_ptr<float>();
  const AbsMax range = absmax(data, pixels * channels);
  const Quantizer q = dynamic_quantizer(range, fraction, config.bits, range.negative != 0, true, draw);
  CodeMatrix image{scratch.take<uint8_t>(pixels * channels),
                   x.size(0),
                   x.size(2) * x.size(3) * channels,
                   x.size(2) * x.size(3) * channels,
                   q.grid.zero,
                   q.grid.hi,
                   q.step};
  if (draw) {  // the place of an element is (pixel, channel)
    quantize_matrix(q, data, pixels, channels, channels, 0, image.data, channels);
  } else {
    quantize_matrix(q, data, image.rows, image.cols, image.cols, 0, image.data, image.cols);
  }
  return image;
}

using Forward = std::tuple<Tensor, Tensor, Tensor, Tensor>;

Forward forward_cpu(const Tensor& x, const Tensor& weight, const optional<Tensor>& bias, at::IntArrayRef stride,
                    at::IntArrayRef padding, at::IntArrayRef dilation, at::IntArrayRef options, double range_fraction,
                    optional<int64_t> seed, bool save) {
  const auto sizes = check_forward(x, weight, bias, c10::fromIntArrayRefSlow(stride), c10::fromIntArrayRefSlow(padding),
                                   c10::fromIntArrayRefSlow(dilation), seed);
  check_finite(kOp, "x", x);
  check_finite(kOp, "weight", weight);
  const HadamardConfig config = HadamardConfig::decode(options);
  const Problem p = make_problem(x.sizes(), weight.sizes(), stride, padding, dilation, config.channels_last_taps);
  const Tensor pixels = x.contiguous(kChannelsLast), matrix = weight_matrix(weight, config.channels_last_taps);
  const Tensor offsets = bias ? bias->contiguous() : Tensor();
  Workspace scratch;
  const auto fraction = static_cast<float>(range_fraction);
  const auto site = [&](Site s) { return draw_for(seed, s, config.rounds_stochastically(s)); };
  const CodeMatrix image = quantize_image(scratch, pixels, config, fraction, site(Site::kForwardInput));
  const CodeMatrix wc = quantize_operand(scratch, matrix.const_data_ptr<float>(), p.outputs, p.depth, config, fraction,
                                         site(Site::kForwardWeight));
  Tensor y = at::empty_symint(sizes, x.options().memory_format(kChannelsLast));
  const PackedRight right = pack_weight(kOp, scratch, wc, left_operand(image), config.forward);
  const Epilogue epilogue{{wc.step, image.step, 1.0f}, 1.0f, bias ? offsets.const_data_ptr<float>() : nullptr};
  auto* out = y.mutable_data_ptr<float>();
  const int64_t rows = p.samples * p.positions;
  at::parallel_for(0, (rows + kStripRows - 1) / kStripRows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) {
      Workspace strip;
      const int64_t first = s * kStripRows, count = std::min(kStripRows, rows - first);
      Out to;
      to.f32 = out + first * p.outputs;
      to.ld = p.outputs;
      to.epilogue = epilogue;
      multiply(right, left_operand(unfold(strip, p, image, first, count)), count, to);
    }
  });
  const at::MemoryFormat format = x.suggest_memory_format();
  y = y.numel() == 0 ? at::empty_symint(sizes, x.options().memory_format(format)) : y.contiguous(format);
  if (!save) return {y, at::empty({0, 0}, at::kByte), at::empty({0, 0}, at::kByte), at::empty({0}, at::kFloat)};
  return {y, save_codes(image, config.bits), save_codes(wc, config.bits), save_scales(image, wc)};
}

Forward forward_meta(const Tensor& x, const Tensor& weight, const optional<Tensor>& bias, c10::SymIntArrayRef stride,
                     c10::SymIntArrayRef padding, c10::SymIntArrayRef dilation, at::IntArrayRef options, double,
                     optional<c10::SymInt> seed, bool save) {
  const auto sizes = check_forward(x, weight, bias, stride, padding, dilation, seed);
  const int64_t bits = HadamardConfig::decode(options).bits;
  const auto bytes = x.options().dtype(at::kByte);
  Tensor y = at::empty_symint(sizes, x.options().memory_format(x.suggest_memory_format()));
  if (!save) return {y, at::empty({0, 0}, bytes), at::empty({0, 0}, bytes), at::empty({0}, x.options())};
  const auto width = [&](const c10::SymInt& cols) { return bits <= 4 ? (cols + 1) / 2 : cols; };
  const c10::SymInt image = x.sym_size(1) * x.sym_size(2) * x.sym_size(3);
  const c10::SymInt depth = weight.sym_size(1) * weight.sym_size(2) * weight.sym_size(3);
  return {y, at::empty_symint({x.sym_size(0), width(image)}, bytes),
          at::empty_symint({weight.sym_size(0), width(depth)}, bytes), at::empty({4}, x.options())};
}

// What the backward of one group of samples needs.
struct BackwardTask {
  const Problem& p;
  const HadamardConfig& config;
  const float* grad;  // [N * L, O]
  optional<int64_t> seed;
};

// B1 for samples [first, first + count): taps are added exactly as int32, then scaled once.
void input_gradient(const BackwardTask& t, const InputGradWeight& weight, float weight_step, int64_t first,
                    int64_t count, float* dx) {
  const Problem& p = t.p;
  const int64_t row0 = first * p.positions, rows = count * p.positions;
  const int64_t pixels = p.shape.height * p.shape.width * p.shape.channels;
  Workspace scratch;
  const CodeMatrix g =
      quantize_input_gradient(scratch, t.config, t.grad + row0 * p.outputs, rows, p.outputs, t.seed, row0);
  auto* image = scratch.take<int32_t>(pixels);
  auto* taps = scratch.take<int32_t>(kStripRows * p.depth);
  for (int64_t sample = 0; sample < count; ++sample) {
    std::fill_n(image, pixels, 0);
    for (int64_t position = 0; position < p.positions; position += kStripRows) {
      const int64_t strip = std::min(kStripRows, p.positions - position);
      Left left = left_operand(g);
      left.data += (sample * p.positions + position) * g.ld;
      Out out;
      out.s32 = taps;
      out.ld = p.depth;
      multiply(weight.packed, left, strip, out);
      kernels::active().col2im_s32(taps, p.depth, p.shape, position, strip, image);
    }
    kernels::active().scale_s32f32(image, pixels, input_gradient_epilogue(t.config, g, weight, weight_step, p.outputs),
                                   dx + (first + sample) * pixels);
  }
}

Tensor input_gradients(const BackwardTask& t, const Tensor& weight_codes, const float* scales, const Tensor& grad,
                       at::IntArrayRef x_size) {
  const Problem& p = t.p;
  Tensor dx = at::empty(x_size, grad.options().memory_format(kChannelsLast));
  Workspace scratch;
  const CodeMatrix wc = load_codes(scratch, weight_codes, p.depth, t.config.bits, scales[2], scales[3]);
  const InputGradWeight weight = prepare_input_gradient(kOp, scratch, t.config, wc, t.seed);
  auto* out = dx.mutable_data_ptr<float>();
  if (!t.config.per_sample) {
    input_gradient(t, weight, wc.step, 0, p.samples, out);
  } else {
    at::parallel_for(0, p.samples, 1, [&](int64_t begin, int64_t end) {
      for (int64_t sample = begin; sample < end; ++sample) input_gradient(t, weight, wc.step, sample, 1, out);
    });
  }
  return dx;
}

// B2 for samples [first, first + count) as one set of rows.
void weight_gradient_of(const BackwardTask& t, const CodeMatrix& image, int64_t first, int64_t count, float* dw) {
  const Problem& p = t.p;
  Workspace scratch;
  const CodeMatrix x = unfold(scratch, p, image, first * p.positions, count * p.positions);
  const int64_t group = count == 0 ? 0 : first / count;
  weight_gradient(kOp, t.config, x, t.grad + first * p.positions * p.outputs, p.outputs, t.seed,
                  group * t.config.blocks.padded(x.rows), dw);
}

// Samples ascending in blocks of 8, then blocks ascending: the same bits for any number of threads (N8).
void weight_gradients(const BackwardTask& t, const Tensor& x_codes, const float* scales, float* dw) {
  const Problem& p = t.p;
  const int64_t size = p.outputs * p.depth;
  Workspace scratch;
  const CodeMatrix image = load_codes(scratch, x_codes, p.shape.height * p.shape.width * p.shape.channels,
                                      t.config.bits, scales[0], scales[1]);
  if (!t.config.per_sample) return weight_gradient_of(t, image, 0, p.samples, dw);
  const int64_t blocks = (p.samples + kSamplesPerSum - 1) / kSamplesPerSum;
  auto* sums = scratch.take<float>(blocks * size);
  at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    Workspace own;
    auto* parts = own.take<float>(kSamplesPerSum * size);
    for (int64_t b = begin; b < end; ++b) {
      const int64_t first = b * kSamplesPerSum, count = std::min(kSamplesPerSum, p.samples - first);
      for (int64_t i = 0; i < count; ++i) weight_gradient_of(t, image, first + i, 1, parts + i * size);
      kernels::active().sum_rows_f32(parts, count, size, size, sums + b * size);
    }
  });
  kernels::active().sum_rows_f32(sums, blocks, size, size, dw);
}

using Backward = std::tuple<Tensor, Tensor, Tensor>;

Backward backward_cpu(const Tensor& grad, const Tensor& x_codes, const Tensor& weight_codes, const Tensor& scales,
                      at::IntArrayRef x_size, at::IntArrayRef w_size, at::IntArrayRef stride, at::IntArrayRef padding,
                      at::IntArrayRef dilation, at::IntArrayRef options, optional<int64_t> seed,
                      std::array<bool, 3> needed) {
  check_dtype(kOp, "grad", grad, at::kFloat);
  check_finite(kOp, "grad", grad);
  const HadamardConfig config = HadamardConfig::decode(options);
  const Problem p = make_problem(x_size, w_size, stride, padding, dilation, config.channels_last_taps);
  const Tensor g = grad.contiguous(kChannelsLast);
  const BackwardTask task{p, config, g.const_data_ptr<float>(), seed};
  const auto* s = scales.const_data_ptr<float>();
  Tensor dx = needed[0] ? input_gradients(task, weight_codes, s, grad, x_size) : at::empty({0}, grad.options());
  Tensor dw = at::empty({0}, grad.options());
  if (needed[1]) {
    Tensor matrix = at::empty({p.outputs, p.depth}, grad.options());
    weight_gradients(task, x_codes, s, matrix.mutable_data_ptr<float>());
    dw = weight_image(matrix, w_size, config.channels_last_taps);
  }
  Tensor db = at::empty({needed[2] ? p.outputs : 0}, grad.options());
  if (needed[2]) bias_gradient(task.grad, p.samples * p.positions, p.outputs, db.mutable_data_ptr<float>());
  return {dx, dw, db};
}

Backward backward_meta(const Tensor& grad, const Tensor&, const Tensor&, const Tensor&, c10::SymIntArrayRef x_size,
                       c10::SymIntArrayRef w_size, c10::SymIntArrayRef, c10::SymIntArrayRef, c10::SymIntArrayRef,
                       at::IntArrayRef, optional<c10::SymInt>, std::array<bool, 3> needed) {
  const auto none = at::empty({0}, grad.options());
  return {needed[0] ? at::empty_symint(x_size, grad.options().memory_format(kChannelsLast)) : none,
          needed[1] ? at::empty_symint(w_size, grad.options()) : none.clone(),
          needed[2] ? at::empty_symint({w_size[0]}, grad.options()) : none.clone()};
}

// The public op is composite: it parses and casts, and tells whether a backward can follow; the casts carry gradients.
Tensor hadamard_conv2d(const Tensor& x, const Tensor& weight, const optional<Tensor>& bias, c10::SymIntArrayRef stride,
                       c10::SymIntArrayRef padding, c10::SymIntArrayRef dilation, int64_t bits,
                       int64_t accumulator_bits, int64_t tile_size, optional<int64_t> backward_accumulator_bits,
                       int64_t backward_tile_size, c10::string_view accumulate, c10::string_view overflow,
                       c10::string_view hadamard, int64_t hadamard_block, bool requantize, c10::string_view dc_row,
                       c10::string_view ste, c10::string_view stochastic, double range_fraction,
                       optional<c10::SymInt> seed, c10::string_view conv_backward, c10::string_view tile_order) {
  const HadamardConfig config = parse(
      kOp, {bits, accumulator_bits, tile_size, backward_accumulator_bits, backward_tile_size, accumulate, overflow,
            hadamard, hadamard_block, requantize, dc_row, ste, stochastic, range_fraction, conv_backward, tile_order});
  const FloatOperands t = float_operands(kOp, x, weight, bias);
  static const auto forward = c10::Dispatcher::singleton()
                                  .findSchemaOrThrow("quintil::_hadamard_conv2d_forward", "")
                                  .typed<Forward(const Tensor&, const Tensor&, const optional<Tensor>&,
                                                 c10::SymIntArrayRef, c10::SymIntArrayRef, c10::SymIntArrayRef,
                                                 at::IntArrayRef, double, optional<c10::SymInt>, bool)>();
  const auto result = forward.call(t.x, t.weight, t.bias, stride, padding, dilation, config.encode(), range_fraction,
                                   seed, t.needs_gradient);
  return std::get<0>(result).to(x.scalar_type());
}

}  // namespace

TORCH_LIBRARY_IMPL(quintil, CPU, m) {
  m.impl("_hadamard_conv2d_forward", forward_cpu);
  m.impl("_hadamard_conv2d_backward", backward_cpu);
}

TORCH_LIBRARY_IMPL(quintil, Meta, m) {
  m.impl("_hadamard_conv2d_forward", forward_meta);
  m.impl("_hadamard_conv2d_backward", backward_meta);
}

TORCH_LIBRARY_IMPL(quintil, CompositeImplicitAutograd, m) {
  m.impl("hadamard_conv2d", hadamard_conv2d);
}

}  // namespace quintil::ops
