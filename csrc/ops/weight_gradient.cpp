#include "csrc/ops/weight_gradient.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "csrc/kernels/dispatch.h"
#include "csrc/ops/hadamard_products.h"

namespace quintil::ops {

namespace {

constexpr int64_t kFirstRowBits = 8;  // of the codes of first rows [HDQT H23]

// Rows of a transformed operand: `blocks` blocks of `order` rows.
struct Layout {
  int64_t blocks, order, cols;

  int64_t rows() const { return blocks * order; }
  int64_t block_size() const { return order * cols; }
};

AbsMax range_of(const float* x, int64_t n) {
  return kernels::active().absmax_f32(x, n);
}
AbsMax range_of(const int16_t* x, int64_t n) {
  return {std::bit_cast<uint32_t>(static_cast<float>(kernels::active().absmax_s16(x, n))), 1};
}

// Of the first rows of blocks, and of all others.
struct Ranges {
  AbsMax first{0, 0}, rest{0, 0};
};

template <class T>
Ranges ranges_of(const T* x, const Layout& l) {
  const int64_t grain = std::max<int64_t>(1, 4 * kElementsPerTask / std::max<int64_t>(1, l.block_size()));
  return at::parallel_reduce(
      0, l.blocks, grain, Ranges{},
      [&](int64_t begin, int64_t end, Ranges most) {
        for (int64_t b = begin; b < end; ++b) {
          const T* block = x + b * l.block_size();
          most.first = larger(most.first, range_of(block, l.cols));
          most.rest = larger(most.rest, range_of(block + l.cols, (l.order - 1) * l.cols));
        }
        return most;
      },
      [](Ranges a, Ranges b) { return Ranges{larger(a.first, b.first), larger(a.rest, b.rest)}; });
}

// The operands of both products on one side, and their steps.
template <class Operand>
struct Sides {
  Operand rest, first;
  float rest_step = 1, first_step = 1;
};

template <class T>
Sides<Right> quantize_input(Workspace& scratch, const T* x, const Layout& l, int64_t bits, std::optional<Draw> draw,
                            DrawRows place) {
  const Ranges ranges = ranges_of(x, l);
  const Quantizer rest = dynamic_quantizer(ranges.rest, 1.0f, bits, true, false, draw);
  const Quantizer first = dynamic_quantizer(ranges.first, 1.0f, kFirstRowBits, true, false, std::nullopt);
  auto* codes = scratch.take<uint8_t>(l.rows() * l.cols);
  quantize_matrix(rest, x, l.rows(), l.cols, l.cols, place, codes, l.cols);
  auto* first_codes = scratch.take<uint8_t>(l.blocks * l.cols);
  quantize_matrix(first, x, l.blocks, l.cols, l.block_size(), {}, first_codes, l.cols);
  const auto right = [&](const uint8_t* data, const Quantizer& q) {
    return Right{reinterpret_cast<const int8_t*>(data), l.cols, 1, q.grid.hi, nullptr};
  };
  return {right(codes, rest), right(first_codes, first), rest.step, first.step};
}

// H x: exact integers where they are not quantised again, their step 1.
Sides<Right> input_sides(Workspace& scratch, const HadamardConfig& config, const CodeMatrix& x, const Layout& l,
                         std::optional<Draw> draw, DrawRows place) {
  const TransformedIntegers z = transform_integers(scratch, config.blocks, x, config.requantize);
  if (z.narrow != nullptr) return quantize_input(scratch, z.narrow, l, config.bits, draw, place);
  if (config.requantize) {
    auto* real = scratch.take<float>(l.rows() * l.cols);
    std::copy_n(z.wide, l.rows() * l.cols, real);
    return quantize_input(scratch, real, l, config.bits, draw, place);
  }
  return {{nullptr, l.cols, 1, z.bound, z.wide}, {nullptr, l.block_size(), 1, z.bound, z.wide}};
}

// H g. Codes of first rows are zeros among the others, so whatever stands in these rows of the input counts nothing.
Sides<Left> gradient_sides(Workspace& scratch, const HadamardConfig& config, const float* grad, int64_t rows,
                           const Layout& l, std::optional<int64_t> seed, DrawRows place) {
  const bool stochastic = config.rounds_stochastically(Site::kWeightGradGrad);
  const float* z = transform_rows_axis(scratch, config.blocks, grad, rows, l.cols).data;
  const Ranges ranges = ranges_of(z, l);
  const Quantizer rest =
      dynamic_quantizer(ranges.rest, 1.0f, config.bits, true, true, draw_for(seed, Site::kWeightGradGrad, stochastic));
  const Quantizer first =
      dynamic_quantizer(ranges.first, 1.0f, kFirstRowBits, true, true, draw_for(seed, Site::kWeightGradDc, stochastic));
  auto* codes = scratch.take<uint8_t>(l.rows() * l.cols);
  quantize_matrix(rest, z, l.rows(), l.cols, l.cols, place, codes, l.cols);
  auto* first_rows = scratch.take<float>(l.blocks * l.cols);  // runs of draws want rows side by side
  for (int64_t b = 0; b < l.blocks; ++b) {
    std::memset(codes + b * l.block_size(), rest.grid.zero, static_cast<size_t>(l.cols));
    std::copy_n(z + b * l.block_size(), l.cols, first_rows + b * l.cols);
  }
  auto* first_codes = scratch.take<uint8_t>(l.blocks * l.cols);
  quantize_matrix(first, first_rows, l.blocks, l.cols, l.cols, {place.first / l.order, place.run}, first_codes, l.cols);
  return {gradient_operand(config.bits, codes, l.cols), gradient_operand(kFirstRowBits, first_codes, l.cols), rest.step,
          first.step};
}

WeightGradProduct prepare_apart(const char* op, Workspace& scratch, const HadamardConfig& config, const CodeMatrix& x,
                                const float* grad, const Layout& input, int64_t n, std::optional<int64_t> seed,
                                DrawRows place) {
  const auto draw = draw_for(seed, Site::kWeightGradInput, config.rounds_stochastically(Site::kWeightGradInput));
  const Sides<Right> right = input_sides(scratch, config, x, input, draw, place);
  const Sides<Left> left = gradient_sides(scratch, config, grad, x.rows, {input.blocks, input.order, n}, seed, place);
  const auto product = [&](const Right& b, const Left& a, int64_t rows, const Accumulator& accumulator, float g_step,
                           float x_step) {
    return IntegerProduct{
        pack_right(op, scratch, b, a, rows, x.cols, accumulator), a, {{g_step, x_step, 1.0f}, 1.0f, nullptr}};
  };
  const Accumulator unlimited{.tile = 0, .bits = 32};
  return {product(right.rest, left.rest, input.rows(), config.weight_gradient, left.rest_step, right.rest_step),
          product(right.first, left.first, input.blocks, unlimited, left.first_step, right.first_step), x.step,
          config.blocks.inverse(x.rows)};
}

void multiply(const IntegerProduct& product, int64_t first, int64_t count, float* dw) {
  Left rows = product.left;
  rows.data += first * rows.m_stride;
  Out out;
  out.f32 = dw;
  out.ld = product.right.n;
  out.epilogue = product.epilogue;
  multiply(product.right, rows, count, out);
}

}  // namespace

WeightGradProduct prepare_weight_gradient(const char* op, Workspace& scratch, const HadamardConfig& config,
                                          const CodeMatrix& x, const float* grad, int64_t n,
                                          std::optional<int64_t> seed, DrawRows place) {
  const int64_t padded = config.blocks.padded(x.rows), order = config.blocks.order(x.rows);
  if (config.dc_row_apart && order > 1) {
    return prepare_apart(op, scratch, config, x, grad, {padded / order, order, x.cols}, n, seed, place);
  }
  const auto x_draw = draw_for(seed, Site::kWeightGradInput, config.rounds_stochastically(Site::kWeightGradInput));
  const auto g_draw = draw_for(seed, Site::kWeightGradGrad, config.rounds_stochastically(Site::kWeightGradGrad));
  const TransformedCodes xt = transform_codes(scratch, config.blocks, x, config.bits, config.requantize, x_draw, place);
  const TransformedFloats z = transform_rows_axis(scratch, config.blocks, grad, x.rows, n);
  const Quantizer q = dynamic_quantizer(z.range, 1.0f, config.bits, true, true, g_draw);
  auto* codes = scratch.take<uint8_t>(xt.rows * n);
  quantize_matrix(q, z.data, xt.rows, n, n, place, codes, n);
  const Left left = gradient_operand(config.bits, codes, n);
  const IntegerProduct product{pack_right(op, scratch, right_of(xt), left, xt.rows, xt.cols, config.weight_gradient),
                               left,
                               {{q.step, xt.step, x.step}, config.blocks.inverse(x.rows), nullptr}};
  return {product, std::nullopt};
}

void multiply(const WeightGradProduct& product, int64_t first, int64_t count, float* dw) {
  multiply(product.product, first, count, dw);
  if (!product.first_rows) return;
  Workspace scratch;
  const int64_t n = count * product.first_rows->right.n;
  auto* sums = scratch.take<float>(n);
  multiply(*product.first_rows, first, count, sums);
  at::parallel_for(0, n, 4 * kElementsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) dw[i] = (dw[i] + sums[i]) * product.step * product.inverse;
  });
}

void weight_gradient(const char* op, const HadamardConfig& config, const CodeMatrix& x, const float* grad, int64_t n,
                     std::optional<int64_t> seed, DrawRows place, float* dw) {
  Workspace scratch;
  multiply(prepare_weight_gradient(op, scratch, config, x, grad, n, seed, place), 0, n, dw);
}

}  // namespace quintil::ops
