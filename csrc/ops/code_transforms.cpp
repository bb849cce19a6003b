#include "csrc/ops/code_transforms.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "csrc/kernels/dispatch.h"

namespace quintil::ops {

namespace {

constexpr int64_t kElementsInCache = 4096;  // floats that stay in L1 from pass to pass
constexpr int64_t kStrip = 128;             // columns of one strip of a column transform: it stays in L2 (P3)

void transform_cols(int16_t* x, int64_t order, int64_t cols, int64_t ld) {
  kernels::active().fwht_s16_cols(x, order, cols, ld);
}
void transform_cols(int32_t* x, int64_t order, int64_t cols, int64_t ld) {
  kernels::active().fwht_s32_cols(x, order, cols, ld);
}

// In-place block transform down the rows of [rows, cols].
template <class T>
void block_transform(const Blocks& blocks, T* x, int64_t rows, int64_t cols) {
  if (largest_order(blocks.mode, rows, blocks.block) == 1) return;
  const int64_t strips = (cols + kStrip - 1) / kStrip;
  const int64_t grain = std::max<int64_t>(1, kElementsPerTask / std::max<int64_t>(1, rows * kStrip));
  at::parallel_for(0, strips, grain, [&](int64_t begin, int64_t end) {
    for_each_block(blocks.mode, rows, blocks.block, [&](int64_t first, int64_t order) {
      for (int64_t s = begin; s < end; ++s) {
        transform_cols(x + first * cols + s * kStrip, order, std::min(kStrip, cols - s * kStrip), cols);
      }
    });
  });
}

// Unequal blocks: 1/sqrt(p) each, so that small blocks use the code range too [HDQT 2.3].
void scale_block(float* x, int64_t rows, int64_t cols, int64_t ld, int64_t order) {
  const float scale = 1.0f / std::sqrt(static_cast<float>(order));
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) x[r * ld + c] *= scale;
  }
}

void scale_binary_rows(const Blocks& blocks, float* x, int64_t rows, int64_t cols) {
  if (blocks.mode != BlockMode::kBinary) return;
  for_each_block(blocks.mode, rows, blocks.block,
                 [&](int64_t first, int64_t order) { scale_block(x + first * cols, order, cols, cols, order); });
}

// Of `rows` x `cols` numbers, rows ld apart.
AbsMax absmax_of(const float* x, int64_t rows, int64_t cols, int64_t ld) {
  if (cols == ld) return kernels::active().absmax_f32(x, rows * cols);
  AbsMax most{0, 0};
  for (int64_t r = 0; r < rows; ++r) most = larger(most, kernels::active().absmax_f32(x + r * ld, cols));
  return most;
}

// Calls f(first, count, true) for each block along the rows; where the transform is the identity, f(first, count, false) for
// pieces that stay in cache.
template <class F>
void for_each_piece(const Blocks& blocks, int64_t rows, F f) {
  if (largest_order(blocks.mode, rows, blocks.block) > 1) {
    return for_each_block(blocks.mode, rows, blocks.block,
                          [&](int64_t first, int64_t order) { f(first, order, order > 1); });
  }
  for (int64_t first = 0; first < rows; first += kStrip) f(first, std::min(kStrip, rows - first), false);
}

// Row r of [rows, cols], zeros below the last one, columns [column, column + width).
void copy_row(const float* x, int64_t r, int64_t rows, int64_t cols, int64_t column, int64_t width, float* out) {
  float* to = out + r * cols + column;
  if (r < rows) {
    std::copy_n(x + r * cols + column, width, to);
  } else {
    std::fill_n(to, width, 0.0f);
  }
}

// row[c] = code c of row r; zeros below the last row.
template <class T>
void widen_row(const CodeMatrix& x, int64_t r, T* row) {
  if (r >= x.rows) {
    std::fill_n(row, x.cols, T{0});
  } else if constexpr (std::is_same_v<T, int16_t>) {
    kernels::active().widen_u8s16(x.data + r * x.ld, x.cols, x.zero, row);
  } else {
    for (int64_t c = 0; c < x.cols; ++c) row[c] = x.data[r * x.ld + c] - x.zero;
  }
}

// Codes as integers of type T, zero-padded to `rows` rows, transformed down the rows.
template <class T>
T* exact_transform(Workspace& scratch, const Blocks& blocks, const CodeMatrix& x, int64_t rows) {
  T* out = scratch.take<T>(rows * x.cols);
  at::parallel_for(0, rows, rows_per_task(x.cols), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) widen_row(x, r, out + r * x.cols);
  });
  block_transform(blocks, out, x.rows, x.cols);
  return out;
}

// The largest of measure(begin, end) over ranges of `count` things.
template <class F>
int32_t parallel_max(int64_t count, int64_t grain, F measure) {
  return at::parallel_reduce(
      0, count, std::max<int64_t>(1, grain), 0,
      [&](int64_t begin, int64_t end, int32_t most) { return std::max(most, measure(begin, end)); },
      [](int32_t a, int32_t b) { return std::max(a, b); });
}

// The same as int16, with max|z|. Small equal blocks are widened, transformed and measured one after another, in cache.
int16_t* exact_transform(Workspace& scratch, const Blocks& blocks, const CodeMatrix& x, int64_t rows, int32_t* most) {
  const auto& k = kernels::active();
  const int64_t cols = x.cols, order = largest_order(blocks.mode, x.rows, blocks.block);
  if (order * cols > kElementsPerTask || rows % order != 0) {
    int16_t* whole = exact_transform<int16_t>(scratch, blocks, x, rows);
    *most = parallel_max(rows, rows_per_task(cols), [&](int64_t begin, int64_t end) {
      return k.absmax_s16(whole + begin * cols, (end - begin) * cols);
    });
    return whole;
  }
  int16_t* out = scratch.take<int16_t>(rows * cols);
  *most = parallel_max(rows / order, rows_per_task(cols) / order, [&](int64_t begin, int64_t end) {
    int32_t found = 0;
    for (int64_t first = begin * order; first < end * order; first += order) {
      int16_t* block = out + first * cols;
      for (int64_t r = 0; r < order; ++r) widen_row(x, first + r, block + r * cols);
      if (order > 1) transform_cols(block, order, cols, cols);
      found = std::max(found, k.absmax_s16(block, order * cols));
    }
    return found;
  });
  return out;
}

