// Philox4x32-10 for rows of random numbers (N6), in registers. For the files of this folder.
//
// Lane l of a call is counter word 0 = group * 16 + l, so its four output words hold
//   the draws of columns group * 128 + 16 j + l: 16 bits j of the 128 bits, low half first. (8-bit stream: 256 columns, bytes.)
// Registers: vpmuludq takes its factors from even lanes, so the 16 lanes of a call travel as four chains of four 64-bit lanes
//   (even and odd counters of either half) whose upper halves are noise that no product reads. Two chains of four words run at
//   a time, 8 registers; the round keys are memory operands. Even and odd chains are merged at the end.
//   Rounds 1 to 3 mix row and column only by xor: what depends on the columns alone is made once for a block of rows.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "csrc/core/types.h"
#include "csrc/kernels/avx2/lanes.h"

namespace quintil::kernels::avx2 {

namespace {

constexpr int64_t kRowBlock = 16;  // rows that share the column part of the random numbers
constexpr int kRounds = 10;
constexpr uint32_t kMultiplier0 = 0xD2511F53u, kMultiplier1 = 0xCD9E8D57u;

inline __m256i set1(uint32_t x) {
  return _mm256_set1_epi32(static_cast<int>(x));
}

// Round keys in all lanes.
struct Keys {
  __m256i key0[kRounds], key1[kRounds];

  explicit Keys(const Draw& draw) {
    for (uint32_t round = 0; round < kRounds; ++round) {
      key0[round] = set1(draw.key_low + round * 0x9E3779B9u);
      key1[round] = set1(draw.key_high + round * 0xBB67AE85u);
    }
  }
};

inline __m256i high(__m256i product) {
  return _mm256_srli_epi64(product, 32);
}
inline __m256i xor3(__m256i late, __m256i a, __m256i b) {
  return _mm256_xor_si256(late, _mm256_xor_si256(a, b));
}
inline __m256i times(uint32_t factor, __m256i x) {
  return _mm256_mul_epu32(set1(factor), x);
}

// Four lanes of Philox, as far as they depend on the column group and the upper half of the row number.
struct ColumnPart {
  __m256i c2_before_3, c0_after_3, c2_after_3, c3_after_3;  // counter words without the row's share

  ColumnPart(const Keys& keys, uint32_t site, uint64_t row_high_product, __m256i lanes) {
    const __m256i first = times(kMultiplier0, lanes);
    const __m256i second = times(kMultiplier1, xor3(high(first), set1(site), keys.key1[0]));
    const __m256i c0 = xor3(high(second), set1(static_cast<uint32_t>(row_high_product)), keys.key0[1]);
    const __m256i third = times(kMultiplier0, c0);
    c2_before_3 = _mm256_xor_si256(first, keys.key1[1]);
    c0_after_3 = _mm256_xor_si256(second, keys.key0[2]);
    c2_after_3 = _mm256_xor_si256(high(third), keys.key1[2]);
    c3_after_3 = third;
  }
};

// words[0], [2], [4], [6]: the four output words of the eight lanes of two chains. mixed is the product of multiplier 0 and the
// row's word after round 1.
inline void philox(const Keys& keys, const ColumnPart* part, uint64_t mixed, __m256i* words) {
  __m256i c[2][4];
  const __m256i low = set1(static_cast<uint32_t>(mixed)), top = set1(static_cast<uint32_t>(mixed >> 32));
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    const __m256i product = times(kMultiplier1, _mm256_xor_si256(part[i].c2_before_3, top));
    c[i][0] = _mm256_xor_si256(high(product), part[i].c0_after_3);
    c[i][1] = product;
    c[i][2] = _mm256_xor_si256(part[i].c2_after_3, low);
    c[i][3] = part[i].c3_after_3;
  }
#pragma GCC unroll 10
  for (int round = 3; round < kRounds; ++round) {
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const __m256i p0 = times(kMultiplier0, c[i][0]), p1 = times(kMultiplier1, c[i][2]);
      c[i][0] = xor3(high(p1), c[i][1], keys.key0[round]);
      c[i][1] = p1;
      c[i][2] = xor3(high(p0), c[i][3], keys.key1[round]);
      c[i][3] = p0;
    }
  }
#pragma GCC unroll 4
  for (int w = 0; w < 4; ++w) words[2 * w] = _mm256_blend_epi32(c[0][w], _mm256_slli_epi64(c[1][w], 32), 0xAA);
}

// The words of `count` rows from row number `first` on, none of which carries into the upper half, for one column group:
// words[row][2 w] and [2 w + 1] are word w of lanes 0..7 and 8..15. Not inlined, like fill_rows: each has all registers.
[[gnu::noinline]] void draw_words(const Keys& keys, uint32_t site, uint32_t group, uint64_t first, int64_t count,
                                  __m256i (*words)[8]) {
  const uint64_t row_high_product = uint64_t{kMultiplier1} * (first >> 32);
  const uint32_t row_word =
      static_cast<uint32_t>(row_high_product >> 32) ^ static_cast<uint32_t>(_mm256_cvtsi256_si32(keys.key0[0]));
  const __m256i counter = set1(group << 4);
  const auto part_of = [&](int first_lane) {
    const __m256i lanes = _mm256_add_epi64(_mm256_set1_epi64x(first_lane), _mm256_setr_epi64x(0, 2, 4, 6));
    return ColumnPart(keys, site, row_high_product, _mm256_or_si256(counter, lanes));
  };
  const ColumnPart part[4] = {part_of(0), part_of(1), part_of(8), part_of(9)};
  for (int64_t r = 0; r < count; ++r) {
    const uint32_t row = static_cast<uint32_t>(first + static_cast<uint64_t>(r));
    const uint64_t mixed = uint64_t{kMultiplier0} * (row_word ^ row);
    philox(keys, part, mixed, words[r]);
    philox(keys, part + 2, mixed, words[r] + 1);
  }
}

// The 16-bit draws of columns 8 i .. 8 i + 7 of a row of a block.
inline __m256i draws16(const __m256i* words, int i) {
  const __m256i word = words[i / 4 * 2 + (i & 1)];
  return i & 2 ? _mm256_srli_epi32(word, 16) : _mm256_and_si256(word, _mm256_set1_epi32(0xFFFF));
}

// Calls f(first row, first column, rows, words) for the parts of a matrix that one call of draw_words serves.
template <int bits, class F>
inline void for_each_block(int64_t rows, int64_t cols, const Draw& draw, int64_t row0, F f) {
  constexpr int64_t span = 16 * 4 * 32 / bits;
  const Keys keys(draw);
  __m256i words[kRowBlock][8];
  for (int64_t r = 0; r < rows;) {
    const uint64_t first = static_cast<uint64_t>(row0 + r);
    const int64_t same_high = static_cast<int64_t>((uint64_t{1} << 32) - (first & 0xFFFFFFFFu));
    int64_t count = rows - r < kRowBlock ? rows - r : kRowBlock;
    if (count > same_high) count = same_high;
    for (int64_t c = 0; c < cols; c += span) {
      draw_words(keys, draw.site, static_cast<uint32_t>(c / span), first, count, words);
      f(r, c, count, words);
    }
    r += count;
  }
}

}  // namespace

}  // namespace quintil::kernels::avx2
