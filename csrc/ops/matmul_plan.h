// Integer products as every op needs them: which accumulator law can fire, which kernel serves it, how operands are
// packed, how the work is split over threads (over rows and columns, never over k: P10).
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "csrc/core/types.h"
#include "csrc/ops/workspace.h"

namespace quintil::ops {

// The register that sums one tile of products: `tile` products (0: all of them) in `bits` bits (32: no limit).
struct Accumulator {
  int64_t tile = kTile;
  int64_t bits = 8;
  bool every_mac = false;
  bool wraps = false;
};

// Codes of A in bytes: code(m, k) = data[m * m_stride + k * k_stride] - zero.
// With k_stride 1, `padding` bytes beyond k may be read (their value does not matter).
struct Left {
  const uint8_t* data = nullptr;
  int64_t m_stride = 0;
  int64_t k_stride = 1;
  int32_t zero = 0;
  int32_t max_code = 0;  // largest |code|
  int64_t padding = 0;
  const int32_t* wide = nullptr;  // codes too wide for a byte stand here instead, same strides, zero ignored
};

// Codes of B: code(k, n) = data[k * k_stride + n * n_stride], or `wide` in the same strides.
struct Right {
  const int8_t* data = nullptr;
  int64_t k_stride = 0;
  int64_t n_stride = 0;
  int64_t max_code = 0;
  const int32_t* wide = nullptr;
};

// Which kernel serves a product.
enum class Route {
  kTiles,         // gemm_u8s8s32 and gemm_u8s8f32
  kEveryMac4Bit,  // gemm_u8s4s32_every_mac
  kEveryMac,      // gemm_u8s8s32_every_mac
  kWide,          // gemm_s32s32s32
};

// B ready to be multiplied, packed once for any number of left operands that share zero and max_code.
struct PackedRight {
  int64_t k = 0, n = 0;
  Accumulator accumulator;  // as it acts: without a limit where none can fire
  Route route = Route::kTiles;
  int32_t max_a = 0, max_b = 0;
  int64_t k4 = 0, tile_k4 = 0;
  const int8_t* panels = nullptr;
  const int32_t* start = nullptr;  // kTiles
  const int32_t* codes = nullptr;  // kWide: [k][n]
};

// Where a product goes: int32 totals, or float32 through the epilogue.
struct Out {
  int32_t* s32 = nullptr;
  float* f32 = nullptr;
  int64_t ld = 0;
  Epilogue epilogue{{1.0f, 1.0f, 1.0f}, 1.0f, nullptr};

  // The part that begins at an element.
  Out at(int64_t row, int64_t column) const {
    Out part = *this;
    if (s32 != nullptr) part.s32 += row * ld + column;
    if (f32 != nullptr) part.f32 += row * ld + column;
    if (epilogue.bias != nullptr) part.epilogue.bias += column;
    return part;
  }
};

// A product whose operands live in scratch memory, finished as float32 without a bias.
struct IntegerProduct {
  PackedRight right;
  Left left;
  Epilogue epilogue;
};

// `left` tells zero, max_code and whether it is wide. Throws ValueError with `op` if totals could overflow int32 (N2).
PackedRight pack_right(const char* op, Workspace& scratch, const Right& right, const Left& left, int64_t k, int64_t n,
                       const Accumulator& accumulator);

// C [m, n] = left right. Threads are used where the caller is not itself a task of at::parallel_for.
void multiply(const PackedRight& right, const Left& left, int64_t m, const Out& out);

// Both operands of a product of the route kTiles as its kernel reads them, in memory of their own.
struct KeptProduct {
  Gemm gemm{};
  Epilogue epilogue{};
  std::unique_ptr<uint8_t[]> data;
};
KeptProduct keep(const IntegerProduct& product, int64_t m);

// c [m, n] = the sum over runs of `run` products of the sum of each run, both from the first on (N8). A number of c passes
// through all products while it is in cache. Products have equal m and n.
void multiply_sum(const std::vector<KeptProduct>& products, int64_t run, int64_t m, int64_t n, float* c);

}  // namespace quintil::ops