template <class T>
float* to_float(Workspace& scratch, const T* x, int64_t n) {
  float* out = scratch.take<float>(n);
  std::copy_n(x, n, out);
  return out;
}

template <class T>
void requantize(TransformedCodes& result, Workspace& scratch, const T* x, const AbsMax& range, int64_t bits,
                std::optional<Draw> draw, DrawRows place) {
  const Quantizer q = dynamic_quantizer(range, 1.0f, bits, true, false, draw);
  auto* codes = scratch.take<uint8_t>(result.rows * result.cols);
  quantize_matrix(q, x, result.rows, result.cols, result.cols, place, codes, result.cols);
  result.codes = reinterpret_cast<const int8_t*>(codes);
  result.max_code = q.grid.hi;
  result.step = q.step;
}

}  // namespace

TransformedFloats transform_rows_axis(Workspace& scratch, const Blocks& blocks, const float* x, int64_t rows,
                                      int64_t cols) {
  const int64_t padded = blocks.padded(rows), strips = (cols + kStrip - 1) / kStrip;
  float* out = scratch.take<float>(padded * cols);
  const int64_t grain = kElementsPerTask / std::max<int64_t>(1, padded * kStrip);
  const AbsMax range = parallel_range(strips, grain, [&](int64_t begin, int64_t end) {
    AbsMax most{0, 0};
    for (int64_t s = begin; s < end; ++s) {
      const int64_t column = s * kStrip, width = std::min(kStrip, cols - column);
      for_each_piece(blocks, rows, [&](int64_t first, int64_t count, bool transforms) {
        float* piece = out + first * cols + column;
        for (int64_t r = first; r < first + count; ++r) copy_row(x, r, rows, cols, column, width, out);
        if (transforms) kernels::active().fwht_f32_cols(piece, count, width, cols);
        if (blocks.mode == BlockMode::kBinary) scale_block(piece, count, width, cols, count);
        most = larger(most, absmax_of(piece, count, width, cols));
      });
    }
    return most;
  });
  return {out, range};
}

TransformedFloats transform_cols_axis(Workspace& scratch, const Blocks& blocks, const float* x, int64_t rows,
                                      int64_t cols) {
  const int64_t padded = blocks.padded(cols), order = largest_order(blocks.mode, cols, blocks.block);
  const int64_t piece = std::max<int64_t>(1, kElementsInCache / std::max<int64_t>(1, padded));
  const auto& k = kernels::active();
  float* out = scratch.take<float>(rows * padded);
  const AbsMax range = parallel_range(rows, rows_per_task(padded), [&](int64_t begin, int64_t end) {
    AbsMax most{0, 0};
    for (int64_t first = begin; first < end; first += piece) {
      const int64_t count = std::min(piece, end - first);
      float* block = out + first * padded;
      for (int64_t r = 0; r < count; ++r) {
        std::copy_n(x + (first + r) * cols, cols, block + r * padded);
        std::fill_n(block + r * padded + cols, padded - cols, 0.0f);
      }
      if (blocks.mode == BlockMode::kBinary) {
        for_each_block(blocks.mode, cols, blocks.block, [&](int64_t column, int64_t width) {
          k.fwht_f32_rows(block + column, count, padded, width, 1);
          scale_block(block + column, count, width, padded, width);
        });
      } else if (order > 1) {
        k.fwht_f32_rows(block, count, padded, order, padded / order);
      }
      most = larger(most, k.absmax_f32(block, count * padded));
    }
    return most;
  });
  return {out, range};
}

TransformedIntegers transform_integers(Workspace& scratch, const Blocks& blocks, const CodeMatrix& x, bool narrow) {
  const int64_t rows = blocks.padded(x.rows), bound = blocks.order(x.rows) * x.max_code;
  if (!narrow || bound > std::numeric_limits<int16_t>::max()) {
    return {nullptr, exact_transform<int32_t>(scratch, blocks, x, rows), bound};
  }
  int32_t most = 0;
  const int16_t* exact = exact_transform(scratch, blocks, x, rows, &most);
  return {exact, nullptr, most};
}

TransformedCodes transform_codes(Workspace& scratch, const Blocks& blocks, const CodeMatrix& x, int64_t bits,
                                 bool requantize_codes, std::optional<Draw> draw, DrawRows place) {
  TransformedCodes result;
  result.rows = blocks.padded(x.rows);
  result.cols = x.cols;
  const int64_t n = result.rows * x.cols;
  const TransformedIntegers z =
      transform_integers(scratch, blocks, x, requantize_codes && blocks.mode != BlockMode::kBinary);
  if (z.narrow != nullptr) {
    const AbsMax range{std::bit_cast<uint32_t>(static_cast<float>(z.bound)), 1};
    requantize(result, scratch, z.narrow, range, bits, draw, place);
    return result;
  }
  if (!requantize_codes) {
    result.exact = z.wide;
    result.max_code = z.bound;
    return result;
  }
  float* real = to_float(scratch, z.wide, n);
  scale_binary_rows(blocks, real, x.rows, x.cols);
  requantize(result, scratch, real, absmax(real, n), bits, draw, place);
  return result;
}

}  // namespace quintil::ops
