// Cases of count_kernels.cpp that pack operands, multiply or scale.
#pragma once

#include <type_traits>
#include <vector>

#include "tests/cpp/count_call.h"

namespace quintil::test {
namespace {

constexpr int64_t kM = 50, kN = 80, kK = 288, kColumns = (kN + kPanel - 1) / kPanel * kPanel;

template <bool k_contiguous>
void pack_b(const KernelTable& k) {
  auto b = integers<int8_t>(kK * kN, -7, 7);
  auto panels = room<int8_t>(kK * kColumns);
  auto start = room<int32_t>(kK / kTile * kColumns);
  constexpr int64_t k_stride = k_contiguous ? 1 : kN, n_stride = k_contiguous ? kK : 1;
  measured([&] { k.pack_b_s8(b.data(), k_stride, n_stride, kK, kN, kTile, 8, panels.data(), start.data()); });
}

void pack_a(const KernelTable& k) {
  constexpr int64_t depth = 64, m = 300;
  auto a = integers<uint8_t>(depth * m, 1, 15);
  auto packed = room<uint8_t>(depth * m);
  measured([&] { k.pack_a_u8(a.data(), m, 1, depth, m, kTile, packed.data()); });
}

// The ways in which the ops multiply: no limit (one tile), a narrow accumulator of 4-bit codes, 8-bit codes.
struct Exact {
  static constexpr int32_t bits = 4, accumulator = 32;
};
struct Narrow {
  static constexpr int32_t bits = 4, accumulator = 8;
};
struct Wide {
  static constexpr int32_t bits = 8, accumulator = 16;
};
struct WideExact {
  static constexpr int32_t bits = 8, accumulator = 32;
};

template <class Law, class Out, int kProducts = 1>
void gemm(const KernelTable& k) {
  constexpr bool limited = Law::accumulator < 32;
  constexpr int32_t zero = 1 << (Law::bits - 1);
  auto a = integers<uint8_t>(kM * kK, 1, 2 * zero - 1);
  auto b = integers<int8_t>(kK * kN, 1 - zero, zero - 1);
  auto panels = room<int8_t>(kK * kColumns);
  auto start = room<int32_t>((limited ? kK / kTile : 1) * kColumns);
  k.pack_b_s8(b.data(), kN, 1, kK, kN, limited ? kTile : 0, zero, panels.data(), start.data());
  const Gemm g{.a = a.data(),
               .a_row = kK,
               .b = panels.data(),
               .start = start.data(),
               .m = kM,
               .n = kN,
               .k4 = kK / kDepth,
               .tile_k4 = (limited ? kTile : kK) / kDepth,
               .overflow = limited ? Overflow::kSaturate : Overflow::kNone,
               .limit = static_cast<int32_t>((int64_t{1} << (Law::accumulator - 1)) - 1),
               .shift = 32 - Law::accumulator,
               .max_a = 2 * zero - 1,
               .max_b = zero - 1};
  auto c = room<Out>(kM * kN);
  if constexpr (std::is_same_v<Out, float>) {
    if constexpr (kProducts == 1) {
      auto bias = floats(kN);
      const Epilogue epilogue{{0.1f, 0.2f, 0.3f}, 1.0f / 64, bias.data()};
      measured([&] { k.gemm_u8s8f32(g, epilogue, c.data(), kN); });
    } else {
      const std::vector<Gemm> gemms(kProducts, g);
      const std::vector<Epilogue> epilogues(kProducts, {{0.1f, 0.2f, 0.3f}, 1.0f / 64, nullptr});
      measured([&] { k.gemm_u8s8f32_sum(gemms.data(), epilogues.data(), kProducts, c.data(), kN); });
    }
  } else {
    measured([&] { k.gemm_u8s8s32(g, c.data(), kN); });
  }
}

template <int32_t bits>
void every_mac(const KernelTable& k) {
  constexpr int32_t zero = 1 << (bits - 1);
  constexpr int64_t columns = (kN + kWidePanel - 1) / kWidePanel * kWidePanel;
  auto a = integers<uint8_t>(kM * kK, 1, 2 * zero - 1);
  auto b = integers<int8_t>(kK * kN, 1 - zero, zero - 1);
  auto panels = room<int8_t>(kK * columns);
  k.pack_b_s8_every_mac(b.data(), kN, 1, kK, kN, kTile, bits == 4 ? 15 : 255, panels.data());
  const EveryMacGemm g{.a = a.data(),
                       .a_row = kK,
                       .b = panels.data(),
                       .m = kM,
                       .n = kN,
                       .k4 = kK / kDepth,
                       .tile_k4 = kTile / kDepth,
                       .zero = zero,
                       .limit = bits == 4 ? 127 : 32767};
  auto c = room<int32_t>(kM * kN);
  measured([&] { (bits == 4 ? k.gemm_u8s4s32_every_mac : k.gemm_u8s8s32_every_mac)(g, c.data(), kN); });
}

template <class Out>
void scale_columns(const KernelTable& k) {
  auto x = integers<int32_t>(kElements, -3000, 3000);
  auto columns = floats(2 * kCols), residual = floats(kElements);
  auto out = room<Out>(kElements);
  const ColumnEpilogue e{columns.data(), 0.1f, 1.0f, columns.data() + kCols, residual.data(), kCols, true};
  measured([&] {
    if constexpr (std::is_same_v<Out, float>) {
      k.scale_s32f32_columns(x.data(), kRows, kCols, kCols, e, out.data(), kCols);
    } else {
      k.scale_s32u8_columns(x.data(), kRows, kCols, kCols, e, {0.5f, 0, 255, 0}, out.data(), kCols);
    }
  });
}

void quantize_columns(const KernelTable& k) {
  auto x = floats(kElements), columns = floats(2 * kCols);
  auto out = room<uint8_t>(kElements);
  measured([&] {
    k.quantize_f32u8_columns(x.data(), kRows, kCols, kCols, columns.data(), columns.data() + kCols, {0.5f, 0, 255, 0},
                             out.data(), kCols);
  });
}

}  // namespace
}  // namespace quintil::test
