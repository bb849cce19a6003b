#include "csrc/ops/conv_products.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <vector>

#include "csrc/kernels/dispatch.h"
#include "csrc/ops/check.h"
#include "csrc/ops/weight_gradient.h"

namespace quintil::ops {

namespace {

using at::Tensor;
using std::optional;

constexpr int64_t kSamplesPerSum = 8;                 // samples of one partial weight gradient (N8)
constexpr int64_t kDrawRun = 16;                      // output positions whose draws lie side by side (N6)
constexpr int64_t kLargeGradient = int64_t{1} << 17;  // numbers of a weight gradient that do not stay in cache
constexpr int64_t kPieceRows = 16;                    // outputs of a piece of it
constexpr int64_t kFewProducts = 64;                  // positions: as many products has a number of one sample

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
    quantize_matrix(q, data, pixels, channels, channels, {}, image.data, channels);
  } else {
    quantize_matrix(q, data, image.rows, image.cols, image.cols, {}, image.data, image.cols);
  }
  return image;
}

// B1 of a backward: its weight, prepared once, and where dx goes.
struct InputPass {
  InputGradWeight weight;
  float weight_step;
  float* dx;  // [N, H, W, C]
};

// B1 for samples [first, first + count): taps are added exactly as int32, then scaled once.
void input_gradient(const BackwardTask& t, const InputPass& pass, const float* grad, int64_t first, int64_t count) {
  const ConvProblem& p = t.p;
  const int64_t pixels = p.shape.height * p.shape.width * p.shape.channels;
  Workspace scratch;
  const CodeMatrix g = quantize_input_gradient(scratch, t.config, grad, count * p.positions, p.outputs, t.seed,
                                               {first * p.positions, kDrawRun});
  const Epilogue epilogue = input_gradient_epilogue(t.config, g, pass.weight, pass.weight_step, p.outputs);
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
      multiply(pass.weight.packed, left, strip, out);
      kernels::active().col2im_s32(taps, p.depth, p.shape, position, strip, image);
    }
    kernels::active().scale_s32f32(image, pixels, epilogue, pass.dx + (first + sample) * pixels);
  }
}

int64_t gradient_size(const ConvProblem& p, int64_t samples) {
  return samples * p.positions * p.outputs;
}

// B1 alone.
void input_gradients(const BackwardTask& t, const InputPass& pass) {
  const auto samples = [&](int64_t first, int64_t count) {
    Workspace scratch;
    auto* room = scratch.take<float>(gradient_size(t.p, count));
    input_gradient(t, pass, t.grad(first, count, room), first, count);
  };
  if (!t.config.per_sample) return samples(0, t.p.samples);
  at::parallel_for(0, t.p.samples, 1, [&](int64_t begin, int64_t end) {
    for (int64_t sample = begin; sample < end; ++sample) samples(sample, 1);
  });
}

// B2 of a backward, and B1 on the way where there is `input`.
struct WeightPass {
  const char* op;
  const BackwardTask& t;
  const CodeMatrix& image;
  const InputPass* input;

  // Samples [first, first + count) as one set of rows; `room` holds their gradient.
  WeightGradProduct prepare(Workspace& scratch, float* room, int64_t first, int64_t count) const {
    const ConvProblem& p = t.p;
    const float* grad = t.grad(first, count, room);
    if (input != nullptr) input_gradient(t, *input, grad, first, count);
    const CodeMatrix x = unfold(scratch, p, image, first * p.positions, count * p.positions);
    const int64_t group = count == 0 ? 0 : first / count;
    return prepare_weight_gradient(op, scratch, t.config, x, grad, p.outputs, t.seed,
                                   {group * t.config.blocks.padded(x.rows), kDrawRun});
  }
};

// Whether a kernel can add the products of samples as it makes them; it pays off where a number has few products.
bool adds_products(const BackwardTask& t) {
  const HadamardConfig& config = t.config;
  return t.p.positions <= kFewProducts && config.requantize && !config.dc_row_apart &&
         !config.weight_gradient.every_mac;
}

// sum [outputs, depth] = the gradients of samples [first, first + count), added one after the other.
// A gradient that is large beside its operands is made in pieces for all samples, so that the sums of a piece stay in L2.
void sum_samples(const WeightPass& pass, int64_t first, int64_t count, float* sum) {
  const ConvProblem& p = pass.t.p;
  const int64_t outputs = p.outputs, depth = p.depth;
  const bool large = outputs * depth > kLargeGradient;
  const int64_t together = large ? count : 1, rows = large ? kPieceRows : outputs;
  std::fill_n(sum, outputs * depth, 0.0f);
  for (int64_t sample = 0; sample < count; sample += together) {
    Workspace scratch;
    auto* room = scratch.take<float>(gradient_size(p, 1));
    auto* piece = scratch.take<float>(rows * depth);
    std::vector<WeightGradProduct> products;
    for (int64_t i = 0; i < together; ++i) products.push_back(pass.prepare(scratch, room, first + sample + i, 1));
    for (int64_t row = 0; row < outputs; row += rows) {
      const int64_t height = std::min(rows, outputs - row);
      float* to = sum + row * depth;
      for (const WeightGradProduct& product : products) {
        multiply(product, row, height, piece);
        for (int64_t i = 0; i < height * depth; ++i) to[i] += piece[i];
      }
    }
  }
}

