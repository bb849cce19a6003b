// Rows of bench_kernels.cpp that multiply.
#pragma once

#include <string>
#include <vector>

#include "tests/cpp/bench_rows.h"
#include "tests/cpp/draws.h"

namespace quintil::test {

// Codes of `bits` bits, signed on both sides, packed once by the scalar kernel.
struct Product {
  int64_t m, n, k;
  int32_t zero;
  std::vector<uint8_t> a;
  std::vector<int8_t> b, panels, wide_panels;
  std::vector<int32_t> start, c;
  std::vector<float> real;

  Product(int64_t m_, int64_t k_, int64_t n_, int bits)
      : m(m_), n(n_), k(k_), zero(1 << (bits - 1)), c(static_cast<size_t>(m * n)), real(c.size()) {
    Draws draws(7);
    a = draws.integers<uint8_t>(m * k, 1, 2 * zero - 1);
    b = draws.integers<int8_t>(k * n, 1 - zero, zero - 1);
    const int64_t columns = (n + kPanel - 1) / kPanel * kPanel;
    panels.resize(static_cast<size_t>(columns * k));
    start.resize(static_cast<size_t>(columns * ((k + kTile - 1) / kTile)));
    kernels::table("scalar")->pack_b_s8(b.data(), 1, k, k, n, kTile, zero, panels.data(), start.data());
    wide_panels.resize(static_cast<size_t>((n + kWidePanel - 1) / kWidePanel * kWidePanel * k));
    kernels::table("scalar")->pack_b_s8_every_mac(b.data(), 1, k, k, n, kTile, bits <= 4 ? 15 : 255,
                                                  wide_panels.data());
  }

  Gemm view(Overflow overflow, int32_t bits) const {
    return {.a = a.data(),
            .a_row = k,
            .b = panels.data(),
            .start = start.data(),
            .m = m,
            .n = n,
            .k4 = k / kDepth,
            .tile_k4 = kTile / kDepth,
            .overflow = overflow,
            .limit = static_cast<int32_t>((int64_t{1} << (bits - 1)) - 1),
            .shift = 32 - bits,
            .max_a = 2 * zero - 1,
            .max_b = zero - 1};
  }

  EveryMacGemm every_mac(int32_t bits) const {
    return {.a = a.data(),
            .a_row = k,
            .b = wide_panels.data(),
            .m = m,
            .n = n,
            .k4 = k / kDepth,
            .tile_k4 = kTile / kDepth,
            .zero = zero,
            .limit = (1 << (bits - 1)) - 1};
  }
};

inline std::string shape_of(const Product& p) {
  return std::to_string(p.m) + "x" + std::to_string(p.k) + "x" + std::to_string(p.n);
}

inline void add_products(std::vector<Row>& rows, Data& d, std::vector<Product>& products) {
  const auto integer = [&](Product& p, const char* what, Overflow overflow, int32_t bits) {
    rows.push_back(
        {"gemm_u8s8s32", shape_of(p) + ", " + what, 2.0 * p.m * p.n * p.k, true,
         [&p, overflow, bits](const KernelTable& k) { k.gemm_u8s8s32(p.view(overflow, bits), p.c.data(), p.n); }});
  };
  products.reserve(6);  // rows point at them
  products.emplace_back(960, 1024, 1024, 4);
  products.emplace_back(960, 1024, 1024, 8);
  integer(products[0], "4 bit, no limit", Overflow::kNone, 32);
  integer(products[0], "4 bit, A = 8", Overflow::kSaturate, 8);
  integer(products[0], "4 bit, A = 8, wraps", Overflow::kWrap, 8);
  integer(products[1], "8 bit, A = 16", Overflow::kSaturate, 16);
  const int64_t convs[][2] = {{144, 16}, {288, 32}, {576, 64}};
  for (const auto& [k, n] : convs) {
    products.emplace_back(1024, k, n, 4);
    integer(products.back(), "4 bit, A = 8", Overflow::kSaturate, 8);
  }
  for (Product& p : products) {
    if (p.zero != 8) continue;
    rows.push_back(
        {"gemm_u8s8f32", shape_of(p) + ", 4 bit, A = 8", 2.0 * p.m * p.n * p.k, true, [&p](const KernelTable& k) {
           k.gemm_u8s8f32(p.view(Overflow::kSaturate, 8), kEpilogue, p.real.data(), p.n);
         }});
  }
  products.emplace_back(512, 16, 1152, 4);
  Product& image = products.back();
  rows.push_back({"gemm_u8s8f32_sum", "8 x " + shape_of(image) + ", 4 bit, A = 8", 16.0 * image.m * image.n * image.k,
                  true, [&image](const KernelTable& k) {
                    const std::vector<Gemm> gemms(8, image.view(Overflow::kSaturate, 8));
                    const std::vector<Epilogue> epilogues(8, kEpilogue);
                    k.gemm_u8s8f32_sum(gemms.data(), epilogues.data(), 8, image.real.data(), image.n);
                  }});
  for (Product* p : {&products[0], &products[2], &products[4]}) {
    rows.push_back({"gemm_u8s4s32_every_mac", shape_of(*p) + ", A = 8", 2.0 * p->m * p->n * p->k, true,
                    [p](const KernelTable& k) { k.gemm_u8s4s32_every_mac(p->every_mac(8), p->c.data(), p->n); }});
  }
  Product& bytes = products[1];
  rows.push_back(
      {"gemm_u8s8s32_every_mac", shape_of(bytes) + ", A = 16", 2.0 * bytes.m * bytes.n * bytes.k, true,
       [&bytes](const KernelTable& k) { k.gemm_u8s8s32_every_mac(bytes.every_mac(16), bytes.c.data(), bytes.n); }});
  rows.push_back(
      {"gemm_s32s32s32", "64x256x64, every_mac, A = 8", 2.0 * 64 * 256 * 64, true, [&d](const KernelTable& k) {
         k.gemm_s32s32s32(
             {d.s32.data(), 256, 1, d.s32.data(), 64, 64, 64, 256, kTile, true, Overflow::kSaturate, 127, 24},
             d.image_s32.data(), 64);
       }});
}

}  // namespace quintil::test
