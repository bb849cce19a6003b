// The three products of an HDQT convolution [HDQT H12]. The image is quantised once in channels-last order; the unfolded operand
// exists as bytes only, a strip of output positions at a time. The backward works sample by sample (or on the whole batch):
// B1 and B2 of a sample follow each other, while its gradient is in cache. Weight gradients are added in the fixed order of N8.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <utility>

#include "csrc/ops/conv_problem.h"
#include "csrc/ops/hadamard_products.h"

namespace quintil::ops {

constexpr int64_t kStripRows = 96;  // output positions unfolded at a time
constexpr auto kChannelsLast = at::MemoryFormat::ChannelsLast;

// Codes of the batch [N, H * W * C] and of the weight [O, K], and the weight packed.
struct ConvOperands {
  ConvProblem p;
  CodeMatrix image, weight;
  PackedRight right;
};
ConvOperands quantize_conv(const char* op, Workspace& scratch, const at::Tensor& x, const at::Tensor& weight,
                           const ConvProblem& p, const HadamardConfig& config, double range_fraction,
                           std::optional<int64_t> seed);

// What a forward saves, of the right sizes: codes of x and of the weight, scales.
std::array<at::Tensor, 3> saved_like(const at::Tensor& x, const at::Tensor& weight, int64_t bits);

// Rows [first, first + count) of the product [N * L, O].
void multiply_strip(const ConvOperands& c, int64_t first, int64_t count, const Out& out);

// Calls f(first, count) for all strips of output positions, in parallel.
template <class F>
void for_each_strip(const ConvProblem& p, F f) {
  const int64_t rows = p.samples * p.positions;
  at::parallel_for(0, (rows + kStripRows - 1) / kStripRows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) f(s * kStripRows, std::min(kStripRows, rows - s * kStripRows));
  });
}

// The gradient of the output of samples [first, first + count): float32 [count * L, O], wherever it stands, or made in `room`,
// which is as large. Threads ask for different samples at the same time, maybe twice for one.
using OutputGradient = std::function<const float*(int64_t first, int64_t count, float* room)>;

struct BackwardTask {
  const ConvProblem& p;
  const HadamardConfig& config;
  const OutputGradient& grad;
  std::optional<int64_t> seed;
};

// dx in channels-last format and dw, each an empty tensor where not needed.
std::pair<at::Tensor, at::Tensor> conv_gradients(const char* op, const BackwardTask& t, const at::Tensor& x_codes,
                                                 const at::Tensor& weight_codes, const at::Tensor& scales,
                                                 at::IntArrayRef x_size, at::IntArrayRef w_size,
                                                 std::array<bool, 2> needed);

}  // namespace quintil::ops
