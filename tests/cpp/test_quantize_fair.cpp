// Stochastic rounding is unbiased (N5): the share of values rounded up fits the fraction within 5 sigma and the half bit
// of the stated bias; integers never move; no code is further than one step away or on the other side of zero.
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "csrc/core/philox.h"
#include "csrc/kernels/dispatch.h"
#include "tests/cpp/catch.h"
#include "tests/cpp/draws.h"
#include "tests/cpp/shapes.h"

namespace quintil {
namespace {

using kernels::KernelTable;

constexpr int64_t kRows = 1000, kCols = 1000, kDraws = kRows * kCols;
constexpr float kFractions[] = {0.0f, 0x1p-16f, 0.01f, 0.25f, 0.5f, 0.9f};
constexpr CodeGrid kGrid{1.0f, -127, 127, 128};

double stated_bias(int bits) {
  return bits == 16 ? 0x1p-17 : 0x1p-9;
}

void quantize(const KernelTable& t, const std::vector<float>& x, const CodeGrid& grid, const Draw& draw, uint8_t* out) {
  t.quantize_f32u8_stochastic(x.data(), kRows, kCols, kCols, grid, draw, 0, out, kCols);
}
void quantize(const KernelTable& t, const std::vector<int16_t>& x, const CodeGrid& grid, const Draw& draw,
              uint8_t* out) {
  t.quantize_s16u8_stochastic(x.data(), kRows, kCols, kCols, grid, draw, 0, out, kCols);
}

// How many of the draws of one value u = x / divisor went away from zero; -1 if one went anywhere else than a neighbour.
template <class T>
int64_t count_ups(const KernelTable& table, T x, CodeGrid grid, const Draw& draw) {
  const double u = std::fabs(static_cast<double>(x) / static_cast<double>(grid.divisor));
  const int32_t whole = static_cast<int32_t>(std::floor(u)), sign = x < 0 ? -1 : 1;
  std::vector<uint8_t> codes(kDraws);
  quantize(table, std::vector<T>(kDraws, x), grid, draw, codes.data());
  int64_t ups = 0;
  for (uint8_t byte : codes) {
    const int32_t up = sign * (int32_t{byte} - grid.zero) - whole;
    if (up != 0 && up != 1) return -1;
    ups += up;
  }
  return ups;
}

// 10^6 draws with the rule `goes_up(random, threshold)` in place of the law's.
template <class Rule>
int64_t count_ups_of(Rule goes_up, float fraction, const Draw& draw) {
  int64_t ups = 0;
  for (int64_t row = 0; row < kRows; ++row) {
    for (int64_t column = 0; column < kCols; ++column)
      ups += goes_up(random_bits(draw, row, column), 65536.0f * fraction);
  }
  return ups;
}

TEST_CASE("floats go up in proportion to their fraction, for both signs and both widths of the draw") {
  for (const std::string& isa : test::tested_isas()) {
    for (int32_t bits : {16, 8}) {
      DYNAMIC_SECTION(isa << ", " << bits << " bits") {
        test::Draws draws(1);
        for (float fraction : kFractions) {
          for (float whole : {0.0f, 5.0f}) {
            for (float sign : {1.0f, -1.0f}) {
              const float x = sign * (whole + fraction);
              const Draw draw{static_cast<uint32_t>(draws.next()), 7, static_cast<uint32_t>(Site::kInputGradGrad),
                              bits};
              const double p = static_cast<double>(std::fabs(x)) - static_cast<double>(whole);
              const int64_t ups = count_ups(*kernels::table(isa), x, kGrid, draw);
              CAPTURE(x, p, ups, draw.key_low);
              CHECK(ups >= 0);
              CHECK(test::within_five_sigma(ups, kDraws, p, stated_bias(bits)));
              if (fraction == 0.0f) CHECK(ups == 0);
            }
          }
        }
      }
    }
  }
}

TEST_CASE("integers of a transform go up in proportion to their fraction") {
  for (const std::string& isa : test::tested_isas()) {
    for (int32_t bits : {16, 8}) {
      DYNAMIC_SECTION(isa << ", " << bits << " bits") {
        for (int16_t x : {1, -1, 655, -16384, 32767, -29491}) {
          const Draw draw{11, static_cast<uint32_t>(x), static_cast<uint32_t>(Site::kWeightGradInput), bits};
          const int64_t ups = count_ups(*kernels::table(isa), x, {65536.0f, -7, 7, 8}, draw);
          CAPTURE(x, ups);
          CHECK(ups >= 0);
          CHECK(test::within_five_sigma(ups, kDraws, std::fabs(x / 65536.0), stated_bias(bits)));
        }
      }
    }
  }
}

TEST_CASE("integers never move") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      std::vector<float> x(kDraws);
      for (int64_t i = 0; i < kDraws; ++i) x[static_cast<size_t>(i)] = static_cast<float>(i % 255 - 127);
      std::vector<uint8_t> codes(x.size());
      for (int32_t bits : {16, 8}) {
        quantize(*kernels::table(isa), x, kGrid, {3, 4, 5, bits}, codes.data());
        int64_t moved = 0;
        for (int64_t i = 0; i < kDraws; ++i) moved += codes[static_cast<size_t>(i)] - 128 != i % 255 - 127;
        CHECK(moved == 0);
      }
    }
  }
}

