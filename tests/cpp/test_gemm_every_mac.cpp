// The product limited after every multiply-add [HDQT H3]: both kernels on every instruction set against the explicit register,
// and the packing they read.
#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "csrc/kernels/dispatch.h"
#include "tests/cpp/catch.h"
#include "tests/cpp/draws.h"
#include "tests/cpp/guarded.h"
#include "tests/cpp/products.h"
#include "tests/cpp/shapes.h"

namespace quintil {
namespace {

using test::Guarded;
using test::Problem;
using test::ProductShape;

constexpr int64_t kTiles[] = {0, 1, 3, 4, 21, 32, 33, 64};

// Which of the two kernels, and the widest register that it serves.
struct Kernel {
  const char* name;
  decltype(kernels::KernelTable::gemm_u8s4s32_every_mac) kernels::KernelTable::* entry;
  uint8_t mask;
  int64_t most_bits;
};
constexpr Kernel kNibbles = {"u8s4s32", &kernels::KernelTable::gemm_u8s4s32_every_mac, 15, 8};
constexpr Kernel kBytes = {"u8s8s32", &kernels::KernelTable::gemm_u8s8s32_every_mac, 255, 16};

std::vector<int32_t> multiplied(const std::string& isa, const Kernel& kernel, const Problem& p, int64_t gap) {
  const test::Operands operands(p, gap);
  const Gemm view = operands.view(p);
  const Guarded<int8_t> panels = test::wide_panels(p, kernel.mask, gap);
  test::Output c(p.shape.m, p.shape.n, gap);
  const EveryMacGemm g{.a = view.a,
                       .a_row = view.a_row,
                       .b = panels.data(),
                       .m = view.m,
                       .n = view.n,
                       .k4 = view.k4,
                       .tile_k4 = view.tile_k4,
                       .zero = p.zero,
                       .limit = view.limit};
  (kernels::table(isa)->*kernel.entry)(g, c.data(), c.ld());
  return c.values();
}

// Compares a kernel with the register; the place of the operands comes from `draws`.
void check(const std::string& isa, const Kernel& kernel, const Problem& p, test::Draws& draws) {
  const int64_t gap = test::gaps()[draws.next() % test::gaps().size()];
  const std::vector<int32_t> expected = test::product_by_definition(p, true).c;
  const std::vector<int32_t> got = multiplied(isa, kernel, p, gap);
  CAPTURE(kernel.name, p.shape.m, p.shape.n, p.shape.k, p.tile, p.bits, p.zero, gap,
          test::first_difference(got, expected));
  CHECK(got == expected);
}

// Zero 128 as for an int8 matrix, or 2^(bits-1) as for the codes of a layer.
Problem drawn(test::Draws& draws, ProductShape shape, int bits, bool a_signed, int64_t tile, int64_t accumulator) {
  Problem p = test::random_problem(draws, shape, bits, a_signed, tile, Overflow::kSaturate, accumulator);
  if (a_signed && draws.between(0, 1) == 0) p.zero = 128;
  return p;
}

TEST_CASE("every_mac: all operands, accumulators and tiles equal the register") {
  const std::vector<ProductShape> shapes = test::flattened(test::product_groups());
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      test::Draws draws(1);
      for (const Kernel& kernel : {kNibbles, kBytes}) {
        for (int bits = 2; bits <= (kernel.mask == 15 ? 4 : 8); ++bits) {
          for (int64_t accumulator = 2; accumulator <= kernel.most_bits; ++accumulator) {
            for (int64_t tile : kTiles) {
              for (bool a_signed : {false, true}) {
                const ProductShape shape = shapes[draws.next() % shapes.size()];
                check(isa, kernel, drawn(draws, shape, bits, a_signed, tile, accumulator), draws);
              }
            }
          }
        }
      }
    }
  }
}

TEST_CASE("every_mac: every shape under the default setting") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      test::Draws draws(2);
      for (const ProductShape& shape : test::flattened(test::product_groups())) {
        for (bool a_signed : {false, true}) {
          check(isa, kNibbles, drawn(draws, shape, 4, a_signed, kTile, 8), draws);
          check(isa, kBytes, drawn(draws, shape, 8, a_signed, kTile, 16), draws);
        }
      }
    }
  }
}

