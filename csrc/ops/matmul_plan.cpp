#include "csrc/ops/matmul_plan.h"

#include <ATen/Parallel.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cstring>

#include "csrc/core/saturate.h"
#include "csrc/kernels/dispatch.h"
#include "csrc/ops/matmul_wide.h"

namespace quintil::ops {

namespace {

constexpr int64_t kRowsPerTask = 512;  // rows of A that stay in L2 while panels of B, in L1, pass
constexpr int64_t kSumRows = 16;       // of a block of sums of products, which stays in L1 or L2
constexpr int64_t kSumPanels = 8;
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

// Whether all codes of B lie in -8..7. Its largest magnitude leaves open whether an 8 is +8.
bool has_4_bits(const Right& right, int64_t k, int64_t n) {
  if (right.max_code != 8) return right.max_code < 8;
  const bool along_k = right.k_stride == 1;
  if (!along_k && right.n_stride != 1) return false;
  const int64_t lines = along_k ? n : k, length = along_k ? k : n, stride = along_k ? right.n_stride : right.k_stride;
  for (int64_t i = 0; i < lines; ++i) {
    if (std::memchr(right.data + i * stride, 8, static_cast<size_t>(length)) != nullptr) return false;
  }
  return true;
}

// The fastest kernel whose lanes hold every product and the limit.
Route route_of(const Accumulator& acc, const Right& right, const Left& left, int64_t k, int64_t n) {
  if (left.wide != nullptr || right.wide != nullptr) return Route::kWide;
  if (!acc.every_mac) return Route::kTiles;
  const int64_t largest = left.max_code * right.max_code;
  if (acc.bits <= 8 && largest <= INT8_MAX && has_4_bits(right, k, n)) return Route::kEveryMac4Bit;
  return acc.bits <= 16 && largest <= INT16_MAX ? Route::kEveryMac : Route::kWide;
}

int64_t panel_width(Route route) {
  return route == Route::kTiles ? kPanel : kWidePanel;
}

int64_t padded_depth(int64_t k, int64_t tile) {  // k with every tile lengthened to a multiple of kDepth
  if (tile == 0) return round_up(k, kDepth);
  return k / tile * round_up(tile, kDepth) + round_up(k % tile, kDepth);
}

void pack_panels(PackedRight& packed, Workspace& scratch, const Right& right, int32_t zero) {
  const auto& kernels = kernels::active();
  const int64_t k = packed.k, n = packed.n, tile = packed.accumulator.tile, width = panel_width(packed.route);
  packed.k4 = padded_depth(k, tile) / kDepth;
  packed.tile_k4 = tile == 0 ? packed.k4 : round_up(tile, kDepth) / kDepth;
  const int64_t panels = (n + width - 1) / width, panel_bytes = packed.k4 * kDepth * width;
  const bool has_start = packed.route == Route::kTiles;
  const int64_t tiles = !has_start ? 0 : tile == 0 ? (k > 0) : (k + tile - 1) / tile;
  int8_t* data = scratch.take<int8_t>(panels * panel_bytes);
  int32_t* start = scratch.take<int32_t>(panels * tiles * width);
  const uint8_t mask = packed.route == Route::kEveryMac4Bit ? 15 : 255;
  const int64_t grain = std::max<int64_t>(1, (1 << 16) / std::max<int64_t>(1, k * width));
  at::parallel_for(0, panels, grain, [&](int64_t begin, int64_t end) {
    const int64_t first = begin * width, columns = std::min(n, end * width) - first;
    const int8_t* from = right.data + first * right.n_stride;
    int8_t* to = data + begin * panel_bytes;
    if (has_start) {
      kernels.pack_b_s8(from, right.k_stride, right.n_stride, k, columns, tile, zero, to,
                        start + begin * tiles * width);
    } else {
      kernels.pack_b_s8_every_mac(from, right.k_stride, right.n_stride, k, columns, tile, mask, to);
    }
  });
  packed.panels = data;
  packed.start = start;
}

// Rows [m0, m1) times panels [p0, p1).
struct Block {
  int64_t m0, m1, p0, p1;
};

int64_t tiles_of(int64_t k4, int64_t tile_k4) {
  return tile_k4 == 0 ? 0 : (k4 + tile_k4 - 1) / tile_k4;
}

Gemm part_of(const Gemm& whole, const Block& block) {
  const int64_t tiles = tiles_of(whole.k4, whole.tile_k4);
  Gemm part = whole;
  part.a += block.m0 * whole.a_row;
  part.m = block.m1 - block.m0;
  part.n = std::min(whole.n, block.p1 * kPanel) - block.p0 * kPanel;
  part.b += block.p0 * whole.k4 * kDepth * kPanel;
  part.start += block.p0 * tiles * kPanel;
  return part;
}

void multiply_tiles(const Gemm& whole, const Out& out, const Block& block) {
  const Gemm gemm = part_of(whole, block);
  const Out part = out.at(block.m0, block.p0 * kPanel);
  if (out.s32 != nullptr) return kernels::active().gemm_u8s8s32(gemm, part.s32, out.ld);
  kernels::active().gemm_u8s8f32(gemm, part.epilogue, part.f32, out.ld);
}

void multiply_every_mac(const PackedRight& right, const Gemm& whole, int32_t zero, const Out& out, const Block& block) {
  const int64_t first = block.p0 * kWidePanel;
  const EveryMacGemm gemm{.a = whole.a + block.m0 * whole.a_row,
                          .a_row = whole.a_row,
                          .b = right.panels + first * right.k4 * kDepth,
                          .m = block.m1 - block.m0,
                          .n = std::min(right.n, block.p1 * kWidePanel) - first,
                          .k4 = right.k4,
                          .tile_k4 = right.tile_k4,
                          .zero = zero,
                          .limit = accumulator_limit(right.accumulator.bits)};
  const auto& kernels = kernels::active();
  const auto kernel =
      right.route == Route::kEveryMac4Bit ? kernels.gemm_u8s4s32_every_mac : kernels.gemm_u8s8s32_every_mac;
  const Out part = out.at(block.m0, first);
  if (out.s32 != nullptr) return kernel(gemm, part.s32, out.ld);
  Workspace scratch;
  int32_t* totals = scratch.take<int32_t>(gemm.m * gemm.n);
  kernel(gemm, totals, gemm.n);
  finish(totals, gemm.m, gemm.n, part);
}

// Calls f(block) for every block of a product, in parallel.
template <class F>
void for_each_block(int64_t m, int64_t panels, int64_t tasks, F f) {
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
      f(Block{block * rows, std::min(m, (block + 1) * rows), panels * column / columns,
              panels * (column + 1) / columns});
    }
  });
}

