// Column sums in the fixed order of N8: rows ascending, one float32 addition after another, starting from 0.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "csrc/kernels/dispatch.h"
#include "tests/cpp/catch.h"
#include "tests/cpp/draws.h"
#include "tests/cpp/guarded.h"
#include "tests/cpp/shapes.h"

namespace quintil {
namespace {

using test::Guarded;

// One column on its own; float(double sum of two floats) rounds once.
float column_sum(const float* x, int64_t rows, int64_t ld) {
  float sum = 0.0f;
  for (int64_t r = 0; r < rows; ++r)
    sum = static_cast<float>(static_cast<double>(sum) + static_cast<double>(x[r * ld]));
  return sum;
}

TEST_CASE("sum_rows_f32 adds rows in ascending order") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      test::Draws draws(1);
      for (const test::Matrices& group : test::matrix_groups()) {
        for (const auto& [rows, cols] : group.values) {
          for (int64_t gap : test::gaps()) {
            for (int64_t rarity : {0, 40}) {
              const int64_t ld = cols + draws.between(0, 3);
              const Guarded<float> x(draws.floats(rows == 0 ? 0 : (rows - 1) * ld + cols, 100.0f, rarity), gap);
              Guarded<float> out(cols, gap);
              std::vector<float> expected;
              for (int64_t c = 0; c < cols; ++c) expected.push_back(column_sum(x.data() + c, rows, ld));
              kernels::table(isa)->sum_rows_f32(x.data(), rows, cols, ld, out.data());
              CAPTURE(group.hunts, rows, cols, ld, gap, test::first_difference(out, expected));
              CHECK(test::first_difference(out, expected) == -1);
              CHECK(out.intact());
            }
          }
        }
      }
    }
  }
}

TEST_CASE("the order of rows decides the bits of the sum") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      // 2^24 absorbs each 1 that follows it; ones that come first survive.
      std::vector<float> x(9, 1.0f);
      x[0] = 0x1p24f;
      Guarded<float> descending(1), ascending(1);
      kernels::table(isa)->sum_rows_f32(x.data(), 9, 1, 1, descending.data());
      std::reverse(x.begin(), x.end());
      kernels::table(isa)->sum_rows_f32(x.data(), 9, 1, 1, ascending.data());
      CHECK(descending[0] == 0x1p24f);
      CHECK(ascending[0] == 0x1p24f + 8);
    }
  }
}

TEST_CASE("the sum of no rows is 0, that of -0.0 is +0.0") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      Guarded<float> out(37);
      kernels::table(isa)->sum_rows_f32(nullptr, 0, 37, 37, out.data());
      CHECK(test::first_difference(out, std::vector<float>(37, 0.0f)) == -1);
      const std::vector<float> negative_zeros(37, -0.0f);
      kernels::table(isa)->sum_rows_f32(negative_zeros.data(), 1, 37, 37, out.data());
      CHECK(test::first_difference(out, std::vector<float>(37, 0.0f)) == -1);
    }
  }
}

}  // namespace
}  // namespace quintil
