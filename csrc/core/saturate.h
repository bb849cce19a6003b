// Accumulators of A bits, and the bound under which totals stay exact in int32 (N2).
#pragma once

#include <cstdint>

namespace quintil {

inline int32_t accumulator_limit(int64_t bits) {  // L = 2^(A-1)-1
  return static_cast<int32_t>((int64_t{1} << (bits - 1)) - 1);
}

inline int32_t saturate(int32_t value, int32_t limit) {
  return value > limit ? limit : value < -limit ? -limit : value;
}

inline int32_t wrap(int32_t value, int32_t shift) {  // two's complement of 32 - shift bits
  return static_cast<int32_t>(static_cast<uint32_t>(value) << shift) >> shift;
}

inline bool total_is_exact(int64_t depth, int64_t max_a, int64_t max_b) {
  return max_a == 0 || max_b == 0 || depth < (int64_t{1} << 31) / (max_a * max_b) ||
         depth * (max_a * max_b) < (int64_t{1} << 31);
}

}  // namespace quintil
