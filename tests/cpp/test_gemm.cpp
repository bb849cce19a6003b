// The product with limited accumulators [HDQT H3]: the scalar law against an explicit register, every instruction set
// against the scalar law. Packing and the epilogue are in test_gemm_parts.cpp.
#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "csrc/kernels/dispatch.h"
#include "csrc/quantizers/tiled_accumulation.h"
#include "tests/cpp/catch.h"
#include "tests/cpp/draws.h"
#include "tests/cpp/products.h"
#include "tests/cpp/shapes.h"

namespace quintil {
namespace {

using test::Operands;
using test::Problem;
using test::ProductShape;

constexpr Overflow kOverflows[] = {Overflow::kNone, Overflow::kSaturate, Overflow::kWrap};
constexpr int64_t kTiles[] = {0, 1, 3, 21, 32, 33, 64};
constexpr int64_t kAccumulators[] = {4, 8, 12, 16, 32};

std::string described(const Problem& p) {
  return "m " + std::to_string(p.shape.m) + " n " + std::to_string(p.shape.n) + " k " + std::to_string(p.shape.k) +
         " tile " + std::to_string(p.tile) + " overflow " + std::to_string(static_cast<int>(p.overflow)) +
         " accumulator " + std::to_string(p.bits) + " zero " + std::to_string(p.zero);
}

std::vector<int32_t> multiplied(const kernels::KernelTable& table, const Problem& p, int64_t gap, int32_t max_a = 0,
                                int32_t max_b = 0) {
  const Operands operands(p, gap);
  test::Output c(p.shape.m, p.shape.n, gap);
  table.gemm_u8s8s32(operands.view(p, max_a, max_b), c.data(), c.ld());
  return c.values();
}

// Calls f(problem, largest byte, largest |b|) for each operand type x accumulator x tile x overflow, on `samples` shapes.
template <class F>
void for_each_setting(uint64_t seed, int samples, F f) {
  test::Draws draws(seed);
  const std::vector<ProductShape> shapes = test::flattened(test::product_groups());
  for (int bits = 2; bits <= 8; ++bits) {
    for (bool a_signed : {false, true}) {
      for (int64_t accumulator : kAccumulators) {
        for (int64_t tile : kTiles) {
          for (Overflow overflow : kOverflows) {
            for (int sample = 0; sample < samples; ++sample) {
              const ProductShape shape = shapes[draws.next() % shapes.size()];
              f(test::random_problem(draws, shape, bits, a_signed, tile, overflow, accumulator), (1 << bits) - 1,
                1 << (bits - 1));
            }
          }
        }
      }
    }
  }
}

// Every row of A and column of B holds one extreme code each, so that the sums are known without a loop.
Problem constant_problem(ProductShape shape, int32_t a, int32_t b, int64_t tile, Overflow overflow, int64_t bits,
                         int32_t zero) {
  return {shape,
          tile,
          overflow,
          bits,
          zero,
          std::vector<int32_t>(static_cast<size_t>(shape.m * shape.k), a),
          std::vector<int32_t>(static_cast<size_t>(shape.k * shape.n), b)};
}

// n columns that all equal `value`, or the answer is not the one of a kernel.
bool all_equal(const std::vector<int32_t>& values, int64_t size, int64_t value) {
  return static_cast<int64_t>(values.size()) == size &&
         std::all_of(values.begin(), values.end(), [&](int32_t v) { return v == value; });
}

TEST_CASE("the scalar product equals the explicit register for every operand, tile and accumulator") {
  const kernels::KernelTable& scalar = *kernels::table("scalar");
  for_each_setting(1, 2, [&](const Problem& p, int32_t max_a, int32_t max_b) {
    const std::string setting = described(p);
    CAPTURE(setting);
    const std::vector<int32_t> expected = test::product_by_definition(p).c;
    CHECK(multiplied(scalar, p, 0, max_a, max_b) == expected);
    CHECK(multiplied(scalar, p, test::kFront) == expected);
  });
}

TEST_CASE("every instruction set multiplies like the scalar law") {
  const kernels::KernelTable& scalar = *kernels::table("scalar");
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      const kernels::KernelTable& table = *kernels::table(isa);
      size_t turn = 0;
      for_each_setting(2, 6, [&](const Problem& p, int32_t max_a, int32_t max_b) {
        const int64_t gap = test::gaps()[turn % test::gaps().size()];
        const bool tight = turn++ % 3 == 0;  // the bounds that occur instead of those of the type
        const std::vector<int32_t> expected = multiplied(scalar, p, 0);
        const std::vector<int32_t> got = multiplied(table, p, gap, tight ? 0 : max_a, tight ? 0 : max_b);
        const std::string setting = described(p);
        CAPTURE(setting, gap, tight, max_a, max_b, test::first_difference(got, expected));
        CHECK(got == expected);
      });
    }
  }
}

