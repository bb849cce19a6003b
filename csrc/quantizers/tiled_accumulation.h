// What an A-bit accumulator over a tile of T products holds [HDQT H3]; the law of every GEMM.
#pragma once

#include <cstdint>

#include "csrc/core/saturate.h"
#include "csrc/core/types.h"

namespace quintil {

inline int32_t limited(int32_t value, Overflow overflow, int32_t limit, int32_t shift) {
  switch (overflow) {
    case Overflow::kSaturate: return saturate(value, limit);
    case Overflow::kWrap: return wrap(value, shift);
    case Overflow::kNone: break;
  }
  return value;
}

// One output of the reference product. `every_mac` limits the register after each product, k ascending; otherwise the
// finished sum of a tile is limited once. Tiles add up without limit. `clamped` counts the tiles that were limited.
inline int32_t tiled_dot(const WideGemm& g, int64_t row, int64_t column, int64_t& clamped) {
  const int64_t tile = g.tile == 0 ? g.k : g.tile;
  int32_t total = 0;
  for (int64_t first = 0; first < g.k; first += tile) {
    const int64_t last = first + tile < g.k ? first + tile : g.k;
    int32_t sum = 0;
    bool hit = false;
    for (int64_t k = first; k < last; ++k) {
      sum += g.a[row * g.a_row + k * g.a_col] * g.b[k * g.b_row + column];
      if (g.every_mac || k + 1 == last) {
        const int32_t kept = limited(sum, g.overflow, g.limit, g.shift);
        hit |= kept != sum;
        sum = kept;
      }
    }
    total += sum;
    clamped += hit;
  }
  return total;
}

}  // namespace quintil
