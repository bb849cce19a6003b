// What surrounds the product: packing against the index formulas of `Gemm`, the float epilogue against roundings taken
// one by one (N9), and the reference product over any strides and accumulate modes [HDQT H3].
#include <bit>
#include <cstdint>
#include <limits>
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
using test::Operands;
using test::Problem;
using test::ProductShape;

constexpr int64_t kTiles[] = {0, 1, 3, 4, 21, 32, 33, 64};

// float(double product) rounds once: the product of two floats is exact in double.
float times(float a, float b) {
  return static_cast<float>(static_cast<double>(a) * static_cast<double>(b));
}
float plus(float a, float b) {
  return static_cast<float>(static_cast<double>(a) + static_cast<double>(b));
}

float finished(int32_t total, const Epilogue& e, int64_t column) {
  float value = static_cast<float>(static_cast<double>(total));
  for (float factor : {e.scale[0], e.scale[1], e.scale[2], e.inverse}) value = times(value, factor);
  return e.bias == nullptr ? value : plus(value, e.bias[column]);
}

std::vector<Epilogue> epilogues() {
  const float infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  return {{{0.1f, 0.3f, 1.0f}, 1.0f, nullptr},      {{0.0123f, 7.7f, 1e-3f}, 1.0f / 64, nullptr},
          {{1e-30f, 1e-9f, 3.0f}, 0.5f, nullptr},   {{1e30f, 1e9f, 1.0f}, 1.0f, nullptr},
          {{0.0f, 1.0f, 1.0f}, 1.0f, nullptr},      {{nan, 1.0f, 1.0f}, 1.0f, nullptr},
          {{1.0f, infinity, 1.0f}, 0.25f, nullptr}, {{-0.7f, 3.0f, 1.0f}, 1.0f, nullptr}};
}

TEST_CASE("pack_b_s8 fills the panels and starting sums of the index formulas") {
  const auto packed_as_stated = [](const kernels::KernelTable& table, const Problem& p, bool transposed, int64_t gap) {
    const Operands expected(p, 0);
    const auto [m, n, k] = p.shape;
    const Guarded<int8_t> source = test::stored<int8_t>(p.b, k, n, 5, transposed, 0);
    Guarded<int8_t> panels(expected.panels().size(), gap);
    Guarded<int32_t> start(expected.start().size(), gap);
    const int64_t k_stride = transposed ? 1 : n + 5, n_stride = transposed ? k + 5 : 1;
    table.pack_b_s8(source.data(), k_stride, n_stride, k, n, p.tile, p.zero, panels.data(), start.data());
    return test::first_difference(panels, expected.panels()) == -1 &&
           test::first_difference(start, expected.start()) == -1 && panels.intact() && start.intact();
  };
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      test::Draws draws(1);
      for (const ProductShape& shape : test::flattened(test::product_groups())) {
        for (int64_t tile : kTiles) {
          for (bool a_signed : {false, true}) {
            const int bits = static_cast<int>(draws.between(2, 8));
            const Problem p = test::random_problem(draws, shape, bits, a_signed, tile, Overflow::kNone, 32);
            const int64_t gap = test::gaps()[draws.next() % test::gaps().size()];
            CAPTURE(shape.n, shape.k, tile, p.zero, gap);
            CHECK(packed_as_stated(*kernels::table(isa), p, false, gap));
            CHECK(packed_as_stated(*kernels::table(isa), p, true, gap));
          }
        }
      }
    }
  }
}

TEST_CASE("pack_a_u8 lays out rows along k, every tile padded with zero bytes") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      test::Draws draws(2);
      for (const ProductShape& shape : test::flattened(test::product_groups())) {
        for (int64_t tile : kTiles) {
          const Problem p = test::random_problem(draws, shape, 8, true, tile, Overflow::kNone, 32);
          const int64_t m = shape.m, k = shape.k, k4 = test::groups_of_four(k, p.depth());
          std::vector<uint8_t> expected(static_cast<size_t>(k4 * m * kDepth), 0);
          for (int64_t row = 0; row < m; ++row) {
            for (int64_t i = 0; i < k; ++i) {
              const int64_t place = test::place_of(i, p.depth());
              expected[static_cast<size_t>(row * k4 * kDepth + place)] =
                  static_cast<uint8_t>(p.a[static_cast<size_t>(row * k + i)] + p.zero);
            }
          }
          for (bool transposed : {false, true}) {
            const Guarded<uint8_t> source = test::stored<uint8_t>(p.a, m, k, 3, transposed, p.zero);
            Guarded<uint8_t> packed(static_cast<int64_t>(expected.size()), transposed ? 1 : 0);
            kernels::table(isa)->pack_a_u8(source.data(), transposed ? m + 3 : 1, transposed ? 1 : k + 3, k, m, tile,
                                           packed.data());
            CAPTURE(m, k, tile, transposed);
            CHECK(test::first_difference(packed, expected) == -1);
            CHECK(packed.intact());
          }
        }
      }
    }
  }
}