TEST_CASE("every instruction set multiplies every shape under the default setting") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      const kernels::KernelTable& table = *kernels::table(isa);
      test::Draws draws(3);
      for (const test::ProductShapes& group : test::product_groups()) {
        for (const ProductShape& shape : group.values) {
          for (bool a_signed : {false, true}) {
            for (int64_t gap : test::gaps()) {
              const Problem p = test::random_problem(draws, shape, 4, a_signed, kTile, Overflow::kSaturate, 8);
              const std::string setting = described(p);
              CAPTURE(group.hunts, setting, gap);
              CHECK(multiplied(table, p, gap, 15, 8) == test::product_by_definition(p).c);
            }
          }
        }
      }
    }
  }
}

TEST_CASE("64 products 15 x 7 give the published sums") {
  struct Row {
    int64_t tile, bits;
    Overflow overflow;
    int32_t sum;
  };
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      for (const Row& row : {Row{32, 32, Overflow::kNone, 6720}, Row{32, 8, Overflow::kSaturate, 254},
                             Row{32, 12, Overflow::kSaturate, 4094}, Row{32, 13, Overflow::kSaturate, 6720},
                             Row{64, 8, Overflow::kSaturate, 127}, Row{0, 8, Overflow::kSaturate, 127}}) {
        CAPTURE(row.tile, row.bits);
        const Problem p = constant_problem({7, 35, 64}, 15, 7, row.tile, row.overflow, row.bits, 0);
        CHECK(all_equal(multiplied(*kernels::table(isa), p, 0), 7 * 35, row.sum));
      }
    }
  }
}

TEST_CASE("totals leave int16 where clamped and unclamped tiles add up") {
  struct Row {
    int64_t tiles, bits;
    Overflow overflow;
    int32_t a, b, tile_sum;
  };
  // 258 tiles at A = 8, 16 at A = 12 and 9 unclamped ones are the most that fit int16.
  const Row rows[] = {{259, 8, Overflow::kSaturate, 15, 7, 127},  {259, 8, Overflow::kSaturate, 15, -8, -127},
                      {17, 12, Overflow::kSaturate, 15, 7, 2047}, {17, 12, Overflow::kSaturate, 15, -8, -2047},
                      {10, 16, Overflow::kSaturate, 15, 7, 3360}, {10, 32, Overflow::kNone, 15, -8, -3840},
                      {10, 13, Overflow::kWrap, 15, 7, 3360},     {600, 8, Overflow::kSaturate, 15, -7, -127},
                      {257, 8, Overflow::kWrap, 15, -4, -128},    {40, 16, Overflow::kSaturate, 15, 7, 3360}};
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      for (const Row& row : rows) {
        for (int64_t more : {-1, 0, 1}) {
          const int64_t k = (row.tiles + more) * kTile;
          CAPTURE(row.tiles, more, row.bits, row.a, row.b);
          const Problem p = constant_problem({7, 33, k}, row.a, row.b, kTile, row.overflow, row.bits, 0);
          CHECK(all_equal(multiplied(*kernels::table(isa), p, 0, 15, 8), 7 * 33, (row.tiles + more) * row.tile_sum));
        }
      }
    }
  }
}

