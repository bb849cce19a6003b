// Quantisers that learn their step [DR D1-D8, D10-D13]: every instruction set against the scalar law on every
// combination of options, the scalar law against integers and against the definition written in double.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "csrc/core/reduce.h"
#include "csrc/kernels/dispatch.h"
#include "csrc/quantizers/double_rounding.h"
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
constexpr Rounding kRoundings[] = {Rounding::kHalfEven, Rounding::kHalfUp, Rounding::kFloor};

void set_rounding(StepGrid& grid, Rounding rounding, int64_t stored_bits, int64_t bits) {
  grid.rounding = rounding;
  grid.top = static_cast<float>(highest_reached(stored_bits, bits, rounding));
}

StepGrid grid_of(float step, float offset, int64_t stored_bits, int64_t bits, bool is_signed = true) {
  const float growth = std::ldexp(1.0f, static_cast<int>(stored_bits - bits));
  return {.divisor = step + kStepEpsilon,
          .offset = offset,
          .shrink = 1.0f / growth,
          .step = step * growth,
          .lo = static_cast<float>(lowest_code(bits, is_signed)),
          .hi = static_cast<float>(highest_code(bits, is_signed)),
          .top = static_cast<float>(highest_code(bits, is_signed)),
          .rounding = Rounding::kHalfEven,
          .stored = true,
          .mask_on_rounded = false,
          .single_residual = false};
}

// Any widths, options and steps; powers of two keep ties exact.
StepGrid random_grid(test::Draws& draws) {
  constexpr float steps[] = {0.25f, 1.0f, 0.37f, 3e-3f, 0.0f, 1e30f, kNan};
  const int64_t stored_bits = draws.between(1, 8);
  const int64_t bits = draws.between(1, stored_bits);
  StepGrid grid = grid_of(steps[draws.next() % std::size(steps)], draws.between(0, 1) == 0 ? 0.0f : 0.7f, stored_bits,
                          bits, draws.between(0, 3) != 0);
  if (grid.lo < 0) set_rounding(grid, kRoundings[draws.next() % std::size(kRoundings)], stored_bits, bits);
  grid.stored = draws.between(0, 1) != 0;
  grid.mask_on_rounded = draws.between(0, 1) != 0;
  grid.single_residual = draws.between(0, 1) != 0;
  return grid;
}

// Half of them bell-shaped over the grid or special, half on quarters of a step of y and up to two steps beyond its
// ends.
std::vector<float> elements(test::Draws& draws, int64_t n, const StepGrid& grid) {
  std::vector<float> values = draws.floats(n, grid.step * (grid.hi + 1) / 2, 40);
  for (float& value : values) {
    if (draws.between(0, 1) == 0) continue;
    const int64_t lo = static_cast<int64_t>(4 * grid.lo) - 8, hi = static_cast<int64_t>(4 * grid.hi) + 8;
    value = static_cast<float>(draws.between(lo, hi)) / 4.0f * grid.step + grid.offset;
  }
  return values;
}

bool same_sums(const StepSums& a, const StepSums& b) {
  return test::same(a.step, b.step) && test::same(a.offset, b.offset);
}

TEST_CASE("every instruction set gives the numbers and the gradients of the scalar law") {
  const KernelTable& scalar = *kernels::table("scalar");
  for (const std::string& isa : test::tested_isas()) {
    const KernelTable& table = *kernels::table(isa);
    DYNAMIC_SECTION(isa) {
      test::Draws draws(1);
      for (int64_t n : test::flattened(test::length_groups())) {
        for (int64_t gap : test::gaps()) {
          for (int repeat = 0; repeat < 12; ++repeat) {
            const StepGrid grid = random_grid(draws);
            const Guarded<float> x(elements(draws, n, grid), gap);
            Guarded<float> got(n, gap), expected(n, gap);
            scalar.lsq_f32f32(x.data(), n, grid, expected.data());
            table.lsq_f32f32(x.data(), n, grid, got.data());
            CAPTURE(n, gap, grid.divisor, grid.offset, grid.shrink, grid.lo, grid.hi, static_cast<int>(grid.rounding));
            CAPTURE(grid.stored, grid.mask_on_rounded, grid.single_residual);
            CHECK(test::first_difference(got, expected) == -1);
            CHECK(got.intact());
            if (n > kSumChunk) continue;
            const Guarded<float> g(draws.floats(n, 1.0f, repeat == 0 ? 50 : 0), gap);
            Guarded<float> dx(n, gap), expected_dx(n, gap);
            const StepSums sums = scalar.lsq_f32f32f32_backward(x.data(), g.data(), n, grid, expected_dx.data());
            CHECK(same_sums(table.lsq_f32f32f32_backward(x.data(), g.data(), n, grid, dx.data()), sums));
            CHECK(test::first_difference(dx, expected_dx) == -1);
            CHECK(dx.intact());
          }
        }
      }
    }
  }
}

