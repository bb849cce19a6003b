// Sums scaled by column: each factor its own rounding in the written order (N9), the bias last.
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

// Every product and sum of two floats is exact in double, so that converting it back rounds once.
float once(double exact) {
  return static_cast<float>(exact);
}

float expected_value(int32_t total, float column, const ColumnEpilogue& e, int64_t c) {
  float value = once(total);
  for (const float factor : {column, e.scale, e.inverse}) {
    value = once(static_cast<double>(value) * static_cast<double>(factor));
  }
  return e.bias == nullptr ? value : once(static_cast<double>(value) + static_cast<double>(e.bias[c]));
}

TEST_CASE("scale_s32f32_columns rounds after every factor and adds the bias of the column") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      test::Draws draws(1);
      for (const auto& [rows, cols] : test::flattened(test::matrix_groups())) {
        for (int64_t gap : test::gaps()) {
          for (const bool with_bias : {false, true}) {
            const int64_t ld = cols + draws.between(0, 3), out_ld = cols + draws.between(0, 3);
            const auto size = [&](int64_t stride) { return rows == 0 || cols == 0 ? 0 : (rows - 1) * stride + cols; };
            const int32_t most = draws.between(0, 1) == 0 ? 2147483647 : 3000;
            const Guarded<int32_t> x(draws.integers<int32_t>(size(ld), -most, most), gap);
            const Guarded<float> column(draws.floats(cols, 0.01f), gap), bias(draws.floats(cols, 5.0f), gap);
            const ColumnEpilogue e{column.data(), 0.37f, 0.25f, with_bias ? bias.data() : nullptr};
            Guarded<float> out(size(out_ld), gap), expected(size(out_ld), gap);
            for (int64_t r = 0; r < rows; ++r) {
              for (int64_t c = 0; c < cols; ++c) {
                expected[r * out_ld + c] = expected_value(x[r * ld + c], column[c], e, c);
              }
            }
            kernels::table(isa)->scale_s32f32_columns(x.data(), rows, cols, ld, e, out.data(), out_ld);
            CAPTURE(rows, cols, ld, out_ld, gap, with_bias, test::first_difference(out, expected));
            CHECK(test::first_difference(out, expected) == -1);
            CHECK(out.intact());
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace quintil
