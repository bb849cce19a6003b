// Cases of count_kernels.cpp that unfold, pack bits, sum or normalise.
#pragma once

#include "tests/cpp/count_call.h"

namespace quintil::test {
namespace {

constexpr ConvShape kConv{16, 16, 20, 3, 3, 1, 1, 1, 1, 1, 1, 16, 16, true};
constexpr int64_t kTaps = 9 * 20, kPositions = 96, kPixels = 16 * 16 * 20;

void im2col(const KernelTable& k) {
  auto image = integers<uint8_t>(kPixels, 1, 15);
  auto out = room<uint8_t>(kPositions * kTaps);
  measured([&] { k.im2col_u8(image.data(), kConv, 0, kPositions, 8, out.data(), kTaps); });
}

void col2im(const KernelTable& k) {
  auto cols = integers<int32_t>(kPositions * kTaps, -2000, 2000);
  auto image = integers<int32_t>(kPixels, 0, 0);
  measured([&] { k.col2im_s32(cols.data(), kTaps, kConv, 0, kPositions, image.data()); });
}

void pack_nibbles(const KernelTable& k) {
  auto codes = integers<uint8_t>(kElements - 1, 0, 15);
  auto out = room<uint8_t>(kElements / 2);
  measured([&] { k.pack_u8u4(codes.data(), kElements - 1, out.data()); });
}

void unpack_nibbles(const KernelTable& k) {
  auto packed = integers<uint8_t>(kElements / 2, 0, 255);
  auto out = room<uint8_t>(kElements - 1);
  measured([&] { k.unpack_u4u8(packed.data(), kElements - 1, false, out.data()); });
}

void widen(const KernelTable& k) {
  auto codes = integers<uint8_t>(kElements - 1, 1, 15);
  auto out = room<int16_t>(kElements - 1);
  measured([&] { k.widen_u8s16(codes.data(), kElements - 1, 8, out.data()); });
}

void narrow(const KernelTable& k) {
  auto codes = integers<int8_t>(kElements - 1, -128, 127);
  auto out = room<int8_t>(kElements - 1);
  measured([&] { k.double_round_s8s8(codes.data(), kElements - 1, {4, -8, 7, Rounding::kHalfEven}, out.data()); });
}

void sum_rows(const KernelTable& k) {
  auto x = floats(kElements);
  auto out = room<float>(kCols);
  measured([&] { k.sum_rows_f32(x.data(), kRows, kCols, kCols, out.data()); });
}

// 40 x 1000 values, 1000 channels.
struct NormData {
  Guarded<float> grad = floats(kElements), constants = floats(5 * kCols), out = room<float>(kElements);
  Guarded<int16_t> x = integers<int16_t>(kElements, -2000, 2000);
  Guarded<uint8_t> mask = integers<uint8_t>(kRows * (kCols / 8), 0, 255);
};

void moments(const KernelTable& k) {
  auto x = integers<int32_t>(kElements, -2000, 2000);
  auto out = room<int16_t>(kElements);
  auto sums = integers<int64_t>(2 * kCols, 0, 0);
  measured([&] { k.narrow_s32s16_moments(x.data(), kRows, kCols, out.data(), sums.data(), sums.data() + kCols); });
}

void batch_norm(const KernelTable& k) {
  NormData d;
  const NormForward norm{d.constants.data(), d.constants.data() + kCols, d.grad.data(), true};
  measured([&] { k.batch_norm_s16f32(d.x.data(), kRows, kCols, norm, d.out.data(), d.mask.data()); });
}

void batch_norm_grad(const KernelTable& k) {
  NormData d;
  const float* c = d.constants.data();
  const NormBackward norm{c, c + kCols, c + 2 * kCols, c + 3 * kCols, c + 4 * kCols};
  auto sums = integers<int32_t>(2 * kCols, 0, 0);
  auto* sum = reinterpret_cast<float*>(sums.data());
  measured([&] {
    k.batch_norm_sums_s16f32(d.x.data(), d.grad.data(), d.mask.data(), kRows, kCols, norm, sum, sum + kCols);
    k.batch_norm_grad_s16f32(d.x.data(), d.grad.data(), d.mask.data(), kRows, kCols, norm, d.out.data(), nullptr);
  });
}

}  // namespace
}  // namespace quintil::test
