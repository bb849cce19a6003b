#include "csrc/ops/matmul_plan.h"

#include <ATen/Parallel.h>
#include <c10/util/Exception.h>

#include <algorithm>

#include "csrc/core/saturate.h"
#include "csrc/kernels/dispatch.h"

namespace quintil::ops {

namespace {

constexpr int64_t kRowsPerTask = 96;           // rows of A that stay in L2 while the panels of B pass
constexpr int64_t kRowStep = 8;                // rows of the widest block of a kernel
constexpr int64_t kProductsPerTask = 1 << 21;  // below about 10 us of work a second thread costs more than it gives

int64_t round_up(int64_t value, int64_t step) {
  return (value + step - 1) / step * step;
}

// The accumulator that gives the same bits with the least work: no limit where no tile can reach it.
Accumulator effective(const Accumulator& given, int64_t k, int64_t max_a, int64_t max_b) {
  Accumulator acc = given;
  if (acc.tile >= k) acc.tile = 0;
  const int64_t longest = acc.tile == 0 ? k : acc.tile;
  if (acc.bits >= 32 || longest * max_a * max_b <= accumulator_limit(acc.bits))
    return {.tile = 0, .bits = 32, .every_mac = false, .wraps = false};
  if (acc.wraps) acc.every_mac = false;  // modular sums do not depend on when they are reduced
  return acc;
}

Overflow overflow_of(const Accumulator& acc) {
  return acc.bits >= 32 ? Overflow::kNone : acc.wraps ? Overflow::kWrap : Overflow::kSaturate;
}

int64_t padded_depth(int64_t k, int64_t tile) {  // k with every tile lengthened to a multiple of kDepth
  if (tile == 0) return round_up(k, kDepth);
  return k / tile * round_up(tile, kDepth) + round_up(k % tile, kDepth);
}

void pack_panels(PackedRight& packed, Workspace& scratch, const Right& right, int32_t zero) {
  const auto& kernels = kernels::active();
  const int64_t k = packed.k, n = packed.n, tile = packed.accumulator.tile;
  packed.k4 = padded_depth(k, tile) / kDepth;
  packed.tile_k4 = tile == 0 ? packed.k4 : round_up(tile, kDepth) / kDepth;
  const int64_t panels = (n + kPanel - 1) / kPanel;
  const int64_t tiles = tile == 0 ? (k > 0) : (k + tile - 1) / tile;
  int8_t* data = scratch.take<int8_t>(panels * packed.k4 * kDepth * kPanel);
  int32_t* start = scratch.take<int32_t>(panels * tiles * kPanel);
  const int64_t grain = std::max<int64_t>(1, (1 << 16) / std::max<int64_t>(1, k * kPanel));
  at::parallel_for(0, panels, grain, [&](int64_t begin, int64_t end) {
    const int64_t first = begin * kPanel;
    kernels.pack_b_s8(right.data + first * right.n_stride, right.k_stride, right.n_stride, k,
                      std::min(n, end * kPanel) - first, tile, zero, data + begin * packed.k4 * kDepth * kPanel,
                      start + begin * tiles * kPanel);
  });
  packed.panels = data;
  packed.start = start;
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

void add_bias(const Out& out, int64_t rows, int64_t n) {
  if (out.epilogue.bias == nullptr) return;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < n; ++c) out.f32[r * out.ld + c] += out.epilogue.bias[c];
  }
}

// The reference kernel over rows [begin, end).
void multiply_wide(const PackedRight& right, const Left& left, int64_t begin, int64_t end, const Out& out) {
  const auto& kernels = kernels::active();
  Workspace scratch;
  const int64_t rows = end - begin, k = right.k, n = right.n;
  int32_t* a = scratch.take<int32_t>(rows * k);
  int32_t* c = scratch.take<int32_t>(rows * n);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < k; ++i) {
      const int64_t at = (begin + r) * left.m_stride + i * left.k_stride;
      a[r * k + i] = left.wide != nullptr ? left.wide[at] : left.data[at] - left.zero;
    }
  }
  const Accumulator& acc = right.accumulator;
  const WideGemm gemm{a,
                      k,
                      1,
                      right.codes,
                      n,
                      rows,
                      n,
                      k,
                      acc.tile,
                      acc.every_mac,
                      overflow_of(acc),
                      acc.bits >= 32 ? 0 : accumulator_limit(acc.bits),
                      static_cast<int32_t>(32 - acc.bits)};
  kernels.gemm_s32s32s32(gemm, c, n);
  for (int64_t r = 0; r < rows; ++r) {
    if (out.s32 != nullptr) std::copy_n(c + r * n, n, out.s32 + (begin + r) * out.ld);
    if (out.f32 != nullptr) kernels.scale_s32f32(c + r * n, n, out.epilogue, out.f32 + (begin + r) * out.ld);
  }
  if (out.f32 != nullptr) {
    Out rest = out;
    rest.f32 += begin * out.ld;
    add_bias(rest, rows, n);
  }
}

// One task: rows [m0, m1) times panels [p0, p1).
void multiply_block(const PackedRight& right, const Gemm& whole, const Out& out, int64_t m0, int64_t m1, int64_t p0,
                    int64_t p1) {
  const int64_t tiles = right.tile_k4 == 0 ? 0 : (right.k4 + right.tile_k4 - 1) / right.tile_k4;
  Gemm gemm = whole;
  gemm.a += m0 * gemm.a_row;
  gemm.m = m1 - m0;
  gemm.n = std::min(right.n, p1 * kPanel) - p0 * kPanel;
  gemm.b += p0 * right.k4 * kDepth * kPanel;
  gemm.start += p0 * tiles * kPanel;
  const int64_t offset = m0 * out.ld + p0 * kPanel;
  if (out.s32 != nullptr) return kernels::active().gemm_u8s8s32(gemm, out.s32 + offset, out.ld);
  Epilogue epilogue = out.epilogue;
  if (epilogue.bias != nullptr) epilogue.bias += p0 * kPanel;
  kernels::active().gemm_u8s8f32(gemm, epilogue, out.f32 + offset, out.ld);
}

