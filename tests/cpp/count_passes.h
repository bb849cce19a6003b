// Cases of count_kernels.cpp that quantise or transform.
#pragma once

#include "tests/cpp/count_call.h"

namespace quintil::test {
namespace {

void absmax(const KernelTable& k) {
  auto x = floats(kElements);
  measured([&] { k.absmax_f32(x.data(), kElements); });
}

void quantize_nearest(const KernelTable& k) {
  auto x = floats(kElements);
  auto out = room<uint8_t>(kElements);
  measured([&] { k.quantize_f32u8(x.data(), kRows, kCols, kCols, kGrid, out.data(), kCols); });
}

void quantize_float_stochastic(const KernelTable& k) {
  auto x = floats(kElements);
  auto out = room<uint8_t>(kElements);
  measured(
      [&] { k.quantize_f32u8_stochastic(x.data(), kRows, kCols, kCols, kGrid, draw_of(16), 0, out.data(), kCols); });
}

void quantize_short_stochastic(const KernelTable& k) {
  auto x = integers<int16_t>(kElements, -448, 448);
  auto out = room<uint8_t>(kElements);
  measured(
      [&] { k.quantize_s16u8_stochastic(x.data(), kRows, kCols, kCols, kWideGrid, draw_of(8), 0, out.data(), kCols); });
}

void lstm_cell(const KernelTable& k) {
  auto x = floats(kElements);
  auto cell = floats(kElements / 4), state = room<float>(kElements / 4);
  measured([&] { k.lstm_cell_f32(x.data(), x.data(), x.data(), kRows, kCols / 4, cell.data(), state.data()); });
}

void luq_codes(const KernelTable& k) {
  auto x = floats(kElements);
  auto out = room<int8_t>(kElements);
  measured([&] { k.luq_f32s8(x.data(), kRows, kCols, 0.1f, draw_of(16), 0, out.data()); });
}

void minifloat(const KernelTable& k) {
  static constexpr float steps[] = {0x1p-3f, 0x1p-4f, 0x1p-5f, 0x1p-6f}, inverses[] = {0x1p3f, 0x1p4f, 0x1p5f, 0x1p6f};
  auto x = floats(kElements - 1);
  auto out = room<float>(kElements - 1);
  measured([&] { k.minifloat_f32f32(x.data(), kElements - 1, {steps, inverses, 4, 128, 3.75f}, out.data()); });
}

void learned_step(const KernelTable& k) {
  auto x = floats(kElements - 1);
  auto out = room<float>(kElements - 1);
  measured([&] { k.lsq_f32f32(x.data(), kElements - 1, kStepGrid, out.data()); });
}

void learned_step_gradient(const KernelTable& k) {
  constexpr int64_t n = kSumChunk - 1;
  auto x = floats(n);
  auto out = room<float>(n);
  measured([&] { k.lsq_f32f32f32_backward(x.data(), x.data(), n, kStepGrid, out.data()); });
}

void steer(const KernelTable& k) {
  constexpr int64_t n = kSumChunk - 1;
  auto x = floats(n);
  auto codes = room<int8_t>(n);
  measured([&] { k.steer_f32s8(x.data(), n, kLevelGrid, codes.data()); });
}

void drive(const KernelTable& k) {
  auto x = floats(kElements - 1);
  auto out = room<float>(kElements - 1);
  measured([&] { k.drive_f32f32(x.data(), kElements - 1, kLevelGrid, {0.3f, 0.0f, 0.0f, 0.0f}, out.data()); });
}

template <int64_t order>
void fwht_rows(const KernelTable& k) {
  constexpr int64_t rows = 20, blocks = 1024 / order, width = order * blocks;
  auto x = floats(rows * width);
  measured([&] { k.fwht_f32_rows(x.data(), rows, width, order, blocks); });
}

void fwht_float_cols(const KernelTable& k) {
  auto x = floats(128 * 124);
  measured([&] { k.fwht_f32_cols(x.data(), 128, 124, 124); });
}

void fwht_short_cols(const KernelTable& k) {
  auto x = integers<int16_t>(128 * 124, -7, 7);
  measured([&] { k.fwht_s16_cols(x.data(), 128, 124, 124); });
}

}  // namespace
}  // namespace quintil::test