int64_t sum_blocks(const ConvProblem& p) {
  return (p.samples + kSamplesPerSum - 1) / kSamplesPerSum;
}

void sum_kept_products(const WeightPass& pass, float* dw) {
  const ConvProblem& p = pass.t.p;
  std::vector<KeptProduct> products(static_cast<size_t>(p.samples));
  at::parallel_for(0, p.samples, 1, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) {
      Workspace scratch;
      auto* room = scratch.take<float>(gradient_size(p, 1));
      products[static_cast<size_t>(s)] = keep(pass.prepare(scratch, room, s, 1).product, p.outputs);
    }
  });
  multiply_sum(products, kSamplesPerSum, p.outputs, p.depth, dw);
}

// Samples ascending in blocks of 8, then blocks ascending: the same bits for any number of threads (N8).
void weight_gradients(const WeightPass& pass, float* dw) {
  const ConvProblem& p = pass.t.p;
  Workspace scratch;
  if (!pass.t.config.per_sample) {
    auto* room = scratch.take<float>(gradient_size(p, p.samples));
    return multiply(pass.prepare(scratch, room, 0, p.samples), 0, p.outputs, dw);
  }
  if (adds_products(pass.t)) return sum_kept_products(pass, dw);
  const int64_t blocks = sum_blocks(p), size = p.outputs * p.depth;
  auto* sums = scratch.take<float>(blocks * size);
  at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const int64_t first = b * kSamplesPerSum;
      sum_samples(pass, first, std::min(kSamplesPerSum, p.samples - first), sums + b * size);
    }
  });
  kernels::active().sum_rows_f32(sums, blocks, size, size, dw);
}

// Whether B2's loop keeps all threads busy, so that B1 goes along with it.
bool one_pass(const BackwardTask& t) {
  return !t.config.per_sample || adds_products(t) || sum_blocks(t.p) >= at::get_num_threads();
}

}  // namespace

ConvOperands quantize_conv(const char* op, Workspace& scratch, const Tensor& x, const Tensor& weight,
                           const ConvProblem& p, const HadamardConfig& config, double range_fraction,
                           optional<int64_t> seed) {
  check_finite(op, "x", x);
  check_finite(op, "weight", weight);
  const Tensor pixels = x.contiguous(kChannelsLast), matrix = weight_matrix(weight, config.channels_last_taps);
  const auto fraction = static_cast<float>(range_fraction);
  const auto site = [&](Site s) { return draw_for(seed, s, config.rounds_stochastically(s)); };
  const CodeMatrix image = quantize_image(scratch, pixels, config, fraction, site(Site::kForwardInput));
  const CodeMatrix codes = quantize_operand(scratch, matrix.const_data_ptr<float>(), p.outputs, p.depth, config,
                                            fraction, site(Site::kForwardWeight));
  return {p, image, codes, pack_weight(op, scratch, codes, left_operand(image), config.forward)};
}

std::array<Tensor, 3> saved_like(const Tensor& x, const Tensor& weight, int64_t bits) {
  const auto bytes = x.options().dtype(at::kByte);
  const auto width = [&](const c10::SymInt& codes) { return bits <= 4 ? (codes + 1) / 2 : codes; };
  const c10::SymInt image = x.sym_size(1) * x.sym_size(2) * x.sym_size(3);
  const c10::SymInt depth = weight.sym_size(1) * weight.sym_size(2) * weight.sym_size(3);
  return {at::empty_symint({x.sym_size(0), width(image)}, bytes),
          at::empty_symint({weight.sym_size(0), width(depth)}, bytes), at::empty({4}, x.options())};
}

void multiply_strip(const ConvOperands& c, int64_t first, int64_t count, const Out& out) {
  Workspace scratch;
  multiply(c.right, left_operand(unfold(scratch, c.p, c.image, first, count)), count, out);
}

std::pair<Tensor, Tensor> conv_gradients(const char* op, const BackwardTask& t, const Tensor& x_codes,
                                         const Tensor& weight_codes, const Tensor& scales, at::IntArrayRef x_size,
                                         at::IntArrayRef w_size, std::array<bool, 2> needed) {
  const ConvProblem& p = t.p;
  const int64_t bits = t.config.bits;
  const auto* s = scales.const_data_ptr<float>();
  Workspace scratch;
  Tensor dx = at::empty({0}, at::kFloat), dw = at::empty({0}, at::kFloat);
  std::optional<InputPass> input;
  if (needed[0]) {
    dx = at::empty(x_size, at::TensorOptions(at::kFloat).memory_format(kChannelsLast));
    const CodeMatrix weight = load_codes(scratch, weight_codes, p.depth, bits, s[2], s[3]);
    input = {prepare_input_gradient(op, scratch, t.config, weight, t.seed), weight.step, dx.mutable_data_ptr<float>()};
  }
  const bool together = needed[1] && one_pass(t);
  if (input && !together) input_gradients(t, *input);
  if (needed[1]) {
    const int64_t pixels = p.shape.height * p.shape.width * p.shape.channels;
    const CodeMatrix image = load_codes(scratch, x_codes, pixels, bits, s[0], s[1]);
    Tensor matrix = at::empty({p.outputs, p.depth}, at::kFloat);
    weight_gradients({op, t, image, input && together ? &*input : nullptr}, matrix.mutable_data_ptr<float>());
    dw = weight_image(matrix, w_size, t.config.channels_last_taps);
  }
  return {dx, dw};
}

}  // namespace quintil::ops
