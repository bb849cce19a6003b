// Philox4x32-10 (Salmon et al., SC 2011) and the map from a place in a matrix to its random bits (N6).
// A draw depends on (seed, site, row, column) only: never on lane, thread, tile or call order.
#pragma once

#include <array>
#include <cstdint>

#include "csrc/core/types.h"

namespace quintil {

using Philox4 = std::array<uint32_t, 4>;

inline Philox4 philox4x32_10(Philox4 counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * counter[0];
    const uint64_t p1 = uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<uint32_t>(p1 >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(p1),
               static_cast<uint32_t>(p0 >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(p0)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return counter;
}

// The 16 random bits of (row, column): one Philox call serves 16 lanes x 4 words x 2 halves = 128 columns.
// The 8-bit stream takes bytes instead of halves: one call serves 256 columns.
inline uint32_t random_bits(const Draw& draw, int64_t row, int64_t column) {
  const uint64_t r = static_cast<uint64_t>(row);
  const uint32_t c = static_cast<uint32_t>(column);
  const int span = draw.bits == 16 ? 7 : 8;
  const Philox4 words =
      philox4x32_10({(c >> span) << 4 | (c & 15), static_cast<uint32_t>(r), static_cast<uint32_t>(r >> 32), draw.site},
                    {draw.key_low, draw.key_high});
  if (draw.bits == 16) return words[(c >> 5) & 3] >> (16 * ((c >> 4) & 1)) & 0xFFFFu;
  return words[(c >> 6) & 3] >> (8 * ((c >> 4) & 3)) & 0xFFu;
}

}  // namespace quintil
