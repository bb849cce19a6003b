// Half-integer levels [VECQ V2-V9]: every instruction set against the scalar law, the scalar law against the other form
// of the same levels (sign and magnitude) and sums written in long double.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "csrc/kernels/dispatch.h"
#include "csrc/quantizers/vecq.h"
#include "tests/cpp/catch.h"
#include "tests/cpp/draws.h"
#include "tests/cpp/guarded.h"
#include "tests/cpp/shapes.h"

namespace quintil {
namespace {

using kernels::KernelTable;
using test::Guarded;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

LevelGrid random_grid(test::Draws& draws, int64_t most_bits) {
  constexpr float steps[] = {0.25f, 1.0f, 0.37f, 3e-3f, 0.0f, 1e30f, kNan};
  return level_grid(steps[draws.next() % std::size(steps)], draws.between(1, most_bits));
}

// Half of them bell-shaped over the grid or special, half on quarters of a step and up to two steps beyond its ends.
std::vector<float> elements(test::Draws& draws, int64_t n, const LevelGrid& grid) {
  std::vector<float> values = draws.floats(n, grid.divisor * grid.hi / 2, 40);
  for (float& value : values) {
    if (draws.between(0, 1) == 0) continue;
    const int64_t lo = static_cast<int64_t>(4 * grid.lo) - 8, hi = static_cast<int64_t>(4 * grid.hi) + 12;
    value = static_cast<float>(draws.between(lo, hi)) / 4.0f * grid.divisor;
  }
  return values;
}

LevelValue random_value(test::Draws& draws) {
  const float ratio = draws.between(0, 1) == 0 ? 0.0f : 0.3f;
  if (draws.between(0, 1) == 0) return {0.37f, ratio, -kInfinity, kInfinity};
  return {draws.between(0, 7) == 0 ? kNan : 0.5f, ratio, -1.5f, 1.25f};
}

bool same_sums(const LevelSums& a, const LevelSums& b) {
  return test::same(a.vx, b.vx) && test::same(a.vv, b.vv) && test::same(a.xx, b.xx) && a.least == b.least &&
         a.most == b.most;
}

template <class Code>
LevelSums steer(const KernelTable& table, const float* x, int64_t n, const LevelGrid& grid, Code* codes) {
  if constexpr (sizeof(Code) == 1) {
    return table.steer_f32s8(x, n, grid, codes);
  } else {
    return table.steer_f32s16(x, n, grid, codes);
  }
}

template <class Code>
void check_steer(const KernelTable& table, test::Draws& draws, int64_t n, int64_t gap) {
  const LevelGrid grid = random_grid(draws, 8 * sizeof(Code));
  const Guarded<float> x(elements(draws, n, grid), gap);
  Guarded<Code> got(n, gap), expected(n, gap);
  const LevelSums law = steer(*kernels::table("scalar"), x.data(), n, grid, expected.data());
  CAPTURE(n, gap, grid.divisor, grid.lo);
  CHECK(same_sums(steer(table, x.data(), n, grid, got.data()), law));
  CHECK(test::first_difference(got, expected) == -1);
  CHECK(got.intact());
}

void check_drive(const KernelTable& table, test::Draws& draws, int64_t n, int64_t gap) {
  const LevelGrid grid = random_grid(draws, 16);
  const LevelValue value = random_value(draws);
  const Guarded<float> x(elements(draws, n, grid), gap);
  Guarded<float> got(n, gap), expected(n, gap);
  kernels::table("scalar")->drive_f32f32(x.data(), n, grid, value, expected.data());
  table.drive_f32f32(x.data(), n, grid, value, got.data());
  CAPTURE(n, gap, grid.divisor, grid.lo, value.alpha, value.ratio, value.floor);
  CHECK(test::first_difference(got, expected) == -1);
  CHECK(got.intact());
}

void check_sums(const KernelTable& table, test::Draws& draws, int64_t n, int64_t gap) {
  const KernelTable& scalar = *kernels::table("scalar");
  const Guarded<float> x(draws.floats(n, 2.0f, draws.between(0, 2) == 0 ? 50 : 0), gap), y(draws.floats(n, 1.0f), gap);
  const float pivot = draws.bell();
  const Moments moments = table.moments_f32(x.data(), n, pivot), law = scalar.moments_f32(x.data(), n, pivot);
  const PairSums pairs = table.compare_f32f32(x.data(), y.data(), n);
  const PairSums pairs_law = scalar.compare_f32f32(x.data(), y.data(), n);
  CAPTURE(n, gap, pivot);
  CHECK((test::same(moments.sum, law.sum) && test::same(moments.squares, law.squares)));
  CHECK((test::same(pairs.xy, pairs_law.xy) && test::same(pairs.yy, pairs_law.yy)));
  CHECK((test::same(pairs.xx, pairs_law.xx) && test::same(pairs.error, pairs_law.error)));
}

TEST_CASE("every instruction set gives the codes, sums and values of the scalar law") {
  for (const std::string& isa : test::tested_isas()) {
    const KernelTable& table = *kernels::table(isa);
    DYNAMIC_SECTION(isa) {
      test::Draws draws(1);
      for (int64_t n : test::flattened(test::length_groups())) {
        for (int64_t gap : test::gaps()) {
          for (int repeat = 0; repeat < 8; ++repeat) {
            check_drive(table, draws, n, gap);
            if (n > kSumChunk) continue;
            check_steer<int8_t>(table, draws, n, gap);
            check_steer<int16_t>(table, draws, n, gap);
            check_sums(table, draws, n, gap);
          }
        }
      }
    }
  }
}

// |v| = min(floor(|x| / step) + 1/2, 2^(k-1) - 1/2) away from ties, with the sign of x.
TEST_CASE("levels are the halves between multiples of the step, by sign and magnitude") {
  test::Draws draws(2);
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      for (int64_t bits = 1; bits <= 16; ++bits) {
        constexpr int64_t kN = 3000;
        constexpr float kStep = 0.0625f;
        const double top = std::ldexp(1.0, static_cast<int>(bits) - 1) - 0.5;
        std::vector<float> x = draws.floats(kN, kStep * static_cast<float>(top));
        std::erase_if(x, [](float value) { return std::rint(value / kStep) == value / kStep; });
        std::vector<int16_t> codes(x.size());
        const auto n = static_cast<int64_t>(x.size());
        const LevelSums sums = kernels::table(isa)->steer_f32s16(x.data(), n, level_grid(kStep, bits), codes.data());
        long double vx = 0, vv = 0, xx = 0;
        int64_t wrong = 0;
        for (size_t i = 0; i < x.size(); ++i) {
          const double number = x[i], magnitude = std::min(std::floor(std::fabs(number) / kStep) + 0.5, top);
          const double v = std::copysign(magnitude, number);
          wrong += codes[i] + 0.5 != v;
          vx += static_cast<long double>(v) * number;
          vv += static_cast<long double>(v) * v;
          xx += static_cast<long double>(number) * number;
        }
        const auto [least, most] = std::minmax_element(codes.begin(), codes.end());
        CAPTURE(bits);
        CHECK(wrong == 0);
        CHECK((sums.least == *least && sums.most == *most));
        CHECK(std::fabs(sums.vx - static_cast<double>(vx)) <= 1e-13 * sums.vx);
        CHECK(std::fabs(sums.vv - static_cast<double>(vv)) <= 1e-13 * sums.vv);
        CHECK(std::fabs(sums.xx - static_cast<double>(xx)) <= 1e-13 * sums.xx);
      }
    }
  }
}

