// The two roundings of HDQT against integer arithmetic, over every random number there is (N4, N5).
#include <cmath>
#include <cstdint>
#include <limits>

#include "csrc/core/rounding.h"
#include "tests/cpp/catch.h"
#include "tests/cpp/guarded.h"

namespace quintil {
namespace {

// u = quarters / 4, rounded in integers: to nearest, ties to the even neighbour.
int64_t nearest_of_quarters(int64_t quarters) {
  const int64_t floor = quarters >= 0 ? quarters / 4 : -((3 - quarters) / 4);
  const int64_t rest = quarters - 4 * floor;
  return rest == 2 ? floor + (floor & 1) : rest == 3 ? floor + 1 : floor;
}

// How many of all random numbers of a stream round u away from zero; -1 if one of them gives anything else.
int64_t ups(float u, int bits) {
  const float whole = std::floor(std::fabs(u));
  int64_t count = 0;
  for (uint32_t random = 0; random < 1u << bits; ++random) {
    const float rounded = std::copysign(1.0f, u) * stochastic(u, random, bits);
    if (rounded != whole && rounded != whole + 1) return -1;
    count += rounded == whole + 1;
  }
  return count;
}

TEST_CASE("half_even rounds to nearest, ties to even") {
  for (int64_t quarters = -1200; quarters <= 1200; ++quarters) {
    const float u = static_cast<float>(quarters) / 4;
    CAPTURE(u);
    CHECK(half_even(u) == static_cast<float>(nearest_of_quarters(quarters)));
  }
}

TEST_CASE("half_even sees the float next to a tie") {
  for (int n = 0; n < 300; ++n) {
    const float tie = static_cast<float>(n) + 0.5f;
    CAPTURE(tie);
    CHECK(half_even(std::nextafter(tie, 0.0f)) == static_cast<float>(n));
    CHECK(half_even(std::nextafter(tie, 1000.0f)) == static_cast<float>(n + 1));
    CHECK(half_even(-std::nextafter(tie, 0.0f)) == static_cast<float>(-n));
    CHECK(half_even(-std::nextafter(tie, 1000.0f)) == static_cast<float>(-n - 1));
  }
  CHECK(test::same(half_even(-0.0f), -0.0f));
}

TEST_CASE("stochastic rounds j/65536 up for exactly j of the 65536 random numbers") {
  for (uint32_t j : {0u, 1u, 2u, 3u, 655u, 16384u, 32767u, 32768u, 32769u, 58982u, 65534u, 65535u}) {
    for (float whole : {0.0f, 1.0f, 6.0f, 126.0f}) {
      const float u = whole + static_cast<float>(j) / 65536;
      CAPTURE(u);
      CHECK(ups(u, 16) == static_cast<int64_t>(j));
      CHECK(ups(-u, 16) == static_cast<int64_t>(j));
    }
  }
}

TEST_CASE("stochastic rounds j/256 up for exactly j of the 256 random numbers of the 8-bit stream") {
  for (uint32_t j = 0; j < 256; ++j) {
    const float u = 3 + static_cast<float>(j) / 256;
    CAPTURE(u);
    CHECK(ups(u, 8) == static_cast<int64_t>(j));
    CHECK(ups(-u, 8) == static_cast<int64_t>(j));
  }
}

TEST_CASE("stochastic is off by at most half of one random number for any fraction") {
  for (float u : {0x1p-20f, 0x1p-17f, 0.01f, 0.1f, 0.3333333f, 2.7182817f, 6.9999995f, 0x1p-140f}) {
    const double fraction = static_cast<double>(u) - std::floor(static_cast<double>(u));
    for (int bits : {8, 16}) {
      CAPTURE(u, bits);
      const double expected = fraction * std::ldexp(1.0, bits);
      CHECK(std::fabs(static_cast<double>(ups(u, bits)) - expected) <= 0.5);
      CHECK(ups(u, bits) == ups(-u, bits));
    }
  }
}

TEST_CASE("stochastic never moves an integer") {
  for (int n = 0; n <= 256; ++n) {
    for (uint32_t random : {0u, 1u, 32767u, 32768u, 65535u}) {
      CAPTURE(n, random);
      CHECK(stochastic(static_cast<float>(n), random, 16) == static_cast<float>(n));
      CHECK(stochastic(static_cast<float>(-n), random, 16) == static_cast<float>(-n));
      CHECK(stochastic(static_cast<float>(n), random & 255, 8) == static_cast<float>(n));
    }
  }
}

TEST_CASE("stochastic stops at 256, beyond every code range") {
  const float infinity = std::numeric_limits<float>::infinity();
  for (float u : {256.5f, 1e9f, std::numeric_limits<float>::max(), infinity}) {
    for (uint32_t random : {0u, 65535u}) {
      CHECK(stochastic(u, random, 16) == 256.0f);
      CHECK(stochastic(-u, random, 16) == -256.0f);
    }
  }
}

}  // namespace
}  // namespace quintil
