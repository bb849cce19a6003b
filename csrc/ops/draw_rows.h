// A contiguous tensor as the matrix that draws are placed in: columns are the last index, rows all others (N6).
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>

namespace quintil::ops {

// Calls f(first row, rows, columns) for runs of rows, in parallel.
template <class F>
void for_rows(int64_t rows, int64_t cols, F f) {
  constexpr int64_t kElementsPerTask = 1 << 15;
  const int64_t grain = std::max<int64_t>(1, kElementsPerTask / std::max<int64_t>(1, cols));
  at::parallel_for(0, rows, grain, [&](int64_t begin, int64_t end) { f(begin, end - begin, cols); });
}

template <class F>
void for_rows(const at::Tensor& x, F f) {
  const int64_t cols = x.dim() == 0 ? 1 : x.size(-1);
  for_rows(cols == 0 ? 0 : x.numel() / cols, cols, f);
}

}  // namespace quintil::ops
