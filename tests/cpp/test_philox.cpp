// Philox4x32-10 and the map of N6: a random number is a function of (seed, site, row, column) and of nothing else.
#include <cmath>
#include <cstdint>
#include <vector>

#include "csrc/core/philox.h"
#include "tests/cpp/catch.h"

namespace quintil {
namespace {

constexpr Draw kDraw16{0x12345678u, 0x9ABCDEF0u, static_cast<uint32_t>(Site::kInputGradGrad), 16};
constexpr Draw kDraw8{0x12345678u, 0x9ABCDEF0u, static_cast<uint32_t>(Site::kWeightGradInput), 8};

std::vector<uint32_t> row_of_bits(const Draw& draw, int64_t row, int64_t columns) {
  std::vector<uint32_t> bits;
  for (int64_t column = 0; column < columns; ++column) bits.push_back(random_bits(draw, row, column));
  return bits;
}

// The map the other way round: each of the 16 lanes is called once and its words are cut and laid out.
std::vector<uint32_t> row_laid_out(const Draw& draw, int64_t row, int64_t blocks) {
  const int pieces = 32 / draw.bits, columns = 4 * pieces * 16;
  std::vector<uint32_t> bits(static_cast<size_t>(blocks * columns));
  for (int64_t block = 0; block < blocks; ++block) {
    for (uint32_t lane = 0; lane < 16; ++lane) {
      const Philox4 words =
          philox4x32_10({static_cast<uint32_t>(block) * 16 + lane, static_cast<uint32_t>(row & 0xFFFFFFFF),
                         static_cast<uint32_t>(row >> 32), draw.site},
                        {draw.key_low, draw.key_high});
      for (int word = 0; word < 4; ++word) {
        uint32_t rest = words[static_cast<size_t>(word)];
        for (int piece = 0; piece < pieces; ++piece) {
          bits[static_cast<size_t>(block * columns + (word * pieces + piece) * 16 + lane)] = rest % (1u << draw.bits);
          rest >>= draw.bits;
        }
      }
    }
  }
  return bits;
}

double chi_square(const std::vector<int64_t>& bins, int64_t draws) {
  const double expected = static_cast<double>(draws) / static_cast<double>(bins.size());
  double sum = 0;
  for (int64_t count : bins) sum += (static_cast<double>(count) - expected) * (static_cast<double>(count) - expected);
  return sum / expected;
}

// Correlation of two streams of 16-bit numbers, in standard deviations of the independent case.
double correlation_in_sigmas(const std::vector<uint32_t>& a, const std::vector<uint32_t>& b) {
  const double mean = 65535.0 / 2, variance = (65536.0 * 65536.0 - 1) / 12;
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += (a[i] - mean) * (b[i] - mean);
  return std::fabs(sum) / (variance * std::sqrt(static_cast<double>(a.size())));
}

TEST_CASE("philox4x32_10 gives the published known answers") {
  CHECK(philox4x32_10({0, 0, 0, 0}, {0, 0}) == Philox4{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u});
  CHECK(philox4x32_10({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}) == Philox4{0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu});
  CHECK(philox4x32_10({0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u}, {0xa4093822u, 0x299f31d0u}) ==
        Philox4{0xd16cfe09u, 0x94fdcceb, 0x5001e420u, 0x24126ea1u});
}

TEST_CASE("random_bits reads the words of 16 lanes in the order of the map") {
  for (int64_t row : {int64_t{0}, int64_t{1}, int64_t{77}, int64_t{1} << 32, (int64_t{5} << 32) + 3}) {
    CAPTURE(row);
    CHECK(row_of_bits(kDraw16, row, 5 * 128) == row_laid_out(kDraw16, row, 5));
    CHECK(row_of_bits(kDraw8, row, 5 * 256) == row_laid_out(kDraw8, row, 5));
  }
}

TEST_CASE("every bit of the seed, the site and the row changes the numbers") {
  for (const Draw& draw : {kDraw16, kDraw8}) {
    const std::vector<uint32_t> before = row_of_bits(draw, 9, 64);
    for (int bit = 0; bit < 32; ++bit) {
      CAPTURE(draw.bits, bit);
      Draw low = draw, high = draw, site = draw;
      low.key_low ^= 1u << bit;
      high.key_high ^= 1u << bit;
      site.site ^= 1u << bit;
      CHECK(row_of_bits(low, 9, 64) != before);
      CHECK(row_of_bits(high, 9, 64) != before);
      CHECK(row_of_bits(site, 9, 64) != before);
    }
    for (int bit = 0; bit < 63; ++bit) {
      CAPTURE(draw.bits, bit);
      CHECK(row_of_bits(draw, 9 ^ int64_t{1} << bit, 64) != before);
    }
  }
}

TEST_CASE("random_bits is uniform: chi-square on 256 bins at 10^6 draws") {
  std::vector<int64_t> high(256), low(256), bytes(256);
  for (int64_t row = 0; row < 1000; ++row) {
    for (int64_t column = 0; column < 1000; ++column) {
      const uint32_t bits = random_bits(kDraw16, row, column);
      ++high[bits >> 8];
      ++low[bits & 255];
      ++bytes[random_bits(kDraw8, row, column)];
    }
  }
  // 255 degrees of freedom: mean 255, standard deviation 22.6; five of them on either side.
  for (const std::vector<int64_t>* bins : {&high, &low, &bytes}) {
    const double statistic = chi_square(*bins, 1000000);
    CHECK(statistic > 142);
    CHECK(statistic < 368);
  }
}

TEST_CASE("sites, rows, columns and seeds are independent streams") {
  std::vector<std::vector<uint32_t>> streams;
  for (uint32_t site = 0; site <= static_cast<uint32_t>(Site::kWeightGradDc); ++site) {
    streams.push_back(row_of_bits({1, 2, site, 16}, 0, 20000));
  }
  streams.push_back(row_of_bits({1, 2, 0, 16}, 1, 20000));
  streams.push_back(row_of_bits({1, 2, 0, 16}, int64_t{1} << 32, 20000));
  streams.push_back(row_of_bits({2, 2, 0, 16}, 0, 20000));
  streams.push_back(row_of_bits({1, 3, 0, 16}, 0, 20000));
  const std::vector<uint32_t> longer = row_of_bits({1, 2, 0, 16}, 0, 20128);
  for (int64_t lag : {1, 16, 32, 128}) streams.emplace_back(longer.begin() + lag, longer.begin() + lag + 20000);
  for (size_t i = 0; i < streams.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      CAPTURE(i, j);
      CHECK(correlation_in_sigmas(streams[i], streams[j]) < 5);
    }
    CHECK(correlation_in_sigmas(streams[i], streams[i]) > 100);  // the measure does see equal streams
  }
}

}  // namespace
}  // namespace quintil