TEST_CASE("codes are all integers of the width and no others") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      for (int64_t bits = 1; bits <= 10; ++bits) {
        std::vector<float> x;
        for (int i = -1100; i <= 1100; ++i) x.push_back(static_cast<float>(i) / 2);
        std::vector<int16_t> codes(x.size());
        const auto n = static_cast<int64_t>(x.size());
        kernels::table(isa)->steer_f32s16(x.data(), n, level_grid(1.0f, bits), codes.data());
        const std::set<int16_t> found(codes.begin(), codes.end());
        CAPTURE(bits);
        CHECK(static_cast<int64_t>(found.size()) == int64_t{1} << bits);
        CHECK((*found.begin() == -(1 << (bits - 1)) && *found.rbegin() == (1 << (bits - 1)) - 1));
      }
    }
  }
}

TEST_CASE("special numbers, each in every lane") {
  struct Row {
    float x;
    int8_t code;
    float y;
  };
  const Row rows[] = {{0.0f, 0, 0.5f},
                      {-0.0f, 0, 0.5f},
                      {1.0f, 0, 0.5f},
                      {2.0f, 2, 2.5f},
                      {-1.0f, -2, -1.5f},
                      {-2.0f, -2, -1.5f},
                      {1.0f + 0x1p-22f, 1, 1.5f},
                      {kInfinity, 7, 7.5f},
                      {-kInfinity, -8, -7.5f},
                      {3e38f, 7, 7.5f},
                      {-1e-45f, 0, 0.5f},
                      {kNan, 0, kNan}};
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      constexpr int64_t kN = 19;
      const LevelGrid grid = level_grid(1.0f, 4);
      for (const Row& row : rows) {
        for (int64_t at = 0; at < kN; ++at) {
          Guarded<float> x(std::vector<float>(kN, 3.5f)), y(kN);
          Guarded<int8_t> codes(kN);
          x[at] = row.x;
          const LevelSums sums = kernels::table(isa)->steer_f32s8(x.data(), kN, grid, codes.data());
          kernels::table(isa)->drive_f32f32(x.data(), kN, grid, {1.0f, 0.0f, 0.0f, 0.0f}, y.data());
          bool others = true;
          for (int64_t i = 0; i < kN; ++i) others &= i == at || (y[i] == 3.5f && codes[i] == 3);
          CAPTURE(row.x, at);
          CHECK((codes[at] == row.code && test::same(y[at], row.y) && others));
          CHECK((std::isnan(sums.vx) == std::isnan(row.x) && std::isnan(sums.vv) == std::isnan(row.x)));
          CHECK((sums.least == std::min<int32_t>(3, row.code) && sums.most == std::max<int32_t>(3, row.code)));
        }
      }
    }
  }
}