TEST_CASE("a second rounding of real numbers is that of the stored integers, for all widths and rules") {
  test::Draws draws(2);
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      for (int64_t h = 1; h <= 8; ++h) {
        for (int64_t l = 1; l <= h; ++l) {
          for (const Rounding rounding : kRoundings) {
            constexpr float kStep = 0.0625f;
            StepGrid grid = grid_of(kStep, 0.0f, h, l);
            set_rounding(grid, rounding, h, l);
            std::vector<float> x = elements(draws, 500, grid_of(kStep, 0.0f, h, h));
            std::erase_if(x, [](float value) { return std::isnan(value); });
            std::vector<float> y(x.size());
            kernels::table(isa)->lsq_f32f32(x.data(), static_cast<int64_t>(x.size()), grid, y.data());
            const float lo = static_cast<float>(lowest_code(h, true)), hi = static_cast<float>(highest_code(h, true));
            std::vector<int8_t> stored(x.size()), low(x.size());
            for (size_t i = 0; i < x.size(); ++i) {
              stored[i] = static_cast<int8_t>(std::clamp(std::nearbyint(x[i] / kStep), lo, hi));
            }
            kernels::table(isa)->double_round_s8s8(
                stored.data(), static_cast<int64_t>(x.size()),
                {static_cast<int32_t>(h - l), lowest_code(l, true), highest_code(l, true), rounding}, low.data());
            bool equal = true;
            for (size_t i = 0; i < x.size(); ++i) equal &= y[i] == static_cast<float>(low[i]) * grid.step;
            CAPTURE(h, l, static_cast<int>(rounding));
            CHECK(equal);
          }
        }
      }
    }
  }
}

// D6 and D7 in double, for a grid whose step is a power of two.
TEST_CASE("gradients follow the written formulas") {
  test::Draws draws(3);
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      for (const bool rounded : {false, true}) {
        for (const bool single : {false, true}) {
          constexpr int64_t kN = 3000;
          StepGrid grid = grid_of(0.125f, 0.5f, 8, 5);
          grid.mask_on_rounded = rounded;
          grid.single_residual = single;
          const std::vector<float> x = draws.floats(kN, 20.0f), g = draws.floats(kN, 1.0f);
          std::vector<float> dx(kN);
          const StepSums got = kernels::table(isa)->lsq_f32f32f32_backward(x.data(), g.data(), kN, grid, dx.data());
          double step = 0, offset = 0;
          int64_t wrong = 0, outside_count = 0;
          for (size_t i = 0; i < x.size(); ++i) {
            const double u = (static_cast<double>(x[i]) - 0.5) / (0.125 * 8);
            const double t = std::nearbyint(std::nearbyint((static_cast<double>(x[i]) - 0.5) / 0.125) / 8);
            const double tested = rounded ? t : u, q = std::clamp(single ? std::nearbyint(u) : t, -16.0, 15.0);
            const bool outside = tested < -16 || tested > 15;
            step += static_cast<double>(g[i]) * (tested < -16 ? -16 : tested > 15 ? 15 : q - u);
            offset += outside ? static_cast<double>(g[i]) : 0;
            wrong += dx[i] != (outside ? 0.0f : g[i]);
            outside_count += outside;
          }
          CAPTURE(rounded, single);
          CHECK(outside_count > kN / 4);
          CHECK(outside_count < 3 * kN / 4);
          CHECK(wrong == 0);
          CHECK(std::fabs(got.step - step) < 1e-4 * static_cast<double>(kN));
          CHECK(std::fabs(got.offset - offset) < 1e-9 * static_cast<double>(kN));
        }
      }
    }
  }
}

TEST_CASE("sums run in eight interleaved partials") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      // All elements lie above the grid, so the step receives g * hi and the offset g. 2^53 absorbs a 1 in its own
      // partial only.
      const StepGrid grid = grid_of(1.0f, 0.0f, 1, 1);
      const std::vector<float> x(40, 5.0f);
      std::vector<float> dx(x.size());
      for (size_t at = 0; at < 8; ++at) {
        std::vector<float> g(x.size(), 1.0f);
        g[at] = 0x1p53f;
        const StepSums sums = kernels::table(isa)->lsq_f32f32f32_backward(x.data(), g.data(), 40, grid, dx.data());
        CAPTURE(at);
        CHECK(sums.step ==
              0x1p53 + 34);  // of 39 ones, 4 are lost in the partial of the large one and 5 added in a pair
        CHECK(sums.offset == sums.step);
      }
    }
  }
}

TEST_CASE("values and gradients of special numbers, each in every lane") {
  struct Row {
    float x, y, dx;
  };
  const Row rows[] = {{kNan, kNan, 1}, {kInfinity, 7, 0}, {-kInfinity, -8, 0}, {0.0f, 0, 1},
                      {-0.0f, 0, 1},   {0.5f, 0, 1},      {1.5f, 2, 1},        {7.0f, 7, 1},
                      {7.25f, 7, 0},   {-8.0f, -8, 1},    {-8.00001f, -8, 0},  {3e38f, 7, 0}};
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      constexpr int64_t kN = 19;
      const StepGrid grid = grid_of(1.0f, 0.0f, 4, 4);
      for (const Row& row : rows) {
        for (int64_t at = 0; at < kN; ++at) {
          Guarded<float> x(std::vector<float>(kN, 3.0f)), y(kN), dx(kN);
          const Guarded<float> g(std::vector<float>(kN, 1.0f));
          x[at] = row.x;
          kernels::table(isa)->lsq_f32f32(x.data(), kN, grid, y.data());
          const StepSums sums = kernels::table(isa)->lsq_f32f32f32_backward(x.data(), g.data(), kN, grid, dx.data());
          bool others = true;
          for (int64_t i = 0; i < kN; ++i) others &= i == at || (y[i] == 3.0f && dx[i] == 1.0f);
          CAPTURE(row.x, at);
          CHECK((test::same(y[at], row.y) && dx[at] == row.dx && others));
          CHECK(std::isnan(sums.step) == std::isnan(row.x));
        }
      }
    }
  }
}

}  // namespace
}  // namespace quintil