TEST_CASE("every_mac: registers pushed to one limit and away again, in every order of signs") {
  struct Codes {
    Kernel kernel;
    int32_t a, zero, low, high;  // largest products that a lane must hold
  };
  const Codes all[] = {{kNibbles, 15, 0, -8, 7},    {kNibbles, -8, 8, -8, 7},      {kNibbles, 127, 0, -1, 1},
                       {kNibbles, -63, 128, -2, 2}, {kNibbles, 1, 128, -8, 7},     {kBytes, 15, 0, -8, 8},
                       {kBytes, 255, 0, -128, 127}, {kBytes, -128, 128, -128, 127}};
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      test::Draws draws(3);
      for (const Codes& codes : all) {
        for (int64_t bits = 2; bits <= codes.kernel.most_bits; ++bits) {
          for (int64_t tile : {0, 7, 32}) {
            // Column j changes its sign by the bits of j: 64 patterns of six products, then drawn codes around them.
            Problem p{{9, 70, 45}, tile, Overflow::kSaturate, bits, codes.zero, {}, {}};
            p.a.assign(static_cast<size_t>(9 * 45), codes.a);
            for (size_t i = 0; i < p.a.size(); i += 5) p.a[i] = codes.a / 3;
            for (int64_t k = 0; k < 45; ++k) {
              for (int64_t j = 0; j < 70; ++j) {
                const bool rises = k % 12 < 6 ? (j >> k % 6 & 1) != 0 : draws.between(0, 1) == 0;
                p.b.push_back(k % 7 == 6 ? static_cast<int32_t>(draws.between(codes.low, codes.high))
                                         : (rises ? codes.high : codes.low));
              }
            }
            check(isa, codes.kernel, p, draws);
          }
        }
      }
    }
  }
}

TEST_CASE("every_mac: sums of L-1, L, L+1 and beyond, met in steps of one") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      test::Draws draws(4);
      for (const Kernel& kernel : {kNibbles, kBytes}) {
        for (int64_t bits = 3; bits <= kernel.most_bits; ++bits) {
          const int32_t limit = (1 << (bits - 1)) - 1;
          // One large step to the neighbourhood of +-L in row 0 .. 5, then ones: up, and back down from wherever it ended.
          Problem p{{6, 66, 40}, 0, Overflow::kSaturate, bits, 128, std::vector<int32_t>(6 * 40, 1), {}};
          const int32_t step = kernel.mask == 15 ? 7 : 127;
          for (int64_t row = 0; row < 6; ++row) {
            int32_t rest = limit / step - static_cast<int32_t>(row) % 3;
            for (int64_t k = 0; k < 8 && rest > 0; ++k) {
              const int32_t most = 127 / (kernel.mask == 15 ? 7 : 1);
              p.a[static_cast<size_t>(row * 40 + k)] = std::min(rest, most);
              rest -= std::min(rest, most);
            }
          }
          for (int64_t k = 0; k < 40; ++k) {
            for (int64_t j = 0; j < 66; ++j) {
              const int32_t sign = j % 2 == 0 ? 1 : -1, turn = k < 8 + j % 20 ? sign : -sign;
              p.b.push_back(k < 8 ? sign * step : turn);
            }
          }
          check(isa, kernel, p, draws);
        }
      }
    }
  }
}

TEST_CASE("every_mac: totals of many limited tiles leave int16") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      test::Draws draws(5);
      for (int64_t tiles : {257, 258, 259, 516, 517, 1100}) {
        for (int64_t tile : {3, 32}) {
          for (int32_t b : {7, -8}) {
            const ProductShape shape{3, 34, tiles * tile - 1};
            Problem p{shape, tile, Overflow::kSaturate, 8, 0, {}, {}};
            p.a.assign(static_cast<size_t>(shape.m * shape.k), 15);
            p.b.assign(static_cast<size_t>(shape.k * shape.n), b);
            check(isa, kNibbles, p, draws);
            check(isa, kBytes, p, draws);
          }
        }
      }
    }
  }
}

TEST_CASE("every_mac: 16 products of +105 and 16 of -105 end at -127") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      Problem p{{1, 1, 32}, 32, Overflow::kSaturate, 8, 0, std::vector<int32_t>(32, 15), std::vector<int32_t>(32, 7)};
      for (size_t k = 16; k < 32; ++k) p.b[k] = -7;
      for (const Kernel& kernel : {kNibbles, kBytes}) {
        CHECK(multiplied(isa, kernel, p, 0) == std::vector<int32_t>{-127});
      }
    }
  }
}

TEST_CASE("pack_b_s8_every_mac lays columns side by side, tiles padded with zero") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      test::Draws draws(6);
      for (const ProductShape& shape : test::flattened(test::product_groups())) {
        for (int64_t tile : kTiles) {
          for (uint8_t mask : {uint8_t{15}, uint8_t{255}}) {
            const Problem p = drawn(draws, shape, mask == 15 ? 4 : 8, false, tile, 8);
            const auto [m, n, k] = shape;
            const Guarded<int8_t> expected = test::wide_panels(p, mask, 0);
            for (bool transposed : {false, true}) {
              const Guarded<int8_t> source = test::stored<int8_t>(p.b, k, n, 5, transposed, 0);
              Guarded<int8_t> panels(expected.size(), test::gaps()[draws.next() % test::gaps().size()]);
              kernels::table(isa)->pack_b_s8_every_mac(source.data(), transposed ? 1 : n + 5, transposed ? k + 5 : 1, k,
                                                       n, tile, mask, panels.data());
              CAPTURE(n, k, tile, mask, transposed);
              CHECK(test::first_difference(panels, expected) == -1);
              CHECK(panels.intact());
            }
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace quintil
