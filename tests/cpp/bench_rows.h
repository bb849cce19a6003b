// What bench_kernels.cpp measures: a row per call of a kernel, and the data that all rows read and write.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "csrc/kernels/dispatch.h"
#include "tests/cpp/draws.h"

namespace quintil::test {

using kernels::KernelTable;

constexpr int64_t kRows = 128, kCols = 1024, kElements = kRows * kCols;

struct Row {
  std::string kernel, what;
  double work;  // elements, or operations of a product
  bool product;
  std::function<void(const KernelTable&)> call;
};

// Everything the rows read and write. Transforms work in place on zeros, which stay zeros: none depends on its data.
struct Data {
  Draws draws{1};
  std::vector<float> f32 = draws.floats(kElements, 1.0f);
  std::vector<int16_t> s16 = draws.integers<int16_t>(kElements, -448, 448);
  std::vector<uint8_t> u8 = draws.integers<uint8_t>(kElements, 1, 15);
  std::vector<int8_t> s8 = draws.integers<int8_t>(kElements, -7, 7);
  std::vector<int32_t> s32 = draws.integers<int32_t>(kElements, -2000, 2000);
  std::vector<float> zeros_f32 = std::vector<float>(kElements);
  std::vector<int16_t> zeros_s16 = std::vector<int16_t>(kElements);
  std::vector<int32_t> zeros_s32 = std::vector<int32_t>(kElements), image_s32 = std::vector<int32_t>(kElements);
  std::vector<float> out_f32 = std::vector<float>(kElements);
  std::vector<int16_t> out_s16 = std::vector<int16_t>(kElements);
  std::vector<uint8_t> out_u8 = std::vector<uint8_t>(2 * kElements);
  std::vector<int64_t> moments = std::vector<int64_t>(128);
  std::vector<int8_t> panels = std::vector<int8_t>(2 * kElements);
  std::vector<int32_t> start = std::vector<int32_t>(kElements);
};

constexpr CodeGrid kGrid{0.4f, -7, 7, 8};
constexpr CodeGrid kWideGrid{64.0f, -7, 7, 0};
constexpr StepGrid kStepGrid{0.05f, 0.0f, 1.0f / 16, 0.8f, -8, 7, 7, Rounding::kHalfEven, true, false, false};
constexpr LevelGrid kLevelGrid{0.3352f, -8, 7};
inline ColumnEpilogue column_epilogue(const float* column_scale) {
  return {column_scale, 0.1f, 0.5f, nullptr, nullptr, 0, false};
}

constexpr Epilogue kEpilogue{{0.1f, 0.2f, 0.3f}, 1.0f / 64, nullptr};
constexpr Draw draw_of(int32_t bits) {
  return {0x12345678u, 0x9ABCDEF0u, 4, bits};
}

}  // namespace quintil::test
