#include "csrc/ops/matmul_wide.h"

#include <algorithm>

#include "csrc/core/saturate.h"
#include "csrc/kernels/dispatch.h"

namespace quintil::ops {

namespace {

// Rows [begin, end) of the codes of A, k contiguous.
const int32_t* widened_rows(Workspace& scratch, const Left& left, int64_t begin, int64_t end, int64_t k) {
  int32_t* a = scratch.take<int32_t>((end - begin) * k);
  for (int64_t r = begin; r < end; ++r) {
    for (int64_t i = 0; i < k; ++i) {
      const int64_t at = r * left.m_stride + i * left.k_stride;
      a[(r - begin) * k + i] = left.wide != nullptr ? left.wide[at] : left.data[at] - left.zero;
    }
  }
  return a;
}

WideGemm wide_gemm(const int32_t* a, const PackedRight& right, int64_t m, const Accumulator& acc) {
  return {.a = a,
          .a_row = right.k,
          .a_col = 1,
          .b = right.codes,
          .b_row = right.n,
          .m = m,
          .n = right.n,
          .k = right.k,
          .tile = acc.tile,
          .every_mac = acc.every_mac,
          .overflow = overflow_of(acc),
          .limit = limit_of(acc),
          .shift = static_cast<int32_t>(32 - acc.bits)};
}

}  // namespace

Overflow overflow_of(const Accumulator& acc) {
  return acc.bits >= 32 ? Overflow::kNone : acc.wraps ? Overflow::kWrap : Overflow::kSaturate;
}

int32_t limit_of(const Accumulator& acc) {
  return acc.bits >= 32 ? 0 : accumulator_limit(acc.bits);
}

void widen_right(PackedRight& packed, Workspace& scratch, const Right& right) {
  int32_t* codes = scratch.take<int32_t>(packed.k * packed.n);
  for (int64_t k = 0; k < packed.k; ++k) {
    for (int64_t n = 0; n < packed.n; ++n) {
      const int64_t at = k * right.k_stride + n * right.n_stride;
      codes[k * packed.n + n] = right.wide != nullptr ? right.wide[at] : right.data[at];
    }
  }
  packed.codes = codes;
}

void finish(const int32_t* totals, int64_t rows, int64_t n, const Out& out) {
  const float* bias = out.epilogue.bias;
  for (int64_t r = 0; r < rows; ++r) {
    if (out.s32 != nullptr) std::copy_n(totals + r * n, n, out.s32 + r * out.ld);
    if (out.f32 == nullptr) continue;
    float* to = out.f32 + r * out.ld;
    kernels::active().scale_s32f32(totals + r * n, n, out.epilogue, to);
    if (bias == nullptr) continue;
    for (int64_t c = 0; c < n; ++c) to[c] += bias[c];
  }
}

void multiply_wide(const PackedRight& right, const Left& left, int64_t begin, int64_t end, const Out& out) {
  Workspace scratch;
  const int64_t rows = end - begin;
  const int32_t* a = widened_rows(scratch, left, begin, end, right.k);
  int32_t* c = scratch.take<int32_t>(rows * right.n);
  kernels::active().gemm_s32s32s32(wide_gemm(a, right, rows, right.accumulator), c, right.n);
  finish(c, rows, right.n, out.at(begin, 0));
}

int64_t count_limited_tiles(const Right& right, const Left& left, int64_t m, int64_t k, int64_t n,
                            const Accumulator& accumulator) {
  Workspace scratch;
  PackedRight wide;
  wide.k = k;
  wide.n = n;
  widen_right(wide, scratch, right);
  const int32_t* a = widened_rows(scratch, left, 0, m, k);
  int32_t* c = scratch.take<int32_t>(m * n);
  return kernels::active().gemm_s32s32s32(wide_gemm(a, wide, m, accumulator), c, n);
}

}  // namespace quintil::ops
