// _lstm_scan, _gru_scan: all time steps of one direction of a layer in evaluation, whose weight has one length an output [VECQ V10].
//
// Rows do not know of each other, so a few of them run through all steps at once, in one thread: what lies between product and
// state stays in cache, and threads meet once. Both bytes of their states are rows of one product; the weight is packed once.
// Sequences are sorted by length, longest first: step t has the first sizes[t] rows. A row that has ended keeps its state, and
// backwards it begins at its own end.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

#include "csrc/kernels/dispatch.h"
#include "csrc/ops/check.h"
#include "csrc/ops/int_products.h"
#include "csrc/ops/recurrent.h"

namespace quintil::ops {

namespace {

using at::Tensor;

constexpr int64_t kMostRows = 16;  // of a strip
constexpr int32_t kZero = 128;     // the byte of a half-integer's code 0

// What both ops are given, as the schemas spell it.
struct Layer {
  const char* op;
  int64_t gates;
  const Tensor& parts;    // [sum of sizes, gates * hidden]: the product of the input, with biases
  at::IntArrayRef sizes;  // rows of every step
  const Tensor& weight;   // int8 [gates * hidden, hidden], centred
  const Tensor& lengths;  // [gates * hidden], of `weight`
  const Tensor& step;     // of states
  bool odd;               // weight codes are odd integers; else q stands for q + 1/2

  void check(const Tensor& state) const {
    check_dtype(op, "parts", parts, at::kFloat);
    check_dtype(op, "state", state, at::kFloat);
    check_dtype(op, "weight", weight, at::kChar);
    check_dtype(op, "lengths", lengths, at::kFloat);
    check_dim(op, "state", state, 2);
    const c10::SymInt outputs = gates * state.sym_size(1);
    const auto expect = [&](const char* name, const Tensor& t, const std::vector<c10::SymInt>& size) {
      check_size(op, name, t, size, "state", state);
    };
    int64_t rows = 0, before = sizes.empty() ? 0 : sizes[0];
    for (const int64_t size : sizes) {
      TORCH_CHECK_VALUE(size >= 0 && size <= before, op, ": expected sizes >= 0 that do not grow, got ", sizes);
      before = size;
      rows += size;
    }
    TORCH_CHECK_VALUE(sizes.empty() || state.sym_size(0) == sizes[0], op,
                      ": expected state to have sizes[0] rows, got ", state.sym_size(0), " and ", sizes);
    expect("parts", parts, {rows, outputs});
    expect("weight", weight, {outputs, state.sym_size(1)});
    expect("lengths", lengths, {outputs});
  }
};

// The weight packed for both bytes of states, and what surrounds the product.
class StateProduct {
 public:
  StateProduct(const Layer& layer, Workspace& scratch)
      : weight_(layer.weight.contiguous()),
        n_(weight_.size(0)),
        k_(weight_.size(1)),
        ld_((k_ + kDepth - 1) / kDepth * kDepth),
        grid_(level_grid(layer.step.item<float>(), kStateBits)) {
    CentredCodes bytes;
    bytes.zero = kZero;
    bytes.max_code = 128;
    const std::optional<Tensor> none;
    product_ = int_product(layer.op, scratch, bytes, weight_, {layer.step, layer.lengths, none, 0, 0},
                           {none, false, none, 8}, at::MemoryFormat::Contiguous);
    if (!layer.odd) halves_ = layer.lengths * (0.25f * layer.step);
  }

  int64_t outputs() const { return n_; }

  // out [2, rows, outputs] for states h [rows, k]: of the lower bytes, then of the upper ones.
  void multiply(const float* h, int64_t rows, float* out) const {
    Workspace scratch;
    auto* codes = scratch.take<uint8_t>(2 * rows * ld_);
    for (int64_t r = 0; r < rows; ++r) {
      cut_states(h + r * k_, k_, grid_, kZero, codes + r * ld_, codes + (rows + r) * ld_);
    }
    auto* sums = scratch.take<int32_t>(2 * rows * n_);
    Out to;
    to.s32 = sums;
    to.ld = n_;
    ops::multiply(product_.packed, Left{codes, ld_, 1, kZero, 128, ld_ - k_, nullptr}, 2 * rows, to);
    kernels::active().scale_s32f32_columns(sums, 2 * rows, n_, n_, product_.epilogue, out, n_);
    if (!halves_.defined()) return;
    const auto* half = halves_.const_data_ptr<float>();
    for (int64_t r = 0; r < 2 * rows; ++r) {
      int32_t sum = 0;
      for (int64_t i = 0; i < k_; ++i) sum += codes[r * ld_ + i] - kZero;
      for (int64_t j = 0; j < n_; ++j) out[r * n_ + j] += static_cast<float>(2 * sum) * half[j];
    }
  }

