// Time steps of recurrent layers [VECQ V10]: the logistic function and the tangent of the law against those of the C library in
// double, the cells against their formulas in double, and every instruction set against the scalar law.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "csrc/kernels/dispatch.h"
#include "csrc/quantizers/recurrent.h"
#include "tests/cpp/catch.h"
#include "tests/cpp/draws.h"
#include "tests/cpp/guarded.h"
#include "tests/cpp/shapes.h"

namespace quintil {
namespace {

using kernels::KernelTable;
using test::Guarded;

double logistic_in_double(double x) {
  return 1.0 / (1.0 + std::exp(-x));
}

// Distance in units of the last place of `exact` as float32.
double units(float got, double exact) {
  const auto rounded = static_cast<float>(exact);
  const float unit = std::nextafter(std::fabs(rounded), INFINITY) - std::fabs(rounded);
  return std::fabs(static_cast<double>(got) - exact) / static_cast<double>(unit);
}

TEST_CASE("logistic and hyperbolic_tangent lie within 3 units in the last place") {
  double worst_logistic = 0, worst_tangent = 0;
  for (int i = -400'000; i <= 400'000; ++i) {
    const float wide = static_cast<float>(i) * 2e-4f;     // +-80
    const float close = static_cast<float>(i) * 2.5e-6f;  // +-1
    for (const float x : {wide, close, close * 1e-6f}) {
      worst_logistic = std::max(worst_logistic, units(logistic(x), logistic_in_double(x)));
      worst_tangent = std::max(worst_tangent, units(hyperbolic_tangent(x), std::tanh(static_cast<double>(x))));
    }
  }
  CAPTURE(worst_logistic, worst_tangent);
  CHECK(worst_logistic < 3);
  CHECK(worst_tangent < 3);
}

TEST_CASE("logistic and hyperbolic_tangent at the ends of the range") {
  constexpr float infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  CHECK(logistic(0.0f) == 0.5f);
  CHECK(logistic(infinity) == 1.0f);
  CHECK(logistic(-infinity) < 2e-38f);
  CHECK(logistic(-1000.0f) == logistic(-infinity));
  CHECK(std::isnan(logistic(nan)));
  CHECK(hyperbolic_tangent(infinity) == 1.0f);
  CHECK(hyperbolic_tangent(-infinity) == -1.0f);
  CHECK(std::isnan(hyperbolic_tangent(nan)));
}

// Both products, the part of the input, a bias and the state before, [rows, cols] for each gate.
struct Step {
  int64_t rows, hidden, gates;
  Guarded<float> low, high, part, bias, before;

  Step(test::Draws& draws, const test::Matrix& m, int64_t gates, int64_t rarity, int64_t gap)
      : rows(m.rows),
        hidden(m.cols),
        gates(gates),
        low(draws.floats(rows * gates * hidden, 1.0f, rarity), gap),
        high(draws.floats(rows * gates * hidden, 0.01f, rarity), gap),
        part(draws.floats(rows * gates * hidden, 2.0f, rarity), gap),
        bias(draws.floats(gates * hidden, 0.5f, rarity), gap),
        before(draws.floats(rows * hidden, 1.0f, rarity), gap) {}
};

struct LstmResult {
  Guarded<float> cell, state;

  LstmResult(const KernelTable& table, const Step& s, int64_t gap)
      : cell(std::vector<float>(s.before.data(), s.before.data() + s.before.size()), gap), state(s.before.size(), gap) {
    table.lstm_cell_f32(s.low.data(), s.high.data(), s.part.data(), s.rows, s.hidden, cell.data(), state.data());
  }
};

Guarded<float> gru_result(const KernelTable& table, const Step& s, int64_t gap) {
  Guarded<float> out(s.before.size(), gap);
  table.gru_cell_f32(s.low.data(), s.high.data(), s.bias.data(), s.part.data(), s.rows, s.hidden, s.before.data(),
                     out.data());
  return out;
}

TEST_CASE("every instruction set makes the states of the scalar law") {
  const KernelTable& law = *kernels::table("scalar");
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      const KernelTable& table = *kernels::table(isa);
      test::Draws draws(1);
      for (const test::Matrices& group : test::matrix_groups()) {
        for (const test::Matrix& m : group.values) {
          const int64_t gap = test::gaps()[draws.next() % test::gaps().size()], rarity = 20 * draws.between(0, 1);
          const Step lstm(draws, m, 4, rarity, gap), gru(draws, m, 3, rarity, gap);
          const LstmResult got(table, lstm, gap), expected(law, lstm, 0);
          const Guarded<float> next = gru_result(table, gru, gap), wanted = gru_result(law, gru, 0);
          CAPTURE(group.hunts, m.rows, m.cols, gap, rarity);
          CHECK(test::first_difference(got.cell, expected.cell) == -1);
          CHECK(test::first_difference(got.state, expected.state) == -1);
          CHECK(test::first_difference(next, wanted) == -1);
          CHECK((got.cell.intact() && got.state.intact() && next.intact()));
        }
      }
    }
  }
}

TEST_CASE("cells follow their formulas") {
  test::Draws draws(2);
  const KernelTable& law = *kernels::table("scalar");
  const Step lstm(draws, {5, 19}, 4, 0, 0), gru(draws, {5, 19}, 3, 0, 0);
  const LstmResult got(law, lstm, 0);
  const Guarded<float> next = gru_result(law, gru, 0);
  double worst = 0;
  for (int64_t r = 0; r < 5; ++r) {
    for (int64_t j = 0; j < 19; ++j) {
      const auto sum = [&](const Step& s, int64_t which) {
        const int64_t i = (s.gates * r + which) * 19 + j;
        return double{s.low.data()[i]} + 256.0 * double{s.high.data()[i]};
      };
      const auto part = [&](const Step& s, int64_t which) {
        return double{s.part.data()[(s.gates * r + which) * 19 + j]};
      };
      const auto gate = [&](int64_t which) { return sum(lstm, which) + part(lstm, which); };
      const auto of_state = [&](int64_t which) { return sum(gru, which) + double{gru.bias.data()[which * 19 + j]}; };
      const int64_t i = r * 19 + j;
      const double cell = logistic_in_double(gate(1)) * double{lstm.before.data()[i]} +
                          logistic_in_double(gate(0)) * std::tanh(gate(2));
      const double reset = logistic_in_double(part(gru, 0) + of_state(0));
      const double update = logistic_in_double(part(gru, 1) + of_state(1));
      const double fresh = std::tanh(part(gru, 2) + reset * of_state(2));
      worst = std::max({worst, std::fabs(double{got.cell.data()[i]} - cell),
                        std::fabs(double{got.state.data()[i]} - logistic_in_double(gate(3)) * std::tanh(cell)),
                        std::fabs(double{next.data()[i]} - (fresh + update * (double{gru.before.data()[i]} - fresh)))});
    }
  }
  CAPTURE(worst);
  CHECK(worst < 2e-6);
}

}  // namespace
}  // namespace quintil
