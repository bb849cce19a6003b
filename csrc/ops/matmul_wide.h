// Products by the reference kernel: codes beyond a byte, and accumulators that no faster kernel serves.
#pragma once

#include <cstdint>

#include "csrc/ops/matmul_plan.h"

namespace quintil::ops {

// What a register of the accumulator's width does with a sum that does not fit.
Overflow overflow_of(const Accumulator& acc);
int32_t limit_of(const Accumulator& acc);  // L = 2^(A-1)-1, 0 where there is no limit

// packed.codes = the codes of `right` as int32.
void widen_right(PackedRight& packed, Workspace& scratch, const Right& right);

// Rows [begin, end) of the product.
void multiply_wide(const PackedRight& right, const Left& left, int64_t begin, int64_t end, const Out& out);

// out = totals [rows, n] of any kernel through the epilogue; `out` begins at the first of them, its bias at their first column.
void finish(const int32_t* totals, int64_t rows, int64_t n, const Out& out);

// Tiles of the product whose sum does not fit: a diagnostic by the reference kernel.
int64_t count_limited_tiles(const Right& right, const Left& left, int64_t m, int64_t k, int64_t n,
                            const Accumulator& accumulator);

}  // namespace quintil::ops