 private:
  Tensor weight_, halves_;
  int64_t n_, k_, ld_;
  LevelGrid grid_;
  IntProduct product_;
};

// Runs state [sizes[0], hidden] in place through all steps and returns it after each: [sum of sizes, hidden].
// advance(products, part, first row, rows) makes the next states of some rows.
template <class Advance>
Tensor scan(const Layer& layer, bool backwards, const Tensor& state, Advance advance) {
  const int64_t rows = state.size(0), hidden = state.size(1), threads = at::get_num_threads();
  const auto steps = static_cast<int64_t>(layer.sizes.size());
  Tensor outputs = at::empty({layer.parts.size(0), hidden}, state.options());
  if (steps == 0 || hidden == 0) return outputs;
  std::vector<int64_t> offsets;
  int64_t total = 0;
  for (const int64_t size : layer.sizes) {
    offsets.push_back(total);
    total += size;
  }
  const Tensor parts = layer.parts.contiguous();
  Workspace shared;
  const StateProduct product(layer, shared);
  const int64_t width = product.outputs(), strip = std::clamp((rows + threads - 1) / threads, int64_t{1}, kMostRows);
  const auto* part = parts.const_data_ptr<float>();
  auto *h = state.mutable_data_ptr<float>(), *out = outputs.mutable_data_ptr<float>();
  at::parallel_for(0, (rows + strip - 1) / strip, 1, [&](int64_t begin, int64_t end) {
    Workspace scratch;
    auto* products = scratch.take<float>(2 * strip * width);
    for (int64_t first = begin * strip; first < std::min(rows, end * strip); first += strip) {
      for (int64_t i = 0; i < steps; ++i) {
        const auto t = static_cast<size_t>(backwards ? steps - 1 - i : i);
        const int64_t active = std::min(strip, layer.sizes[t] - first);
        if (active <= 0) continue;
        product.multiply(h + first * hidden, active, products);
        advance(products, part + (offsets[t] + first) * width, first, active);
        std::copy_n(h + first * hidden, active * hidden, out + (offsets[t] + first) * hidden);
      }
    }
  });
  return outputs;
}

void check_cell(const Tensor& cell, const Tensor& state) {
  check_dtype("_lstm_scan", "cell", cell, at::kFloat);
  check_size("_lstm_scan", "cell", cell, {state.sym_size(0), state.sym_size(1)}, "state", state);
}

using LstmResult = std::tuple<Tensor, Tensor, Tensor>;

LstmResult lstm_cpu(const Tensor& parts, at::IntArrayRef sizes, bool backwards, const Tensor& state, const Tensor& cell,
                    const Tensor& weight, const Tensor& lengths, const Tensor& step, bool odd) {
  const Layer layer{"_lstm_scan", 4, parts, sizes, weight, lengths, step, odd};
  layer.check(state);
  check_cell(cell, state);
  Tensor h = state.clone(at::MemoryFormat::Contiguous), c = cell.clone(at::MemoryFormat::Contiguous);
  const int64_t hidden = h.size(1);
  auto *states = h.mutable_data_ptr<float>(), *cells = c.mutable_data_ptr<float>();
  Tensor outputs =
      scan(layer, backwards, h, [&](const float* products, const float* part, int64_t first, int64_t rows) {
        kernels::active().lstm_cell_f32(products, products + rows * 4 * hidden, part, rows, hidden,
                                        cells + first * hidden, states + first * hidden);
      });
  return {outputs, h, c};
}

LstmResult lstm_meta(const Tensor& parts, at::IntArrayRef sizes, bool, const Tensor& state, const Tensor& cell,
                     const Tensor& weight, const Tensor& lengths, const Tensor& step, bool odd) {
  const Layer layer{"_lstm_scan", 4, parts, sizes, weight, lengths, step, odd};
  layer.check(state);
  check_cell(cell, state);
  return {at::empty_symint({parts.sym_size(0), state.sym_size(1)}, parts.options()),
          at::empty_symint(state.sym_sizes(), parts.options()), at::empty_symint(state.sym_sizes(), parts.options())};
}

void check_bias(const Tensor& bias, const Tensor& lengths) {
  check_dtype("_gru_scan", "bias", bias, at::kFloat);
  TORCH_CHECK_VALUE(bias.sym_sizes() == lengths.sym_sizes(), "_gru_scan: expected bias to have the size ",
                    lengths.sym_sizes(), ", got ", bias.sym_sizes());
}

std::tuple<Tensor, Tensor> gru_cpu(const Tensor& parts, at::IntArrayRef sizes, bool backwards, const Tensor& state,
                                   const Tensor& weight, const Tensor& lengths, const Tensor& bias, const Tensor& step,
                                   bool odd) {
  const Layer layer{"_gru_scan", 3, parts, sizes, weight, lengths, step, odd};
  layer.check(state);
  check_bias(bias, lengths);
  Tensor h = state.clone(at::MemoryFormat::Contiguous);
  const Tensor own = bias.contiguous();
  const int64_t hidden = h.size(1);
  auto* states = h.mutable_data_ptr<float>();
  Tensor outputs =
      scan(layer, backwards, h, [&](const float* products, const float* part, int64_t first, int64_t rows) {
        kernels::active().gru_cell_f32(products, products + rows * 3 * hidden, own.const_data_ptr<float>(), part, rows,
                                       hidden, states + first * hidden, states + first * hidden);
      });
  return {outputs, h};
}

std::tuple<Tensor, Tensor> gru_meta(const Tensor& parts, at::IntArrayRef sizes, bool, const Tensor& state,
                                    const Tensor& weight, const Tensor& lengths, const Tensor& bias, const Tensor& step,
                                    bool odd) {
  const Layer layer{"_gru_scan", 3, parts, sizes, weight, lengths, step, odd};
  layer.check(state);
  check_bias(bias, lengths);
  return {at::empty_symint({parts.sym_size(0), state.sym_size(1)}, parts.options()),
          at::empty_symint(state.sym_sizes(), parts.options())};
}

}  // namespace

TORCH_LIBRARY_IMPL(quintil, CPU, m) {
  m.impl("_lstm_scan", lstm_cpu);
  m.impl("_gru_scan", gru_cpu);
}

TORCH_LIBRARY_IMPL(quintil, Meta, m) {
  m.impl("_lstm_scan", lstm_meta);
  m.impl("_gru_scan", gru_meta);
}

// For evaluation: no gradient passes.
TORCH_LIBRARY_IMPL(quintil, Autograd, m) {
  m.impl("_lstm_scan", torch::CppFunction::makeFallthrough());
  m.impl("_gru_scan", torch::CppFunction::makeFallthrough());
}

}  // namespace quintil::ops