TEST_CASE("gemm_u8s8f32 rounds every scale on its own, then adds the bias") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      test::Draws draws(3);
      for (const ProductShape& shape : test::flattened(test::product_groups())) {
        const Problem p =
            test::random_problem(draws, shape, 4, draws.between(0, 1) == 1, kTile, Overflow::kSaturate, 8);
        const std::vector<int32_t> totals = test::product_by_definition(p).c;
        const Operands operands(p, 0);
        const int64_t m = shape.m, n = shape.n, ld = n + 1;
        const Guarded<float> bias(draws.floats(n, 3.0f, 20));
        for (Epilogue e : epilogues()) {
          e.bias = draws.between(0, 1) == 0 ? nullptr : bias.data();
          Guarded<float> c(m == 0 ? 0 : (m - 1) * ld + n), expected(c.size());
          for (int64_t i = 0; i < m * n; ++i) {
            expected[i / n * ld + i % n] = finished(totals[static_cast<size_t>(i)], e, i % n);
          }
          kernels::table(isa)->gemm_u8s8f32(operands.view(p, 15, 8), e, c.data(), ld);
          CAPTURE(m, n, shape.k, e.scale[0], e.bias == nullptr, test::first_difference(c, expected));
          CHECK(test::first_difference(c, expected) == -1);
          CHECK(c.intact());
        }
      }
    }
  }
}

TEST_CASE("gemm_u8s8f32_sum adds float32 products one after the other") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      test::Draws draws(7);
      for (const ProductShape& shape : test::flattened(test::product_groups())) {
        const Overflow overflow = std::vector{Overflow::kSaturate, Overflow::kWrap, Overflow::kNone}[draws.next() % 3];
        const int64_t m = shape.m, n = shape.n, ld = n + 2, count = draws.between(1, 9);
        std::vector<Operands> operands;
        std::vector<Gemm> gemms;
        std::vector<Epilogue> scales;
        Guarded<float> c(m == 0 ? 0 : (m - 1) * ld + n), expected(c.size());
        for (int64_t i = 0; i < m * n; ++i) expected[i / n * ld + i % n] = 0.0f;
        for (int64_t p = 0; p < count; ++p) {
          const Problem problem = test::random_problem(draws, shape, 4, draws.between(0, 1) == 1,
                                                       kTiles[draws.next() % std::size(kTiles)], overflow, 8);
          const std::vector<int32_t> totals = test::product_by_definition(problem).c;
          operands.emplace_back(problem, 0);
          gemms.push_back(operands.back().view(problem, 15, 8));
          scales.push_back(epilogues()[draws.next() % (count == 1 ? epilogues().size() : 3)]);
          for (int64_t i = 0; i < m * n; ++i) {
            float& sum = expected[i / n * ld + i % n];
            sum = plus(sum, finished(totals[static_cast<size_t>(i)], scales.back(), i % n));
          }
        }
        kernels::table(isa)->gemm_u8s8f32_sum(gemms.data(), scales.data(), count, c.data(), ld);
        CAPTURE(m, n, shape.k, count, static_cast<int>(overflow), test::first_difference(c, expected));
        CHECK(test::first_difference(c, expected) == -1);
        CHECK(c.intact());
      }
    }
  }
}

TEST_CASE("scale_s32f32 rounds every scale on its own, also in place") {
  using limits = std::numeric_limits<int32_t>;
  const int32_t extremes[] = {
      0, 1, -1, limits::max(), limits::min(), 1 << 24, (1 << 24) + 1, (1 << 24) + 3, -(1 << 24) - 1};
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      test::Draws draws(4);
      for (int64_t n : test::flattened(test::length_groups())) {
        Guarded<int32_t> x(draws.integers<int32_t>(n, limits::min(), limits::max()));
        for (int64_t i = 0; i < n; i += 3) x[i] = extremes[draws.next() % std::size(extremes)];
        for (const Epilogue& e : epilogues()) {
          Guarded<float> expected(n), apart(n, 1);
          for (int64_t i = 0; i < n; ++i) expected[i] = finished(x[i], e, 0);
          kernels::table(isa)->scale_s32f32(x.data(), n, e, apart.data());
          Guarded<int32_t> both(std::vector<int32_t>(x.data(), x.data() + n));
          float* in_place = reinterpret_cast<float*>(both.data());
          kernels::table(isa)->scale_s32f32(both.data(), n, e, in_place);
          CAPTURE(n, e.scale[0], test::first_difference(apart, expected));
          CHECK(test::first_difference(apart, expected) == -1);
          CHECK(test::first_difference(std::vector<float>(in_place, in_place + n), expected) == -1);
          CHECK(apart.intact());
          CHECK(both.intact());
        }
      }
    }
  }
}

