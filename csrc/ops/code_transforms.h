// Onto the Hadamard domain: the passes between the products that transform matrices, and quantise them again.
// Everything here works on [rows, cols] matrices in scratch memory and uses threads where it may.
#pragma once

#include <cstdint>
#include <optional>

#include "csrc/core/blocks.h"
#include "csrc/core/types.h"
#include "csrc/ops/code_matrix.h"
#include "csrc/ops/workspace.h"

namespace quintil::ops {

// One Hadamard layout along an axis of length n.
struct Blocks {
  BlockMode mode = BlockMode::kPadded;
  int64_t block = 64;

  int64_t padded(int64_t n) const { return padded_length(mode, n, block); }
  int64_t order(int64_t n) const { return largest_order(mode, n, block); }
  float inverse(int64_t n) const { return 1.0f / static_cast<float>(undo_divisor(mode, n, block)); }
};

// A transformed matrix and its range, which is found while the numbers are in cache.
struct TransformedFloats {
  const float* data;
  AbsMax range;
};

// H x along the rows of float data [rows, cols] (ld = cols), zero-padded to blocks.padded(rows) rows; `binary` blocks
// are scaled by 1/sqrt(p) each.
TransformedFloats transform_rows_axis(Workspace& scratch, const Blocks& blocks, const float* x, int64_t rows,
                                      int64_t cols);
// x H along the columns of float data, to blocks.padded(cols) columns.
TransformedFloats transform_cols_axis(Workspace& scratch, const Blocks& blocks, const float* x, int64_t rows,
                                      int64_t cols);

// H q along the rows of codes, exact, zero-padded to blocks.padded(x.rows) rows: as int16 if `narrow` and they fit, else as
// int32.
struct TransformedIntegers {
  const int16_t* narrow = nullptr;
  const int32_t* wide = nullptr;
  int64_t bound = 0;  // on |H q|; for int16 its maximum
};
TransformedIntegers transform_integers(Workspace& scratch, const Blocks& blocks, const CodeMatrix& x, bool narrow);

// The same, quantised again to signed codes of `bits` bits in two's complement
// [HDQT H9, H10]; with `requantize` false the exact integers, step 1.
struct TransformedCodes {
  const int8_t* codes = nullptr;   // [rows, cols]
  const int32_t* exact = nullptr;  // instead of codes, where not quantised again
  int64_t rows = 0, cols = 0;
  int64_t max_code = 0;
  float step = 1;
};
TransformedCodes transform_codes(Workspace& scratch, const Blocks& blocks, const CodeMatrix& x, int64_t bits,
                                 bool requantize, std::optional<Draw> draw, DrawRows place);

}  // namespace quintil::ops
