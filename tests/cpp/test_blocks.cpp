// How an axis is cut into Hadamard blocks: the tables of the paper, and that blocks cover the axis [HDQT H6] (N7).
#include <cstdint>
#include <numeric>
#include <vector>

#include "csrc/core/blocks.h"
#include "tests/cpp/catch.h"

namespace quintil {
namespace {

using Orders = std::vector<int64_t>;

// The orders in sequence; empty if one of them does not start where the one before ended.
Orders orders(BlockMode mode, int64_t n, int64_t block) {
  Orders found;
  int64_t next = 0;
  bool gapless = true;
  for_each_block(mode, n, block, [&](int64_t first, int64_t order) {
    gapless &= first == next;
    next = first + order;
    found.push_back(order);
  });
  return gapless ? found : Orders{};
}

TEST_CASE("binary blocks are the binary digits of n, descending") {
  CHECK(orders(BlockMode::kBinary, 405, 64) == Orders{256, 128, 16, 4, 1});
  CHECK(orders(BlockMode::kBinary, 561, 64) == Orders{512, 32, 16, 1});
  CHECK(orders(BlockMode::kBinary, 243, 64) == Orders{128, 64, 32, 16, 2, 1});
  CHECK(orders(BlockMode::kBinary, 64, 64) == Orders{64});
  CHECK(orders(BlockMode::kBinary, 1, 64) == Orders{1});
}

TEST_CASE("divisor blocks have the published orders") {
  const std::vector<std::vector<int64_t>> table = {{2, 2},   {4, 4},   {6, 2},   {8, 8},   {10, 2},     {11, 1},
                                                   {12, 4},  {14, 2},  {16, 16}, {18, 2},  {19, 1},     {20, 4},
                                                   {40, 8},  {60, 4},  {80, 16}, {100, 4}, {72, 8},     {128, 128},
                                                   {405, 1}, {561, 1}, {243, 1}, {64, 64}, {1024, 1024}};
  for (const auto& row : table) {
    CAPTURE(row[0]);
    CHECK(orders(BlockMode::kDivisor, row[0], 64) == Orders(static_cast<size_t>(row[0] / row[1]), row[1]));
    CHECK(undo_divisor(BlockMode::kDivisor, row[0], 64) == row[1]);
  }
}

TEST_CASE("padded blocks stop at the block size and lengthen the axis") {
  CHECK(orders(BlockMode::kPadded, 405, 64) == Orders(7, 64));
  CHECK(orders(BlockMode::kPadded, 405, 128) == Orders(4, 128));
  CHECK(orders(BlockMode::kPadded, 128, 64) == Orders(2, 64));
  CHECK(orders(BlockMode::kPadded, 49, 64) == Orders{64});
  CHECK(orders(BlockMode::kPadded, 10, 64) == Orders{16});
  CHECK(orders(BlockMode::kPadded, 768, 64) == Orders(12, 64));
  CHECK(padded_length(BlockMode::kPadded, 405, 64) == 448);
  CHECK(padded_length(BlockMode::kPadded, 1, 64) == 1);
  CHECK(padded_length(BlockMode::kDivisor, 405, 64) == 405);
}

TEST_CASE("without a transform there are no blocks; none_scaled still divides") {
  CHECK(orders(BlockMode::kNone, 128, 64).empty());
  CHECK(orders(BlockMode::kNoneScaled, 128, 64).empty());
  CHECK(undo_divisor(BlockMode::kNone, 128, 64) == 1);
  CHECK(undo_divisor(BlockMode::kNoneScaled, 128, 64) == 128);
  CHECK(undo_divisor(BlockMode::kNoneScaled, 405, 64) == 1);
  CHECK(undo_divisor(BlockMode::kBinary, 405, 64) == 1);
  CHECK(undo_divisor(BlockMode::kPadded, 405, 64) == 64);
}

TEST_CASE("blocks cover the axis of every length once, in powers of two") {
  for (BlockMode mode : {BlockMode::kDivisor, BlockMode::kBinary, BlockMode::kPadded}) {
    for (int64_t block : {1, 2, 64, 1024}) {
      for (int64_t n = 0; n <= 1100; ++n) {
        const Orders found = orders(mode, n, block);
        const int64_t length = std::accumulate(found.begin(), found.end(), int64_t{0});
        int64_t largest = 1;
        bool powers = true;
        for (int64_t order : found) {
          powers &= order > 0 && (order & (order - 1)) == 0;
          largest = order > largest ? order : largest;
        }
        const bool fits = length == padded_length(mode, n, block) && length >= n && length - n < largest + (n == 0);
        const bool capped = mode != BlockMode::kPadded || largest <= block;
        const bool right = powers && fits && capped && largest == largest_order(mode, n, block);
        CAPTURE(static_cast<int>(mode), block, n, length, largest);
        CHECK(right);
      }
    }
  }
}

TEST_CASE("powers of two around n") {
  for (int64_t n = 1; n <= 5000; ++n) {
    const int64_t below = largest_power_of_two_in(n), above = next_power_of_two(n);
    const bool right =
        below <= n && 2 * below > n && above >= n && above / 2 < n && (above == below) == ((n & (n - 1)) == 0);
    CAPTURE(n, below, above);
    CHECK(right);
  }
}

}  // namespace
}  // namespace quintil
