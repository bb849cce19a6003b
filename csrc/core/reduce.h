// Sums in double whose order does not depend on threads or instruction sets (N8): element i of a chunk of kSumChunk
// goes to partial sum i % 8, the eight are combined in pairs, chunks are added one after another.
#pragma once

#include <cstdint>

#include "csrc/core/types.h"

namespace quintil {

struct Partials {
  double sum[kSumLanes] = {};

  void add(int64_t i, double term) { sum[i % kSumLanes] += term; }
  double total() const { return ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7])); }
};

inline int64_t sum_chunks(int64_t n) {
  return (n + kSumChunk - 1) / kSumChunk;
}

}  // namespace quintil
