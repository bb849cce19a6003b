// Philox4x32-10 for rows of random numbers (N6), 64 words a row at a time.
//
// Lane l of a call is counter word 0 = group * 16 + l, so its four output words hold the draws of columns group * 128 + 16 j + l:
//   16 bits j of the 128 bits, low half first. (8-bit stream: 256 columns, bytes.)
// Registers: a 32 x 32 -> 64 bit product needs its factors in even lanes, so the 16 lanes travel as two registers of eight
//   64-bit lanes (even and odd counters) whose upper halves are noise that no product reads; the two are merged at the end.
//   Rounds 1 to 3 mix row and column only by xor: what depends on the columns alone is made once for a block of rows.
#include <immintrin.h>

#include <cstdint>

#include "csrc/core/types.h"
#include "csrc/kernels/avx512vnni/kernels.h"

namespace quintil::kernels::avx512vnni {

namespace {

constexpr int kRounds = 10;
constexpr uint32_t kMultiplier0 = 0xD2511F53u, kMultiplier1 = 0xCD9E8D57u;

struct Keys {
  uint32_t key0[kRounds], key1[kRounds];

  explicit Keys(const Draw& draw) {
    for (uint32_t round = 0; round < kRounds; ++round) {
      key0[round] = draw.key_low + round * 0x9E3779B9u;
      key1[round] = draw.key_high + round * 0xBB67AE85u;
    }
  }
};

inline __m512i high(__m512i product) {
  return _mm512_srli_epi64(product, 32);
}
inline __m512i xor3(__m512i a, __m512i b, __m512i c) {
  return _mm512_ternarylogic_epi32(a, b, c, 0x96);
}
inline __m512i times(uint32_t factor, __m512i x) {
  return _mm512_mul_epu32(_mm512_set1_epi32(static_cast<int>(factor)), x);
}
inline __m512i set1(uint32_t x) {
  return _mm512_set1_epi32(static_cast<int>(x));
}

// Eight lanes of Philox, as far as they depend on the column group and the upper half of the row number.
struct ColumnPart {
  __m512i c2_before_3, c0_after_3, c2_after_3, c3_after_3;  // counter words without the row's share

  ColumnPart(const Keys& keys, uint32_t site, uint64_t row_high_product, __m512i lanes) {
    const __m512i first = times(kMultiplier0, lanes);
    const __m512i second = times(kMultiplier1, xor3(high(first), set1(site), set1(keys.key1[0])));
    const __m512i c0 = xor3(high(second), set1(static_cast<uint32_t>(row_high_product)), set1(keys.key0[1]));
    const __m512i third = times(kMultiplier0, c0);
    c2_before_3 = _mm512_xor_si512(first, set1(keys.key1[1]));
    c0_after_3 = _mm512_xor_si512(second, set1(keys.key0[2]));
    c2_after_3 = _mm512_xor_si512(high(third), set1(keys.key1[2]));
    c3_after_3 = third;
  }
};

// words[row][16 w + l]: output word w of lane l of one call for `rows` rows. mixed[row] is the product of multiplier 0 and the row's
// word after round 1. All chains advance together: one alone would wait for its own products.
template <int rows>
inline void philox(const Keys& keys, const ColumnPart* part, const uint64_t* mixed, uint32_t (*words)[64]) {
  __m512i c[2 * rows][4];
#pragma GCC unroll 8
  for (int i = 0; i < 2 * rows; ++i) {
    const ColumnPart& of = part[i & 1];
    const __m512i low = set1(static_cast<uint32_t>(mixed[i / 2])),
                  top = set1(static_cast<uint32_t>(mixed[i / 2] >> 32));
    const __m512i product = times(kMultiplier1, _mm512_xor_si512(of.c2_before_3, top));
    c[i][0] = _mm512_xor_si512(high(product), of.c0_after_3);
    c[i][1] = product;
    c[i][2] = _mm512_xor_si512(of.c2_after_3, low);
    c[i][3] = of.c3_after_3;
  }
#pragma GCC unroll 10
  for (int round = 3; round < kRounds; ++round) {
    const __m512i key0 = set1(keys.key0[round]), key1 = set1(keys.key1[round]);
#pragma GCC unroll 8
    for (int i = 0; i < 2 * rows; ++i) {
      const __m512i p0 = times(kMultiplier0, c[i][0]), p1 = times(kMultiplier1, c[i][2]);
      c[i][0] = xor3(high(p1), c[i][1], key0);
      c[i][1] = p1;
      c[i][2] = xor3(high(p0), c[i][3], key1);
      c[i][3] = p0;
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 4
    for (int w = 0; w < 4; ++w) {
      const __m512i merged = _mm512_mask_shuffle_epi32(c[2 * r][w], 0xAAAA, c[2 * r + 1][w], _MM_PERM_CCAA);
      _mm512_store_si512(words[r] + 16 * w, merged);
    }
  }
}

}  // namespace

int64_t draw_block(const Draw& draw, uint64_t first, int64_t rows, uint32_t group, uint32_t (*words)[64]) {
  const Keys keys(draw);
  const uint64_t row_high_product = uint64_t{kMultiplier1} * (first >> 32);
  const uint32_t row_word = static_cast<uint32_t>(row_high_product >> 32) ^ keys.key0[0];
  const __m512i counter = set1(group << 4);
  const ColumnPart part[2] = {
      {keys, draw.site, row_high_product, _mm512_or_si512(counter, _mm512_set_epi64(14, 12, 10, 8, 6, 4, 2, 0))},
      {keys, draw.site, row_high_product, _mm512_or_si512(counter, _mm512_set_epi64(15, 13, 11, 9, 7, 5, 3, 1))}};
  const auto mixed = [&](int64_t r) {
    return uint64_t{kMultiplier0} * (row_word ^ static_cast<uint32_t>(first + static_cast<uint64_t>(r)));
  };
  const int64_t same_high = static_cast<int64_t>((uint64_t{1} << 32) - (first & 0xFFFFFFFFu));
  int64_t count = rows < kDrawRows ? rows : kDrawRows;
  if (count > same_high) count = same_high;
  int64_t r = 0;
  for (; r + 2 <= count; r += 2) {
    const uint64_t both[2] = {mixed(r), mixed(r + 1)};
    philox<2>(keys, part, both, words + r);
  }
  if (r < count) {
    const uint64_t last = mixed(r);
    philox<1>(keys, part, &last, words + r);
  }
  return count;
}

}  // namespace quintil::kernels::avx512vnni
