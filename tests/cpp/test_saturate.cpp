// Accumulators of A bits against arithmetic in 64 bits, and the exactness bound of totals (N2).
#include <cstdint>
#include <limits>

#include "csrc/core/saturate.h"
#include "csrc/quantizers/tiled_accumulation.h"
#include "tests/cpp/catch.h"
#include "tests/cpp/draws.h"
#include "tests/cpp/products.h"

namespace quintil {
namespace {

constexpr int32_t kMin = std::numeric_limits<int32_t>::min();
constexpr int32_t kMax = std::numeric_limits<int32_t>::max();

TEST_CASE("the limit of an accumulator is 2^(A-1)-1") {
  CHECK(accumulator_limit(4) == 7);
  CHECK(accumulator_limit(8) == 127);
  CHECK(accumulator_limit(12) == 2047);
  CHECK(accumulator_limit(13) == 4095);
  CHECK(accumulator_limit(16) == 32767);
  CHECK(accumulator_limit(32) == kMax);
}

TEST_CASE("saturate and wrap equal their definitions around every limit") {
  for (int64_t bits = 4; bits <= 32; ++bits) {
    const int32_t limit = accumulator_limit(bits), shift = static_cast<int32_t>(32 - bits);
    const int64_t centre[] = {0, limit, -int64_t{limit}, 2 * int64_t{limit} + 2, -2 * int64_t{limit} - 2, kMax, kMin};
    for (int64_t around : centre) {
      for (int64_t value = around - 3; value <= around + 3; ++value) {
        if (value < kMin || value > kMax) continue;
        CAPTURE(bits, value);
        const int32_t sum = static_cast<int32_t>(value);
        CHECK(saturate(sum, limit) == test::limited_by_definition(value, Overflow::kSaturate, bits));
        CHECK(wrap(sum, shift) == test::limited_by_definition(value, Overflow::kWrap, bits));
        CHECK(limited(sum, Overflow::kSaturate, limit, shift) == saturate(sum, limit));
        CHECK(limited(sum, Overflow::kWrap, limit, shift) == wrap(sum, shift));
        CHECK(limited(sum, Overflow::kNone, limit, shift) == sum);
      }
    }
  }
}

TEST_CASE("saturation is symmetric, wrapping is two's complement") {
  CHECK(saturate(-128, 127) == -127);
  CHECK(saturate(kMin, kMax) == -kMax);
  CHECK(wrap(-128, 24) == -128);
  CHECK(wrap(128, 24) == -128);
  CHECK(wrap(-129, 24) == 127);
  CHECK(wrap(kMin, 0) == kMin);
}

TEST_CASE("total_is_exact stops at the published depths") {
  CHECK(total_is_exact(65793, 255, 128));
  CHECK(!total_is_exact(65794, 255, 128));
  CHECK(total_is_exact(131071, 128, 128));
  CHECK(!total_is_exact(131072, 128, 128));
  CHECK(total_is_exact(20000000, 15, 7));
  CHECK(!total_is_exact(20452226, 15, 7));
  CHECK(total_is_exact(0, 255, 128));
}

TEST_CASE("total_is_exact equals the bound for any maxima") {
  test::Draws draws(1);
  for (int round = 0; round < 2000; ++round) {
    const int64_t max_a = draws.between(1, 255), max_b = draws.between(1, 255);
    const int64_t edge = ((int64_t{1} << 31) - 1) / (max_a * max_b);  // deepest exact product
    for (int64_t depth : {edge - 1, edge, edge + 1, edge * 3}) {
      CAPTURE(depth, max_a, max_b);
      CHECK(total_is_exact(depth, max_a, max_b) == (depth <= edge));
    }
  }
  CHECK(total_is_exact(int64_t{1} << 40, 0, 128));
  CHECK(total_is_exact(int64_t{1} << 40, 255, 0));
}

}  // namespace
}  // namespace quintil