TEST_CASE("a ratio moves the value towards the number, clipped where asked") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      const std::vector<float> x = {-9.0f, -2.25f, 0.25f, 1.75f, 9.0f};
      std::vector<float> y(x.size());
      const LevelGrid grid = level_grid(1.0f, 2);
      const auto n = static_cast<int64_t>(x.size());
      kernels::table(isa)->drive_f32f32(x.data(), n, grid, {2.0f, 0.25f, -kInfinity, kInfinity}, y.data());
      CHECK(y == std::vector<float>{-4.5f, -2.8125f, 0.8125f, 2.6875f, 4.5f});
      kernels::table(isa)->drive_f32f32(x.data(), n, grid, {2.0f, 0.25f, -3.0f, 3.0f}, y.data());
      CHECK(y == std::vector<float>{-3.0f, -2.8125f, 0.8125f, 2.6875f, 3.0f});
    }
  }
}

TEST_CASE("sums run in eight interleaved partials") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      // 2^53 absorbs a 1 in its own partial only: of 39 ones, 4 are lost there and 5 added in a pair.
      for (size_t at = 0; at < 8; ++at) {
        std::vector<float> x(40, 1.0f);
        x[at] = 0x1p53f;
        const std::vector<float> ones(40, 1.0f);
        CAPTURE(at);
        CHECK(kernels::table(isa)->moments_f32(x.data(), 40, 0.0f).sum == 0x1p53 + 34);
        CHECK(kernels::table(isa)->compare_f32f32(x.data(), ones.data(), 40).xy == 0x1p53 + 34);
      }
    }
  }
}

}  // namespace
}  // namespace quintil