// The product without its A.
Gemm tiled_gemm(const PackedRight& right, int64_t m) {
  const Accumulator& acc = right.accumulator;
  return {.a = nullptr,
          .a_row = 0,
          .b = right.panels,
          .start = right.start,
          .m = m,
          .n = right.n,
          .k4 = right.k4,
          .tile_k4 = right.tile_k4,
          .overflow = overflow_of(acc),
          .limit = limit_of(acc),
          .shift = static_cast<int32_t>(32 - acc.bits),
          .max_a = right.max_a,
          .max_b = right.max_b};
}

// The product with A as the kernel reads it: in place where rows run along k in whole groups of four, else packed.
Gemm gemm_of(const PackedRight& right, const Left& left, int64_t m, Workspace& scratch) {
  Gemm gemm = tiled_gemm(right, m);
  const int64_t depth = right.k4 * kDepth;
  const bool aligned_tiles = right.accumulator.tile % kDepth == 0;
  if (left.k_stride == 1 && aligned_tiles && right.k + left.padding >= depth) {
    gemm.a = left.data;
    gemm.a_row = left.m_stride;
    return gemm;
  }
  uint8_t* packed = scratch.take<uint8_t>(depth * m);
  kernels::active().pack_a_u8(left.data, left.k_stride, left.m_stride, right.k, m, right.accumulator.tile, packed);
  gemm.a = packed;
  gemm.a_row = depth;
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
  packed.route = route_of(packed.accumulator, right, left, k, n);
  packed.max_a = std::min(255, left.max_code + left.zero);
  packed.max_b = static_cast<int32_t>(right.max_code);
  if (packed.route == Route::kWide) {
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
  if (right.route == Route::kWide) {
    const int64_t grain = (m + tasks - 1) / tasks;
    at::parallel_for(0, m, grain, [&](int64_t b, int64_t e) { multiply_wide(right, left, b, e, out); });
    return;
  }
  Workspace scratch;
  const Gemm gemm = gemm_of(right, left, m, scratch);
  const int64_t width = panel_width(right.route);
  for_each_block(m, (right.n + width - 1) / width, tasks, [&](const Block& block) {
    if (right.route == Route::kTiles) {
      multiply_tiles(gemm, out, block);
    } else {
      multiply_every_mac(right, gemm, left.zero, out, block);
    }
  });
}

KeptProduct keep(const IntegerProduct& product, int64_t m) {
  const PackedRight& right = product.right;
  const int64_t panels = (right.n + kPanel - 1) / kPanel, depth = right.k4 * kDepth;
  const int64_t tiles = tiles_of(right.k4, right.tile_k4);
  const auto panel_bytes = static_cast<size_t>(panels * depth * kPanel);
  const auto start_bytes = static_cast<size_t>(panels * tiles * kPanel) * sizeof(int32_t);
  KeptProduct kept;
  kept.epilogue = product.epilogue;
  kept.data.reset(new uint8_t[start_bytes + panel_bytes + static_cast<size_t>(m * depth)]);
  auto* panel_data = kept.data.get() + start_bytes;
  auto* rows = panel_data + panel_bytes;
  std::memcpy(kept.data.get(), right.start, start_bytes);
  std::memcpy(panel_data, right.panels, panel_bytes);
  const Left& left = product.left;
  kernels::active().pack_a_u8(left.data, left.k_stride, left.m_stride, right.k, m, right.accumulator.tile, rows);
  kept.gemm = tiled_gemm(right, m);
  kept.gemm.a = rows;
  kept.gemm.a_row = depth;
  kept.gemm.b = reinterpret_cast<int8_t*>(panel_data);
  kept.gemm.start = reinterpret_cast<int32_t*>(kept.data.get());
  return kept;
}

void multiply_sum(const std::vector<KeptProduct>& products, int64_t run, int64_t m, int64_t n, float* c) {
  const auto count = static_cast<int64_t>(products.size());
  const int64_t runs = (count + run - 1) / run, pieces = (m + kSumRows - 1) / kSumRows;
  const int64_t panels = (n + kPanel - 1) / kPanel, groups = (panels + kSumPanels - 1) / kSumPanels;
  std::vector<Epilogue> epilogues;
  for (const KeptProduct& product : products) epilogues.push_back(product.epilogue);
  at::parallel_for(0, pieces * groups, 1, [&](int64_t begin, int64_t end) {
    Workspace scratch;
    std::vector<Gemm> parts(products.size());
    auto* sums = scratch.take<float>(runs * kSumRows * kSumPanels * kPanel);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t row = task % pieces * kSumRows, panel = task / pieces * kSumPanels;
      const Block block{row, std::min(m, row + kSumRows), panel, std::min(panels, panel + kSumPanels)};
      const int64_t columns = std::min(n, block.p1 * kPanel) - panel * kPanel;
      for (size_t i = 0; i < parts.size(); ++i) parts[i] = part_of(products[i].gemm, block);
      for (int64_t first = 0; first < count; first += run) {
        kernels::active().gemm_u8s8f32_sum(parts.data() + first, epilogues.data() + first, std::min(run, count - first),
                                           sums + first / run * kSumRows * columns, columns);
      }
      for (int64_t i = row; i < block.m1; ++i) {
        kernels::active().sum_rows_f32(sums + (i - row) * columns, runs, columns, kSumRows * columns,
                                       c + i * n + panel * kPanel);
      }
    }
  });
}

}  // namespace quintil::ops