TEST_CASE("extreme codes stay exact in tiles of every length") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      for (int bits = 2; bits <= 8; ++bits) {
        const int32_t half = 1 << (bits - 1);
        for (int32_t zero : {0, half}) {
          for (int32_t a : {-zero, 2 * half - 1 - zero}) {
            for (int32_t b : {-half, 1 - half, half - 1}) {
              for (int64_t tile : {0, 32, 64, 250, 256, 312, 313, 668, 669}) {
                for (int64_t accumulator : {8, 16, 32}) {
                  CAPTURE(bits, zero, a, b, tile, accumulator);
                  const Problem p = constant_problem({3, 34, 1400}, a, b, tile, Overflow::kSaturate, accumulator, zero);
                  int64_t expected = 0;
                  for (int64_t k = 0; k < 1400; k += p.depth()) {
                    const int64_t sum = std::min(p.depth(), 1400 - k) * a * b;
                    expected += test::limited_by_definition(sum, Overflow::kSaturate, accumulator);
                  }
                  CHECK(all_equal(multiplied(*kernels::table(isa), p, 0, 2 * half - 1, half), 3 * 34, expected));
                }
              }
            }
          }
        }
      }
    }
  }
}

TEST_CASE("unsigned 255 times -128 in pairs, alternating with +127") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      for (int64_t period : {1, 2, 4}) {
        Problem p = constant_problem({8, 40, 130}, 255, -128, 32, Overflow::kSaturate, 20, 0);
        for (int64_t k = 0; k < 130; ++k) {
          for (int64_t column = 0; column < 40; ++column) {
            if (k / period % 2 == 1) p.b[static_cast<size_t>(k * 40 + column)] = 127;
          }
        }
        CAPTURE(period);
        CHECK(multiplied(*kernels::table(isa), p, 0) == test::product_by_definition(p).c);
      }
    }
  }
}

// Lays the products of one sum along row `at` of A and column `at` of B, in a tile that holds nothing else there.
void put_sum(Problem& p, int64_t at, int64_t column, int64_t sum, int32_t max_a, int32_t max_b) {
  const int32_t sign = sum < 0 ? -1 : 1;
  int64_t rest = sum * sign;
  for (int64_t k = 0; rest > 0; ++k) {
    const int32_t b = rest >= max_a ? static_cast<int32_t>(std::min<int64_t>(max_b, rest / max_a)) : 1;
    const int32_t a = static_cast<int32_t>(std::min<int64_t>(max_a, rest / b));
    p.a[static_cast<size_t>(at * p.shape.k + k)] = a;
    p.b[static_cast<size_t>(k * p.shape.n + column)] = b * sign;
    rest -= int64_t{a} * b;
  }
}

TEST_CASE("sums of L-1, L, L+1, -L and -L-1 meet the limit on either side") {
  struct Codes {
    int32_t max_a, max_b, zero;
  };
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      for (const Codes& codes : {Codes{15, 7, 0}, Codes{7, 7, 8}, Codes{255, 127, 0}, Codes{127, 127, 128}}) {
        for (int64_t bits : {4, 8, 12, 16}) {
          const int64_t limit = (int64_t{1} << (bits - 1)) - 1;
          if (limit + 2 > 24 * codes.max_a * codes.max_b) continue;  // a tile of 32 cannot hold the sum
          const std::vector<int64_t> sums = {limit - 1,  limit,  limit + 1,  limit + 2,
                                             -limit + 1, -limit, -limit - 1, -limit - 2};
          const std::vector<int64_t> columns = {0, 3, 15, 16, 31, 32, 40, 66};
          for (Overflow overflow : {Overflow::kSaturate, Overflow::kWrap}) {
            Problem p = constant_problem({8, 67, 77}, 0, 0, kTile, overflow, bits, codes.zero);
            for (size_t i = 0; i < sums.size(); ++i) {
              put_sum(p, static_cast<int64_t>(i), columns[i], sums[i], codes.max_a, codes.max_b);
            }
            const std::vector<int32_t> c = multiplied(*kernels::table(isa), p, 0);
            CHECK(c == test::product_by_definition(p).c);
            for (size_t i = 0; i < sums.size(); ++i) {
              CAPTURE(codes.max_a, codes.zero, bits, static_cast<int>(overflow), sums[i]);
              CHECK(c[i * 67 + static_cast<size_t>(columns[i])] ==
                    test::limited_by_definition(sums[i], overflow, bits));
            }
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace quintil
