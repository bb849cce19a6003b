#include "csrc/ops/code_matrix.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "csrc/kernels/dispatch.h"
#include "csrc/ops/workspace.h"
#include "csrc/quantizers/uniform.h"

namespace quintil::ops {

namespace {

void run_quantizer(const Quantizer& q, const float* x, int64_t rows, int64_t cols, int64_t ld, int64_t row0,
                   uint8_t* out, int64_t out_ld) {
  const auto& k = kernels::active();
  if (q.draw) return k.quantize_f32u8_stochastic(x, rows, cols, ld, q.grid, *q.draw, row0, out, out_ld);
  k.quantize_f32u8(x, rows, cols, ld, q.grid, out, out_ld);
}

void run_quantizer(const Quantizer& q, const int16_t* x, int64_t rows, int64_t cols, int64_t ld, int64_t row0,
                   uint8_t* out, int64_t out_ld) {
  const auto& k = kernels::active();
  if (q.draw) return k.quantize_s16u8_stochastic(x, rows, cols, ld, q.grid, *q.draw, row0, out, out_ld);
  k.quantize_s16u8(x, rows, cols, ld, q.grid, out, out_ld);
}

// Rows with a row of draws each, the first at row0.
template <class T>
void quantize_rows(const Quantizer& q, const T* x, int64_t rows, int64_t cols, int64_t ld, int64_t row0, uint8_t* out,
                   int64_t out_ld) {
  at::parallel_for(0, rows, rows_per_task(cols), [&](int64_t begin, int64_t end) {
    if (q.finite) {
      return run_quantizer(q, x + begin * ld, end - begin, cols, ld, row0 + begin, out + begin * out_ld, out_ld);
    }
    for (int64_t r = begin; r < end; ++r) std::memset(out + r * out_ld, q.grid.zero, static_cast<size_t>(cols));
  });
}

// Contiguous rows whose draws lie side by side: each run is one long row.
template <class T>
void quantize_runs(const Quantizer& q, const T* x, int64_t rows, int64_t cols, DrawRows place, uint8_t* out) {
  const int64_t whole = rows / place.run, width = place.run * cols, done = whole * width;
  quantize_rows(q, x, whole, width, width, place.first, out, width);
  const int64_t rest = rows * cols - done;
  quantize_rows(q, x + done, rest > 0 ? 1 : 0, rest, rest, place.first + whole, out + done, rest);
}

template <class T>
void quantize_any(const Quantizer& q, const T* x, int64_t rows, int64_t cols, int64_t ld, DrawRows place, uint8_t* out,
                  int64_t out_ld) {
  if (!q.draw || place.run == 1) return quantize_rows(q, x, rows, cols, ld, place.first, out, out_ld);
  if (out_ld == cols) return quantize_runs(q, x, rows, cols, place, out);
  Workspace scratch;
  auto* codes = scratch.take<uint8_t>(rows * cols);
  quantize_runs(q, x, rows, cols, place, codes);
  for (int64_t r = 0; r < rows; ++r) std::copy_n(codes + r * cols, cols, out + r * out_ld);
}

}  // namespace

std::optional<Draw> draw_for(std::optional<int64_t> seed, Site site, bool stochastic) {
  if (!stochastic || !seed) return std::nullopt;
  const auto key = static_cast<uint64_t>(*seed);
  return Draw{static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32), static_cast<uint32_t>(site),
              site == Site::kWeightGradInput ? 8 : 16};
}

AbsMax larger(AbsMax a, AbsMax b) {
  return {std::max(a.bits, b.bits), a.negative | b.negative};
}

AbsMax absmax(const float* x, int64_t n) {
  return parallel_range(n, 4 * kElementsPerTask, [&](int64_t begin, int64_t end) {
    return kernels::active().absmax_f32(x + begin, end - begin);
  });
}

Quantizer dynamic_quantizer(const AbsMax& range, float fraction, int64_t bits, bool is_signed, bool offset,
                            std::optional<Draw> draw) {
  Quantizer q;
  const int32_t top = largest_code(bits, is_signed);
  q.step = draw ? stochastic_step(range.bits, fraction, top) : dynamic_step(range.bits, fraction, top);
  q.grid = {q.step + kStepEpsilon, is_signed ? -top : 0, top, is_signed && offset ? int32_t{1} << (bits - 1) : 0};
  q.draw = draw;
  q.finite = !std::isnan(q.step);
  return q;
}

void quantize_matrix(const Quantizer& q, const float* x, int64_t rows, int64_t cols, int64_t ld, DrawRows place,
                     uint8_t* out, int64_t out_ld) {
  quantize_any(q, x, rows, cols, ld, place, out, out_ld);
}

void quantize_matrix(const Quantizer& q, const int16_t* x, int64_t rows, int64_t cols, int64_t ld, DrawRows place,
                     uint8_t* out, int64_t out_ld) {
  quantize_any(q, x, rows, cols, ld, place, out, out_ld);
}

}  // namespace quintil::ops