// A as the kernel reads it: in place where rows run along k in whole groups of four, else packed.
Gemm left_view(const PackedRight& right, const Left& left, int64_t m, Workspace& scratch) {
  Gemm gemm{};
  const int64_t depth = right.k4 * kDepth;
  const bool aligned_tiles = right.accumulator.tile % kDepth == 0;
  if (left.k_stride == 1 && aligned_tiles && right.k + left.padding >= depth) {
    gemm.a = left.data;
    gemm.a_row = left.m_stride;
    gemm.a_k4 = kDepth;
    return gemm;
  }
  uint8_t* packed = scratch.take<uint8_t>(depth * m);
  kernels::active().pack_a_u8(left.data, left.k_stride, left.m_stride, right.k, m, right.accumulator.tile, packed);
  gemm.a = packed;
  gemm.a_row = kDepth;
  gemm.a_k4 = kDepth * m;
  return gemm;
}

}  // namespace

PackedRight pack_right(const char* op, Workspace& scratch, const Right& right, const Left& left, int64_t k, int64_t n,
                       const Accumulator& accumulator) {
  TORCH_CHECK_VALUE(total_is_exact(k, left.max_code, right.max_code), op,
                    ": expected the contracted length times the largest codes to stay below 2^31, got ", k, " * ",
                    left.max_code, " * ", right.max_code);
  PackedRight packed;
  packed.k = k;
  packed.n = n;
  packed.accumulator = effective(accumulator, k, left.max_code, right.max_code);
  packed.wide = packed.accumulator.every_mac || left.wide != nullptr || right.wide != nullptr;
  packed.max_a = std::min(255, left.max_code + left.zero);
  packed.max_b = static_cast<int32_t>(right.max_code);
  if (packed.wide) {
    widen_right(packed, scratch, right);
  } else {
    pack_panels(packed, scratch, right, left.zero);
  }
  return packed;
}

void multiply(const PackedRight& right, const Left& left, int64_t m, const Out& out) {
  if (m == 0 || right.n == 0) return;
  const int64_t threads = at::in_parallel_region() ? 1 : at::get_num_threads();
  const int64_t products = m * right.n * std::max<int64_t>(1, right.k);
  const int64_t tasks = std::max<int64_t>(1, std::min(threads, products / kProductsPerTask));
  if (right.wide) {
    const int64_t grain = (m + tasks - 1) / tasks;
    at::parallel_for(0, m, grain, [&](int64_t b, int64_t e) { multiply_wide(right, left, b, e, out); });
    return;
  }
  Workspace scratch;
  Gemm gemm = left_view(right, left, m, scratch);
  const Accumulator& acc = right.accumulator;
  gemm.b = right.panels;
  gemm.start = right.start;
  gemm.k4 = right.k4;
  gemm.tile_k4 = right.tile_k4;
  gemm.overflow = overflow_of(acc);
  gemm.limit = acc.bits >= 32 ? 0 : accumulator_limit(acc.bits);
  gemm.shift = static_cast<int32_t>(32 - acc.bits);
  gemm.max_a = right.max_a;
  gemm.max_b = right.max_b;
  const int64_t panels = (right.n + kPanel - 1) / kPanel;
  // As many blocks of rows for every thread: 11 blocks would leave one of two threads waiting for the last.
  const int64_t most_rows = std::min(kRowsPerTask, (m + tasks - 1) / tasks);
  const int64_t even_blocks = round_up((m + most_rows - 1) / most_rows, tasks);
  const int64_t rows = round_up((m + even_blocks - 1) / even_blocks, kRowStep);
  const int64_t row_blocks = (m + rows - 1) / rows;
  const int64_t columns = std::min(panels, std::max<int64_t>(1, (tasks + row_blocks - 1) / row_blocks));
  const int64_t grain = (row_blocks * columns + tasks - 1) / tasks;
  at::parallel_for(0, row_blocks * columns, grain, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t block = task / columns, column = task % columns;
      multiply_block(right, gemm, out, block * rows, std::min(m, (block + 1) * rows), panels * column / columns,
                     panels * (column + 1) / columns);
    }
  });
}

int64_t count_limited_tiles(const Right& right, const Left& left, int64_t m, int64_t k, int64_t n,
                            const Accumulator& accumulator) {
  Workspace scratch;
  PackedRight wide;
  wide.k = k;
  wide.n = n;
  widen_right(wide, scratch, right);
  int32_t* a = scratch.take<int32_t>(m * k);
  int32_t* c = scratch.take<int32_t>(m * n);
  for (int64_t r = 0; r < m; ++r) {
    for (int64_t i = 0; i < k; ++i) a[r * k + i] = left.data[r * left.m_stride + i * left.k_stride] - left.zero;
  }
  const WideGemm gemm{a,
                      k,
                      1,
                      wide.codes,
                      n,
                      m,
                      n,
                      k,
                      accumulator.tile,
                      accumulator.every_mac,
                      overflow_of(accumulator),
                      accumulator.bits >= 32 ? 0 : accumulator_limit(accumulator.bits),
                      static_cast<int32_t>(32 - accumulator.bits)};
  return kernels::active().gemm_s32s32s32(gemm, c, n);
}

}  // namespace quintil::ops
