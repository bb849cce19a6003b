// Gradients of LUQ [HDQT H15, H16]: every instruction set against the scalar law, the scalar law against levels chosen
// by comparison in double, and its chances.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "csrc/core/philox.h"
#include "csrc/kernels/dispatch.h"
#include "csrc/quantizers/luq.h"
#include "tests/cpp/catch.h"
#include "tests/cpp/draws.h"
#include "tests/cpp/guarded.h"
#include "tests/cpp/shapes.h"

namespace quintil {
namespace {

using kernels::KernelTable;
using test::Guarded;

Draw random_draw(test::Draws& draws) {
  return {static_cast<uint32_t>(draws.next()), static_cast<uint32_t>(draws.next()),
          16 + static_cast<uint32_t>(draws.between(0, 9)), 16};
}

// Bell-shaped, on levels, and next to them; |x| <= 64 alpha.
std::vector<float> elements(test::Draws& draws, int64_t n, float alpha) {
  std::vector<float> values(static_cast<size_t>(n));
  for (float& value : values) {
    const int64_t kind = draws.between(0, 4);
    const float level = std::ldexp(alpha, static_cast<int>(draws.between(-8, 5)));
    if (kind == 0) value = draws.between(0, 1) == 0 ? 0.0f : -0.0f;
    if (kind == 1) value = level;
    if (kind == 2) value = std::nextafter(level, 0.0f);
    if (kind == 3) value = std::nextafter(level, 64 * alpha);
    if (kind == 4) value = draws.bell() * 10 * alpha;
    if (draws.between(0, 1) == 0) value = -value;
  }
  return values;
}

void check_matrix(const KernelTable& table, test::Draws& draws, const test::Matrix& m, int64_t gap) {
  constexpr float alphas[] = {1.0f, 0.37f, 3e-5f, 0x1p-126f};
  const float alpha = alphas[draws.next() % std::size(alphas)];
  const int64_t n = m.rows * m.cols;
  const int64_t row0 = draws.between(0, 1) == 0 ? 5 : (int64_t{1} << 32) - 2;
  const Draw draw = random_draw(draws);
  const Guarded<float> x(elements(draws, n, alpha), gap);
  const std::vector<float> before = draws.floats(n, 3.0f);
  Guarded<float> got(before, gap), expected(before, gap);
  Guarded<int8_t> codes(n, gap), law(n, gap);
  const KernelTable& scalar = *kernels::table("scalar");
  scalar.luq_f32f32(x.data(), m.rows, m.cols, alpha, draw, row0, expected.data());
  table.luq_f32f32(x.data(), m.rows, m.cols, alpha, draw, row0, got.data());
  scalar.luq_f32s8(x.data(), m.rows, m.cols, alpha, draw, row0, law.data());
  table.luq_f32s8(x.data(), m.rows, m.cols, alpha, draw, row0, codes.data());
  CAPTURE(m.rows, m.cols, gap, alpha);
  CHECK(test::first_difference(got, expected) == -1);
  CHECK(test::first_difference(codes, law) == -1);
  CHECK((got.intact() && codes.intact()));
}

TEST_CASE("every instruction set draws the levels of the scalar law") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      test::Draws draws(1);
      for (const test::Matrices& group : test::matrix_groups()) {
        for (const test::Matrix& m : group.values) {
          for (int64_t gap : test::gaps()) check_matrix(*kernels::table(isa), draws, m, gap);
        }
      }
    }
  }
}

// The two levels around |x|, found by comparing, and the chance of the upper one by linear interpolation.
TEST_CASE("a number goes to the upper of its two levels in proportion") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      constexpr int64_t kN = 100'000;
      constexpr float kAlpha = 0.0625f;
      for (const float v : {0.0f, 0.01f, 0.5f, 0.9f, 1.0f, 1.25f, 1.9f, 2.0f, 3.0f, 12.0f, 33.0f, 64.0f}) {
        double lower = 0, upper = 1;
        while (v >= upper) {
          lower = upper;
          upper *= 2;
        }
        for (const float sign : {1.0f, -1.0f}) {
          const std::vector<float> x(kN, sign * v * kAlpha);
          std::vector<int8_t> codes(kN);
          kernels::table(isa)->luq_f32s8(x.data(), 100, kN / 100, kAlpha, {7, 9, 16, 16}, 0, codes.data());
          int64_t ups = 0, wrong = 0;
          for (const int8_t code : codes) {
            const double level = sign * code;
            ups += level == upper;
            wrong += level != lower && level != upper;
          }
          CAPTURE(v, sign, ups);
          CHECK(wrong == 0);
          CHECK(test::within_five_sigma(ups, kN, (v - lower) / (upper - lower), 0x1p-17));
        }
      }
    }
  }
}

TEST_CASE("alpha is a power of two below the range, zero of zero, NaN of what is not finite") {
  CHECK(luq_alpha(3.0f, 6) == 3.0f / 64);
  CHECK(luq_alpha(0.0f, 6) == 0.0f);
  CHECK(luq_alpha(1e-40f, 6) == 0x1p-126f);
  CHECK(std::isnan(luq_alpha(std::numeric_limits<float>::infinity(), 6)));
  CHECK(std::isnan(luq_alpha(std::numeric_limits<float>::quiet_NaN(), 6)));
}

TEST_CASE("the clip of SAWB, and where its formula is not positive") {
  CHECK(sawb_range(2.0, 2.0, 2, 1.0) == 1.0);  // numbers of one size: -0.1 of it
  CHECK(sawb_range(0.0, 0.0, 0, 0.0) == 0.0);  // of nothing
  CHECK(sawb_range(25.0, 7.0, 2, 4.0) == 12.1 * std::sqrt(12.5) - 12.2 * 3.5);
}

}  // namespace
}  // namespace quintil
