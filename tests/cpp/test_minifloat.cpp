// Floats with a list of significands [HDQT H18, H19, H22]: every instruction set against the scalar law, the scalar law
// against the nearest of all numbers of a format, and its chances.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "csrc/kernels/dispatch.h"
#include "csrc/quantizers/minifloat.h"
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

// A format at a scale: owns what the grid points to.
struct Format {
  std::vector<int> bits;
  int exponent;
  std::vector<float> steps, inverses;

  Format(std::vector<int> significands, int scale) : bits(std::move(significands)), exponent(scale) {
    for (size_t d = 0; d < bits.size(); ++d) {
      steps.push_back(std::ldexp(1.0f, scale + 1 - static_cast<int>(d) - bits[d]));
      inverses.push_back(1.0f / steps.back());
    }
  }

  MinifloatGrid grid() const {
    const float top = std::ldexp(1.0f, exponent + 1) - steps[0];
    return {steps.data(), inverses.data(), static_cast<int32_t>(bits.size()), exponent + 127, top};
  }

  // All magnitudes, ascending.
  std::vector<double> magnitudes() const {
    std::vector<double> found = {0};
    for (size_t d = 0; d < bits.size(); ++d) {
      const double top = std::ldexp(1.0, exponent + 1 - static_cast<int>(d));
      for (double value = top / 2; value < top; value += steps[d]) {
        if (std::fmod(value, steps[d]) == 0) found.push_back(value);
      }
      found.push_back(std::ceil(top / 2 / steps[d]) * steps[d]);
    }
    std::sort(found.begin(), found.end());
    found.erase(std::unique(found.begin(), found.end()), found.end());
    while (found.back() > grid().top) found.pop_back();
    return found;
  }
};

const std::vector<int> kFp134 = {5, 5, 5, 5, 5, 5, 5, 4, 3, 2, 1, 0};
const std::vector<int> kFp130 = {1, 1, 1, 1, 1, 1, 1, 0};

std::vector<Format> formats() {
  std::vector<int> master(63, 10);
  for (int i = 9; i >= 0; --i) master.push_back(i);
  return {{kFp134, 0}, {kFp134, -9}, {kFp130, 3}, {master, 32}, {{24, 3, 7}, 60}, {{1}, 0}, {kFp134, -110}};
}

// Half of them bell-shaped over the format or special, half on and between its steps.
std::vector<float> elements(test::Draws& draws, int64_t n, const Format& format) {
  std::vector<float> values = draws.floats(n, std::ldexp(1.0f, format.exponent), 20);
  for (float& value : values) {
    if (draws.between(0, 1) == 0) continue;
    const float step = format.steps[draws.next() % format.steps.size()];
    value = static_cast<float>(draws.between(-130, 130)) / 4 * step;
  }
  return values;
}

void check_length(const KernelTable& table, test::Draws& draws, const Format& format, int64_t n, int64_t gap) {
  const Guarded<float> x(elements(draws, n, format), gap), previous(elements(draws, n, format), gap);
  Guarded<float> got(n, gap), expected(n, gap);
  const KernelTable& scalar = *kernels::table("scalar");
  CAPTURE(n, gap, format.exponent, format.bits.size());
  scalar.minifloat_f32f32(x.data(), n, format.grid(), expected.data());
  table.minifloat_f32f32(x.data(), n, format.grid(), got.data());
  CHECK(test::first_difference(got, expected) == -1);
  scalar.minifloat_f32f32f32_hysteresis(x.data(), previous.data(), n, format.grid(), expected.data());
  table.minifloat_f32f32f32_hysteresis(x.data(), previous.data(), n, format.grid(), got.data());
  CHECK(test::first_difference(got, expected) == -1);
  CHECK(got.intact());
}

void check_matrix(const KernelTable& table, test::Draws& draws, const Format& format, const test::Matrix& m,
                  int64_t gap) {
  const int64_t n = m.rows * m.cols, row0 = draws.between(0, 1) == 0 ? 3 : (int64_t{1} << 32) - 2;
  const Guarded<float> x(elements(draws, n, format), gap);
  Guarded<float> got(n, gap), expected(n, gap);
  const Draw draw{static_cast<uint32_t>(draws.next()), 5, 0, 16};
  kernels::table("scalar")->minifloat_f32f32_stochastic(x.data(), m.rows, m.cols, format.grid(), draw, row0,
                                                        expected.data());
  table.minifloat_f32f32_stochastic(x.data(), m.rows, m.cols, format.grid(), draw, row0, got.data());
  CAPTURE(m.rows, m.cols, gap, format.exponent, format.bits.size());
  CHECK(test::first_difference(got, expected) == -1);
  CHECK(got.intact());
}