TEST_CASE("codes are at most one step from the nearest and never change sides") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      test::Draws draws(2);
      const std::vector<float> x = draws.floats(kDraws, 20.0f);
      std::vector<uint8_t> codes(x.size());
      for (int32_t bits : {16, 8}) {
        quantize(*kernels::table(isa), x, kGrid, {3, 4, 5, bits}, codes.data());
        int64_t far = 0, other_side = 0;
        for (size_t i = 0; i < x.size(); ++i) {
          const float code = static_cast<float>(codes[i] - 128);
          far += std::fabs(code - std::rint(x[i])) > 1 || std::fabs(code - x[i]) >= 1;
          other_side += code * x[i] < 0;
        }
        CHECK(far == 0);
        CHECK(other_side == 0);
      }
    }
  }
}

TEST_CASE("the maximum itself has the code Q although m / (m / Q) may exceed Q") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      test::Draws draws(3);
      int64_t outside = 0, beyond = 0;
      for (int64_t i = 0; i < 1000000; ++i) {
        const float m = draws.uniform() + 0x1p-20f;
        const CodeGrid grid{m / 7 + kStepEpsilon, -7, 7, 8};
        const float x[] = {m, -m};
        uint8_t codes[2];
        kernels::table(isa)->quantize_f32u8_stochastic(x, 1, 2, 2, grid, {1, 2, 3, 16}, i, codes, 2);
        outside += codes[0] > 15 || codes[0] < 14 || codes[1] < 1 || codes[1] > 2;
        beyond += m / grid.divisor > 7;
      }
      CHECK(outside == 0);
      CHECK(beyond > 0);  // the case does occur
    }
  }
}

TEST_CASE("the check sees a draw that is added out of place") {
  const Draw draw{5, 6, 0, 16};
  const auto law = [](uint32_t random, float threshold) { return static_cast<float>(random) + 0.5f < threshold; };
  const auto byte_too_low = [](uint32_t random, float threshold) {
    return static_cast<float>(random >> 8) + 0.5f < threshold;
  };
  const auto byte_too_high = [](uint32_t random, float threshold) {
    return static_cast<float>(random << 8) + 0.5f < threshold;
  };
  const auto bit_too_low = [](uint32_t random, float threshold) {
    return static_cast<float>(random >> 1) + 0.5f < threshold;
  };
  const auto off_by_a_percent = [](uint32_t random, float threshold) {
    return static_cast<float>(random) + 655.5f < threshold;
  };
  const auto fits = [&](auto rule, float fraction) {
    return test::within_five_sigma(count_ups_of(rule, fraction, draw), kDraws, static_cast<double>(fraction), 0x1p-17);
  };
  for (float fraction : kFractions) {
    CAPTURE(fraction);
    CHECK(fits(law, fraction));
    if (fraction < 0.01f) continue;
    CHECK_FALSE(fits(byte_too_low, fraction));
    CHECK_FALSE(fits(byte_too_high, fraction));
    CHECK_FALSE(fits(bit_too_low, fraction));
    CHECK_FALSE(fits(off_by_a_percent, fraction));
  }
}

}  // namespace
}  // namespace quintil
