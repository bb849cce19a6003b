// How an axis of length n is cut into Sylvester-Hadamard blocks [HDQT H6] (N7).
#pragma once

#include <cstdint>

namespace quintil {

enum class BlockMode : int32_t { kDivisor = 0, kBinary = 1, kPadded = 2, kNone = 3, kNoneScaled = 4 };

inline int64_t next_power_of_two(int64_t n) {
  int64_t p = 1;
  while (p < n) p *= 2;
  return p;
}

inline int64_t largest_power_of_two_in(int64_t n) {  // not above n; n >= 1
  int64_t p = 1;
  while (p * 2 <= n) p *= 2;
  return p;
}

// The order of the equal blocks: the largest power of two dividing n, or min(block, next power of two of n).
inline int64_t block_order(BlockMode mode, int64_t n, int64_t block) {
  if (n == 0 || mode == BlockMode::kNone) return 1;
  if (mode == BlockMode::kPadded) {
    const int64_t p = next_power_of_two(n);
    return p < block ? p : block;
  }
  return n & -n;
}

// Length of the axis after zero-padding: a multiple of the order; only `padded` lengthens.
inline int64_t padded_length(BlockMode mode, int64_t n, int64_t block) {
  if (mode != BlockMode::kPadded) return n;
  const int64_t p = block_order(mode, n, block);
  return (n + p - 1) / p * p;
}

// Calls f(first, order) for each block along an axis of (padded) length n; nothing where the transform is the identity.
template <class F>
inline void for_each_block(BlockMode mode, int64_t n, int64_t block, F f) {
  if (n == 0 || mode == BlockMode::kNone || mode == BlockMode::kNoneScaled) return;
  if (mode == BlockMode::kBinary) {
    for (int64_t first = 0, rest = n; rest > 0;) {
      const int64_t p = largest_power_of_two_in(rest);
      f(first, p);
      first += p;
      rest -= p;
    }
    return;
  }
  const int64_t p = block_order(mode, n, block);
  for (int64_t first = 0; first < padded_length(mode, n, block); first += p) f(first, p);
}

// The largest order among the blocks: it bounds the transformed integers, |H q| <= order * max|q|.
inline int64_t largest_order(BlockMode mode, int64_t n, int64_t block) {
  if (n == 0 || mode == BlockMode::kNone || mode == BlockMode::kNoneScaled) return 1;
  return mode == BlockMode::kBinary ? largest_power_of_two_in(n) : block_order(mode, n, block);
}

// What undoes the two transforms of a product: 1/p for equal blocks, 1 where blocks were scaled one by one or absent.
inline int64_t undo_divisor(BlockMode mode, int64_t n, int64_t block) {
  return mode == BlockMode::kBinary || mode == BlockMode::kNone ? 1 : block_order(mode, n, block);
}

}  // namespace quintil