TEST_CASE("every instruction set gives the numbers of the scalar law") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      test::Draws draws(1);
      for (const Format& format : formats()) {
        for (int64_t gap : test::gaps()) {
          for (int64_t n : test::flattened(test::length_groups())) {
            check_length(*kernels::table(isa), draws, format, n, gap);
          }
          for (const test::Matrices& group : test::matrix_groups()) {
            for (const test::Matrix& m : group.values) check_matrix(*kernels::table(isa), draws, format, m, gap);
          }
        }
      }
    }
  }
}

TEST_CASE("FP134 has 255 numbers up to 1.9375, FP130 has 15 up to 1 [HDQT T13]") {
  CHECK(Format(kFp134, 0).magnitudes().size() == 128);
  CHECK(Format(kFp134, 0).magnitudes().back() == 1.9375);
  CHECK(Format(kFp134, 0).magnitudes()[1] == 0x1p-10);
  CHECK(Format(kFp130, 0).magnitudes().size() == 8);
  CHECK(Format(kFp130, 0).magnitudes().back() == 1.0);
  CHECK(Format(kFp130, 0).magnitudes()[1] == 0x1p-6);
}

TEST_CASE("the nearest number of the format, and the one on the side of the previous") {
  test::Draws draws(2);
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      for (const Format& format : {Format(kFp134, 0), Format(kFp130, 0), Format(kFp134, -9)}) {
        const std::vector<double> all = format.magnitudes();
        std::vector<float> x = draws.floats(4000, std::ldexp(1.0f, format.exponent - 2)), nearest(x), down(x), up(x);
        const std::vector<float> low(x.size(), -kInfinity), high(x.size(), kInfinity);
        const auto n = static_cast<int64_t>(x.size());
        const KernelTable& table = *kernels::table(isa);
        table.minifloat_f32f32(x.data(), n, format.grid(), nearest.data());
        table.minifloat_f32f32f32_hysteresis(x.data(), low.data(), n, format.grid(), down.data());
        table.minifloat_f32f32f32_hysteresis(x.data(), high.data(), n, format.grid(), up.data());
        int64_t wrong = 0;
        for (size_t i = 0; i < x.size(); ++i) {
          const double size = std::min<double>(std::fabs(x[i]), all.back());
          const auto above = std::lower_bound(all.begin(), all.end(), size);
          const double more = *above, less = *above == size ? size : *(above - 1);
          const double lower = x[i] < 0 ? -more : less, upper = x[i] < 0 ? -less : more;
          wrong += std::fabs(std::fabs(nearest[i]) - size) > std::min(more - size, size - less);
          wrong += down[i] != lower || up[i] != upper;
        }
        CAPTURE(format.exponent, format.bits.size());
        CHECK(wrong == 0);
      }
    }
  }
}

TEST_CASE("stochastic rounding takes the upper number in proportion") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      constexpr int64_t kN = 100'000;
      const Format format(kFp134, 0);
      struct Row {
        float x, lower, upper;
      };
      const float fine = 0x1p-4f;  // the step of [1, 2)
      for (const Row& row : {Row{1.0f + 0.25f * fine, 1, 1 + fine}, Row{1.0f + 0.9f * fine, 1, 1 + fine},
                             Row{1.0f, 1, 1 + fine}, Row{0.3f * 0x1p-10f, 0, 0x1p-10f}, Row{0x1p-20f, 0, 0x1p-10f}}) {
        for (const float sign : {1.0f, -1.0f}) {
          const std::vector<float> x(kN, sign * row.x);
          std::vector<float> y(kN);
          kernels::table(isa)->minifloat_f32f32_stochastic(x.data(), 100, kN / 100, format.grid(), {7, 9, 0, 16}, 0,
                                                           y.data());
          int64_t ups = 0, wrong = 0;
          for (const float value : y) {
            ups += sign * value == row.upper;
            wrong += sign * value != row.upper && sign * value != row.lower;
          }
          CAPTURE(row.x, sign, ups);
          CHECK(wrong == 0);
          CHECK(test::within_five_sigma(ups, kN, (row.x - row.lower) / (row.upper - row.lower), 0x1p-17));
        }
      }
    }
  }
}

TEST_CASE("special numbers") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      const Format format(kFp134, 0);
      const std::vector<float> x = {0.0f,    -0.0f, kInfinity, -kInfinity, kNan, 1e-45f,
                                    -1e-45f, 3e38f, 2.0f,      -1.97f,     0.0f};
      std::vector<float> y(x.size());
      kernels::table(isa)->minifloat_f32f32(x.data(), static_cast<int64_t>(x.size()), format.grid(), y.data());
      const std::vector<float> expected = {0.0f,  -0.0f,   1.9375f, -1.9375f, kNan, 0.0f,
                                           -0.0f, 1.9375f, 1.9375f, -1.9375f, 0.0f};
      CHECK(test::first_difference(y, expected) == -1);
    }
  }
}

}  // namespace
}  // namespace quintil
