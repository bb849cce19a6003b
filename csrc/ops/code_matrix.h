// From real numbers to bytes of codes, with threads.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdint>
#include <optional>

#include "csrc/core/types.h"

namespace quintil::ops {

constexpr int64_t kElementsPerTask = 1 << 15;  // about 10 us of quantising

inline int64_t rows_per_task(int64_t cols) {
  return std::max<int64_t>(1, kElementsPerTask / std::max<int64_t>(1, cols));
}

// A matrix of codes in bytes: code(r, c) = data[r * ld + c] - zero, |code| <= max_code.
struct CodeMatrix {
  uint8_t* data = nullptr;
  int64_t rows = 0, cols = 0, ld = 0;
  int32_t zero = 0;
  int32_t max_code = 0;
  float step = 0;
};

// How a matrix is turned into codes: the step, the grid, and the draw where rounding is stochastic.
struct Quantizer {
  float step = 0;
  CodeGrid grid{};
  std::optional<Draw> draw;
  bool finite = true;  // false: codes 0, step NaN (N10)
};

std::optional<Draw> draw_for(std::optional<int64_t> seed, Site site, bool stochastic);

AbsMax absmax(const float* x, int64_t n);
AbsMax larger(AbsMax a, AbsMax b);

// The range of everything that measure(begin, end) covers, over ranges of `count` things.
template <class F>
AbsMax parallel_range(int64_t count, int64_t grain, F measure) {
  return at::parallel_reduce(
      0, count, std::max<int64_t>(1, grain), AbsMax{0, 0},
      [&](int64_t begin, int64_t end, AbsMax most) { return larger(most, measure(begin, end)); }, larger);
}

// Range fraction * max|x|; unsigned codes 0..2^b-1 if `is_signed` is false [HDQT H1, H7, H8].
// Bytes hold code + 2^(b-1) where `offset`, else two's complement.
Quantizer dynamic_quantizer(const AbsMax& range, float fraction, int64_t bits, bool is_signed, bool offset,
                            std::optional<Draw> draw);

// Where the draws of a matrix [rows, cols] stand in their stream: element (r, c) draws at row first + r / run, column
// r % run * cols + c. One Philox call serves 128 or 256 columns, so narrow matrices put several rows side by side (N6).
struct DrawRows {
  int64_t first = 0;
  int64_t run = 1;
};

// Element (r, c) is quantised to out[r * out_ld + c].
void quantize_matrix(const Quantizer& q, const float* x, int64_t rows, int64_t cols, int64_t ld, DrawRows place,
                     uint8_t* out, int64_t out_ld);
void quantize_matrix(const Quantizer& q, const int16_t* x, int64_t rows, int64_t cols, int64_t ld, DrawRows place,
                     uint8_t* out, int64_t out_ld);

}  // namespace quintil::ops
