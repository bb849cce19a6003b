// Time steps of VecQ's recurrent layers in evaluation, around the product with the state [VECQ V10]: _state_codes makes both
// bytes of its 16-bit levels, two operands of one product; _lstm_cell and _gru_cell make the next state of the two products.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>

#include "csrc/kernels/dispatch.h"
#include "csrc/ops/check.h"
#include "csrc/ops/recurrent.h"

namespace quintil::ops {

namespace {

using at::Tensor;
using Pair = std::tuple<Tensor, Tensor>;

constexpr int64_t kNumbersPerTask = 1 << 12;  // about 10 us of a cell
constexpr int64_t kCodesPerTask = 1 << 15;

void check_state_codes(const Tensor& h, const Tensor& step) {
  check_dtype("_state_codes", "h", h, at::kFloat);
  check_dtype("_state_codes", "step", step, at::kFloat);
  check_dim("_state_codes", "step", step, 0);
}

// [2, ...]: the lower and the upper bytes, signed.
Tensor state_codes_cpu(const Tensor& h, const Tensor& step) {
  check_state_codes(h, step);
  const Tensor numbers = h.contiguous();
  std::vector<int64_t> sizes = h.sizes().vec();
  sizes.insert(sizes.begin(), 2);
  Tensor codes = at::empty(sizes, h.options().dtype(at::kChar));
  const LevelGrid grid = level_grid(step.item<float>(), kStateBits);
  const auto* x = numbers.const_data_ptr<float>();
  auto *low = static_cast<uint8_t*>(codes.mutable_data_ptr()), *high = low + h.numel();
  at::parallel_for(0, h.numel(), kCodesPerTask, [&](int64_t begin, int64_t end) {
    cut_states(x + begin, end - begin, grid, 0, low + begin, high + begin);
  });
  return codes;
}

Tensor state_codes_meta(const Tensor& h, const Tensor& step) {
  check_state_codes(h, step);
  std::vector<c10::SymInt> sizes = h.sym_sizes().vec();
  sizes.insert(sizes.begin(), 2);
  return at::empty_symint(sizes, h.options().dtype(at::kChar));
}

// products [2, rows, gates * hidden], part [rows, gates * hidden], state [rows, hidden].
void check_cell(const char* op, int64_t gates, const Tensor& products, const Tensor& part, const char* name,
                const Tensor& state) {
  check_dtype(op, "products", products, at::kFloat);
  check_dtype(op, "part", part, at::kFloat);
  check_dtype(op, name, state, at::kFloat);
  check_dim(op, name, state, 2);
  const c10::SymInt rows = state.sym_size(0), width = gates * state.sym_size(1);
  check_size(op, "part", part, {rows, width}, name, state);
  check_size(op, "products", products, {2, rows, width}, name, state);
}

int64_t rows_per_task(const Tensor& state) {
  return std::max<int64_t>(1, kNumbersPerTask / std::max<int64_t>(1, state.size(1)));
}

Pair lstm_cell_cpu(const Tensor& products, const Tensor& part, const Tensor& cell) {
  check_cell("_lstm_cell", 4, products, part, "cell", cell);
  const Tensor both = products.contiguous(), own = part.contiguous();
  Tensor next = cell.clone(at::MemoryFormat::Contiguous), state = at::empty(cell.sizes(), cell.options());
  const int64_t rows = cell.size(0), hidden = cell.size(1), size = 4 * hidden;
  const auto *low = both.const_data_ptr<float>(), *high = low + rows * size, *of_input = own.const_data_ptr<float>();
  auto *cells = next.mutable_data_ptr<float>(), *states = state.mutable_data_ptr<float>();
  at::parallel_for(0, rows, rows_per_task(cell), [&](int64_t begin, int64_t end) {
    kernels::active().lstm_cell_f32(low + begin * size, high + begin * size, of_input + begin * size, end - begin,
                                    hidden, cells + begin * hidden, states + begin * hidden);
  });
  return {state, next};
}

Pair lstm_cell_meta(const Tensor& products, const Tensor& part, const Tensor& cell) {
  check_cell("_lstm_cell", 4, products, part, "cell", cell);
  const Tensor state = at::empty_symint(cell.sym_sizes(), cell.options());
  return {state, at::empty_like(state)};
}

void check_gru(const Tensor& products, const Tensor& bias, const Tensor& part, const Tensor& state) {
  check_cell("_gru_cell", 3, products, part, "state", state);
  check_dtype("_gru_cell", "bias", bias, at::kFloat);
  TORCH_CHECK_VALUE(bias.dim() == 1 && bias.sym_size(0) == part.sym_size(1),
                    "_gru_cell: expected bias to have the size [", part.sym_size(1), "], got ", bias.sym_sizes());
}

Tensor gru_cell_cpu(const Tensor& products, const Tensor& bias, const Tensor& part, const Tensor& state) {
  check_gru(products, bias, part, state);
  const Tensor both = products.contiguous(), own = part.contiguous(), before = state.contiguous();
  const Tensor added = bias.contiguous();
  Tensor next = at::empty(state.sizes(), state.options());
  const int64_t rows = state.size(0), hidden = state.size(1), size = 3 * hidden;
  const auto *low = both.const_data_ptr<float>(), *high = low + rows * size, *of_input = own.const_data_ptr<float>();
  const auto* states = before.const_data_ptr<float>();
  auto* out = next.mutable_data_ptr<float>();
  at::parallel_for(0, rows, rows_per_task(state), [&](int64_t begin, int64_t end) {
    kernels::active().gru_cell_f32(low + begin * size, high + begin * size, added.const_data_ptr<float>(),
                                   of_input + begin * size, end - begin, hidden, states + begin * hidden,
                                   out + begin * hidden);
  });
  return next;
}

Tensor gru_cell_meta(const Tensor& products, const Tensor& bias, const Tensor& part, const Tensor& state) {
  check_gru(products, bias, part, state);
  return at::empty_symint(state.sym_sizes(), state.options());
}

}  // namespace

TORCH_LIBRARY_IMPL(quintil, CPU, m) {
  m.impl("_state_codes", state_codes_cpu);
  m.impl("_lstm_cell", lstm_cell_cpu);
  m.impl("_gru_cell", gru_cell_cpu);
}

TORCH_LIBRARY_IMPL(quintil, Meta, m) {
  m.impl("_state_codes", state_codes_meta);
  m.impl("_lstm_cell", lstm_cell_meta);
  m.impl("_gru_cell", gru_cell_meta);
}

// For evaluation: no gradient passes.
TORCH_LIBRARY_IMPL(quintil, Autograd, m) {
  m.impl("_state_codes", torch::CppFunction::makeFallthrough());
  m.impl("_lstm_cell", torch::CppFunction::makeFallthrough());
  m.impl("_gru_cell", torch::CppFunction::makeFallthrough());
}

}  // namespace quintil::ops