// The reference product on a problem; `transposed` stores A the other way round.
test::Expected reference_product(const kernels::KernelTable& table, const Problem& p, bool every_mac, bool transposed) {
  const auto [m, n, k] = p.shape;
  const Guarded<int32_t> a = test::stored<int32_t>(p.a, m, k, 2, transposed, 0),
                         b = test::stored<int32_t>(p.b, k, n, 1, false, 0);
  const WideGemm g{.a = a.data(),
                   .a_row = transposed ? 1 : k + 2,
                   .a_col = transposed ? m + 2 : 1,
                   .b = b.data(),
                   .b_row = n + 1,
                   .m = m,
                   .n = n,
                   .k = k,
                   .tile = p.tile,
                   .every_mac = every_mac,
                   .overflow = p.overflow,
                   .limit = static_cast<int32_t>((int64_t{1} << (p.bits - 1)) - 1),
                   .shift = static_cast<int32_t>(32 - p.bits)};
  Guarded<int32_t> c(m * n);
  const int64_t limited = table.gemm_s32s32s32(g, c.data(), n);
  return {std::vector<int32_t>(c.data(), c.data() + (c.intact() ? m * n : 0)), limited};
}

TEST_CASE("gemm_s32s32s32 is exact beyond 16-bit operands") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      test::Draws draws(8);
      for (int round = 0; round < 200; ++round) {
        Problem p =
            test::random_problem(draws, {3, 37, 11}, 4, true, 4, static_cast<Overflow>(draws.between(0, 2)), 16);
        const bool wide_a = draws.between(0, 1) == 1;
        for (int32_t& value : wide_a ? p.a : p.b) value = static_cast<int32_t>(draws.between(-200000, 200000));
        const bool every_mac = draws.between(0, 1) == 1;
        CAPTURE(round, wide_a, every_mac, static_cast<int>(p.overflow));
        const test::Expected expected = test::product_by_definition(p, every_mac);
        const test::Expected got = reference_product(*kernels::table(isa), p, every_mac, false);
        CHECK(got.c == expected.c);
        CHECK(got.limited == expected.limited);
      }
    }
  }
}

TEST_CASE("gemm_s32s32s32 equals the explicit register and counts the limited tiles") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      test::Draws draws(5);
      const std::vector<ProductShape> shapes = test::flattened(test::product_groups());
      for (int round = 0; round < 1500; ++round) {
        const int64_t accumulators[] = {4, 8, 12, 16, 32};
        const Problem p =
            test::random_problem(draws, shapes[draws.next() % shapes.size()], static_cast<int>(draws.between(2, 8)),
                                 draws.between(0, 1) == 1, kTiles[draws.next() % std::size(kTiles)],
                                 static_cast<Overflow>(draws.between(0, 2)), accumulators[draws.next() % 5]);
        const bool every_mac = draws.between(0, 1) == 1;
        const test::Expected expected = test::product_by_definition(p, every_mac);
        const test::Expected got = reference_product(*kernels::table(isa), p, every_mac, draws.between(0, 1) == 1);
        CAPTURE(p.shape.m, p.shape.n, p.shape.k, p.tile, p.bits, static_cast<int>(p.overflow), every_mac);
        CHECK(got.c == expected.c);
        CHECK(got.limited == expected.limited);
      }
    }
  }
}

TEST_CASE("16 products of +105 and 16 of -105: 0 at the tile's end, -127 in a narrow register") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      const kernels::KernelTable& table = *kernels::table(isa);
      Problem p{{1, 1, 32}, 32, Overflow::kSaturate, 8, 0, std::vector<int32_t>(32, 15), std::vector<int32_t>(32, 7)};
      for (size_t k = 16; k < 32; ++k) p.b[k] = -7;
      CHECK(reference_product(table, p, false, false).c == std::vector<int32_t>{0});
      CHECK(reference_product(table, p, true, false).c == std::vector<int32_t>{-127});
      CHECK(reference_product(table, p, true, false).limited == 1);

      Problem permuted = p;  // the order of k is part of a narrow register, not of a wrapping one
      for (size_t k = 0; k < 32; ++k) permuted.b[k] = k % 2 == 0 ? 7 : -7;
      CHECK(reference_product(table, permuted, true, false).c == std::vector<int32_t>{0});
      p.overflow = permuted.overflow = Overflow::kWrap;
      CHECK(reference_product(table, p, true, false).c == reference_product(table, permuted, true, false).c);
      CHECK(reference_product(table, p, true, false).c == reference_product(table, p, false, false).c);
    }
  }
}

TEST_CASE("weights of small l1 norm in every tile never meet the limit") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      test::Draws draws(6);
      Problem p = test::random_problem(draws, {9, 40, 200}, 4, false, kTile, Overflow::kSaturate, 8);
      for (int64_t column = 0; column < 40; ++column) {
        int32_t norm = 0;
        for (int64_t k = 0; k < 200; ++k) {
          if (k % kTile == 0) norm = 0;
          int32_t& code = p.b[static_cast<size_t>(k * 40 + column)];
          if (norm + std::abs(code) > 127 / 15) code = 0;
          norm += std::abs(code);
        }
      }
      const test::Expected limited = reference_product(*kernels::table(isa), p, false, false);
      p.overflow = Overflow::kNone;
      CHECK(limited.limited == 0);
      CHECK(limited.c == reference_product(*kernels::table(isa), p, false, false).c);
    }
  }
}

}  // namespace
}  // namespace quintil
