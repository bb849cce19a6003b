// Matrices scaled by column: each factor and summand its own rounding in the written order (N9), then codes.
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

// Every product and sum of two floats is exact in double, so that converting it back rounds once.
float once(double exact) {
  return static_cast<float>(exact);
}

float once(float a, char op, float b) {
  const double x = static_cast<double>(a), y = static_cast<double>(b);
  return once(op == '*' ? x * y : x + y);
}

// What a test varies: strides, and which parts of the epilogue there are.
struct Case {
  int64_t rows, cols, gap, ld, out_ld, residual_ld;
  bool bias, residual, relu;

  int64_t size(int64_t stride) const { return rows == 0 || cols == 0 ? 0 : (rows - 1) * stride + cols; }
};

template <class F>
void for_each_case(F f) {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      test::Draws draws(1);
      for (const auto& [rows, cols] : test::flattened(test::matrix_groups())) {
        for (const int64_t gap : test::gaps()) {
          for (int parts = 0; parts < 8; ++parts) {
            const auto stride = [&] { return cols + draws.between(0, 3); };
            const Case now{rows,      cols, gap, stride(), stride(), stride(), (parts & 1) != 0, (parts & 2) != 0,
                           parts >= 4};
            CAPTURE(rows, cols, gap, now.ld, now.out_ld, now.residual_ld, now.bias, now.residual, now.relu);
            f(*kernels::table(isa), now, draws);
          }
        }
      }
    }
  }
}

float expected_value(int32_t total, const ColumnEpilogue& e, int64_t r, int64_t c) {
  float value =
      once(once(once(once(static_cast<double>(total)), '*', e.column_scale[c]), '*', e.scale), '*', e.inverse);
  if (e.bias != nullptr) value = once(value, '+', e.bias[c]);
  if (e.residual != nullptr) value = once(value, '+', e.residual[r * e.residual_ld + c]);
  return e.relu && value < 0 ? 0.0f : value;
}

// The integer nearest to a quotient, ties to even, cut to 0..top.
uint8_t expected_code(float value, const CodeGrid& grid) {
  const double quotient = static_cast<double>(value / grid.divisor);
  if (quotient != quotient) return static_cast<uint8_t>(grid.zero);
  const double cut = std::clamp(std::nearbyint(quotient), static_cast<double>(grid.lo), static_cast<double>(grid.hi));
  return static_cast<uint8_t>(static_cast<int32_t>(cut) + grid.zero);
}

// Sums of a case and their epilogue.
struct Sums {
  Guarded<int32_t> x;
  Guarded<float> column, bias, residual;
  ColumnEpilogue e;

  Sums(const Case& now, test::Draws& draws, int32_t most)
      : x(draws.integers<int32_t>(now.size(now.ld), -most, most), now.gap),
        column(draws.floats(now.cols, 0.01f), now.gap),
        bias(draws.floats(now.cols, 5.0f), now.gap),
        residual(draws.floats(now.size(now.residual_ld), 5.0f), now.gap),
        e{column.data(),   0.37f,   0.25f, now.bias ? bias.data() : nullptr, now.residual ? residual.data() : nullptr,
          now.residual_ld, now.relu} {}
};

template <class T, class F>
void fill(Guarded<T>& out, const Case& now, F value) {
  for (int64_t r = 0; r < now.rows; ++r) {
    for (int64_t c = 0; c < now.cols; ++c) out[r * now.out_ld + c] = value(r, c);
  }
}

TEST_CASE("scale_s32f32_columns rounds after every factor, adds bias and residual, and rectifies") {
  for_each_case([](const kernels::KernelTable& k, const Case& now, test::Draws& draws) {
    const Sums sums(now, draws, draws.between(0, 1) == 0 ? 2147483647 : 3000);
    Guarded<float> out(now.size(now.out_ld), now.gap), expected(now.size(now.out_ld), now.gap);
    fill(expected, now, [&](int64_t r, int64_t c) { return expected_value(sums.x[r * now.ld + c], sums.e, r, c); });
    k.scale_s32f32_columns(sums.x.data(), now.rows, now.cols, now.ld, sums.e, out.data(), now.out_ld);
    CAPTURE(test::first_difference(out, expected));
    CHECK(test::first_difference(out, expected) == -1);
    CHECK(out.intact());
  });
}

TEST_CASE("scale_s32u8_columns gives the nearest codes of those numbers") {
  for_each_case([](const kernels::KernelTable& k, const Case& now, test::Draws& draws) {
    const Sums sums(now, draws, 3000);
    const CodeGrid grid{draws.between(0, 1) == 0 ? 0.04f : 0.5f, 0, draws.between(0, 1) == 0 ? 255 : 15, 0};
    Guarded<uint8_t> out(now.size(now.out_ld), now.gap), expected(now.size(now.out_ld), now.gap);
    fill(expected, now, [&](int64_t r, int64_t c) {
      return expected_code(expected_value(sums.x[r * now.ld + c], sums.e, r, c), grid);
    });
    k.scale_s32u8_columns(sums.x.data(), now.rows, now.cols, now.ld, sums.e, grid, out.data(), now.out_ld);
    CAPTURE(test::first_difference(out, expected));
    CHECK(test::first_difference(out, expected) == -1);
    CHECK(out.intact());
  });
}

TEST_CASE("quantize_f32u8_columns gives the nearest codes of x * gain + shift") {
  for_each_case([](const kernels::KernelTable& k, const Case& now, test::Draws& draws) {
    Guarded<float> x(draws.floats(now.size(now.ld), 3.0f), now.gap);
    const Guarded<float> gain(draws.floats(now.cols, 2.0f), now.gap), shift(draws.floats(now.cols, 1.0f), now.gap);
    if (now.bias && now.size(now.ld) > 0) x[now.size(now.ld) - 1] = __builtin_nanf("");
    const CodeGrid grid = now.relu ? CodeGrid{0.01f, 0, 255, 0} : CodeGrid{0.05f, -128, 127, now.residual ? 128 : 0};
    Guarded<uint8_t> out(now.size(now.out_ld), now.gap), expected(now.size(now.out_ld), now.gap);
    fill(expected, now, [&](int64_t r, int64_t c) {
      return expected_code(once(once(x[r * now.ld + c], '*', gain[c]), '+', shift[c]), grid);
    });
    k.quantize_f32u8_columns(x.data(), now.rows, now.cols, now.ld, gain.data(), shift.data(), grid, out.data(),
                             now.out_ld);
    CAPTURE(test::first_difference(out, expected));
    CHECK(test::first_difference(out, expected) == -1);
    CHECK(out.intact());
  });
}

}  // namespace
}  // namespace quintil
