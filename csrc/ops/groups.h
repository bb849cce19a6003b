// A contiguous tensor as runs of elements that share a step, each cut into the chunks that sums run over (N8).
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "csrc/core/reduce.h"

namespace quintil::ops {

struct Groups {
  int64_t count;   // steps
  int64_t length;  // elements of each
  int64_t chunks;  // of each

  Groups(int64_t elements, int64_t steps)
      : count(steps), length(count == 0 ? 0 : elements / count), chunks(sum_chunks(length)) {}

  // Calls f(group, first element, elements, number of the chunk) for every chunk, in parallel.
  template <class F>
  void for_each_chunk(F f) const {
    constexpr int64_t kElementsPerTask = 1 << 15;
    const int64_t grain = kElementsPerTask / std::min(kSumChunk, std::max<int64_t>(1, length));
    at::parallel_for(0, count * chunks, grain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t group = i / chunks, first = i % chunks * kSumChunk;
        f(group, group * length + first, std::min(kSumChunk, length - first), i);
      }
    });
  }

  // The parts of a group's chunks, one after the other: add(total, part).
  template <class Part, class Add>
  Part total(const std::vector<Part>& parts, int64_t group, Part start, Add add) const {
    for (int64_t i = group * chunks; i < (group + 1) * chunks; ++i) add(start, parts[static_cast<size_t>(i)]);
    return start;
  }
};

}  // namespace quintil::ops
