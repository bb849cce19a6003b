// Nibble packing, widening and narrowing of codes, a vector at a time; the last few codes one by one.
//
// Pack: vpmaddubsw by the bytes (1, 16) makes low + 16 * high of each pair, at most 255, in a word; vpackuswb takes the low
//   bytes in 128-bit halves, so vpermq puts the quarters in order.
// Unpack: a packed byte widened to a word x has its codes at x & 0x000F and (x << 4) & 0x0F00, so the two bytes of the word are
//   the two codes. A nibble n >= 8 stands for n - 16 = (n ^ 8) - 8.
// Double rounding: every rule is one arithmetic shift of q + bias + (odd & q >> shift), in words; bias is 0 (floor),
//   half (half up), or half - 1 with odd = 1 (half to even: an odd floor turns a tie up). |q + bias| <= 128 + 64. Then
//   clamp and cut to bytes.
#include <immintrin.h>

#include <cstdint>

#include "csrc/core/types.h"
#include "csrc/kernels/avx2/kernels.h"
#include "csrc/kernels/avx2/lanes.h"

namespace quintil::kernels::avx2 {

namespace {

inline __m128i load_half(const void* p) {
  return _mm_loadu_si128(static_cast<const __m128i*>(p));
}

inline __m256i pairs(__m256i codes) {
  return _mm256_maddubs_epi16(_mm256_and_si256(codes, _mm256_set1_epi8(15)), _mm256_set1_epi16(0x1001));
}

struct Narrow {
  __m256i bias, odd, lo, hi;
  __m128i shift;

  explicit Narrow(const Narrowing& to) {
    const bool even = to.rounding == Rounding::kHalfEven && to.shift > 0;
    const int half = to.rounding == Rounding::kFloor ? 0 : (1 << to.shift) / 2;
    bias = _mm256_set1_epi16(static_cast<int16_t>(half - (even ? 1 : 0)));
    odd = _mm256_set1_epi16(even ? 1 : 0);
    lo = _mm256_set1_epi16(static_cast<int16_t>(to.lo));
    hi = _mm256_set1_epi16(static_cast<int16_t>(to.hi));
    shift = _mm_cvtsi32_si128(to.shift);
  }

  // Sixteen codes.
  __m256i words(__m128i codes) const {
    const __m256i q = _mm256_cvtepi8_epi16(codes);
    const __m256i lifted = _mm256_add_epi16(_mm256_and_si256(_mm256_sra_epi16(q, shift), odd), bias);
    const __m256i t = _mm256_sra_epi16(_mm256_add_epi16(q, lifted), shift);
    return _mm256_max_epi16(_mm256_min_epi16(t, hi), lo);
  }
  __m256i bytes(__m256i codes) const {
    const __m256i low = words(_mm256_castsi256_si128(codes)), high = words(_mm256_extracti128_si256(codes, 1));
    return _mm256_permute4x64_epi64(_mm256_packs_epi16(low, high), 0xD8);
  }
};

// The same without leaving bytes, where no result exceeds 127 >> shift: u = code + 128 >= 0 is rounded, and a sum that
// saturates at 255 has that greatest result. A shift of words brings bits of the neighbour, which a mask removes.
struct NarrowInBytes {
  __m256i bias, odd, kept, offset, lo, hi;
  __m128i shift;

  explicit NarrowInBytes(const Narrowing& to) {
    const bool even = to.rounding == Rounding::kHalfEven && to.shift > 0;
    const int half = to.rounding == Rounding::kFloor ? 0 : (1 << to.shift) / 2;
    bias = _mm256_set1_epi8(static_cast<char>(half - (even ? 1 : 0)));
    odd = _mm256_set1_epi8(even ? 1 : 0);
    kept = _mm256_set1_epi8(static_cast<char>(255 >> to.shift));
    offset = _mm256_set1_epi8(static_cast<char>(128 >> to.shift));
    lo = _mm256_set1_epi8(static_cast<char>(to.lo));
    hi = _mm256_set1_epi8(static_cast<char>(to.hi));
    shift = _mm_cvtsi32_si128(to.shift);
  }

  __m256i bytes(__m256i codes) const {
    const __m256i u = _mm256_xor_si256(codes, _mm256_set1_epi8(-128));
    const __m256i lift = _mm256_add_epi8(_mm256_and_si256(_mm256_srl_epi16(u, shift), odd), bias);
    const __m256i t = _mm256_and_si256(_mm256_srl_epi16(_mm256_adds_epu8(u, lift), shift), kept);
    return _mm256_max_epi8(_mm256_min_epi8(_mm256_sub_epi8(t, offset), hi), lo);
  }
};

template <class F>
inline void for_each_32(const int8_t* codes, int64_t n, int8_t* out, const F& narrow) {
  int64_t i = 0;
#pragma GCC unroll 2
  for (; i + 32 <= n; i += 32) store(out + i, narrow.bytes(load(codes + i)));
  if (i == n) return;
  alignas(32) int8_t rest[32] = {};
  for (int64_t j = 0; i + j < n; ++j) rest[j] = codes[i + j];
  store(rest, narrow.bytes(load(rest)));
  for (int64_t j = 0; i + j < n; ++j) out[i + j] = rest[j];
}

}  // namespace

void pack_u8u4(const uint8_t* codes, int64_t n, uint8_t* out) {
  int64_t i = 0;
  for (; i + 64 <= n; i += 64) {
    const __m256i bytes = _mm256_packus_epi16(pairs(load(codes + i)), pairs(load(codes + i + 32)));
    store(out + i / 2, _mm256_permute4x64_epi64(bytes, 0xD8));
  }
  for (; i < n; i += 2) {
    const int high = i + 1 < n ? codes[i + 1] & 15 : 0;
    out[i / 2] = static_cast<uint8_t>((codes[i] & 15) | high << 4);
  }
}

void unpack_u4u8(const uint8_t* packed, int64_t n, bool sign_extend, uint8_t* out) {
  const int sign = sign_extend ? 8 : 0;
  const __m256i signs = _mm256_set1_epi8(static_cast<char>(sign));
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    const __m256i x = _mm256_cvtepu8_epi16(load_half(packed + i / 2));
    const __m256i low = _mm256_and_si256(x, _mm256_set1_epi16(0x000F));
    const __m256i high = _mm256_and_si256(_mm256_slli_epi16(x, 4), _mm256_set1_epi16(0x0F00));
    store(out + i, _mm256_sub_epi8(_mm256_xor_si256(_mm256_or_si256(low, high), signs), signs));
  }
  for (; i < n; ++i) {
    const int nibble = packed[i / 2] >> (4 * (i % 2)) & 15;
    out[i] = static_cast<uint8_t>((nibble ^ sign) - sign);
  }
}

void widen_u8s16(const uint8_t* codes, int64_t n, int32_t zero, int16_t* out) {
  const __m256i offset = _mm256_set1_epi16(static_cast<int16_t>(zero));
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) store(out + i, _mm256_sub_epi16(_mm256_cvtepu8_epi16(load_half(codes + i)), offset));
  for (; i < n; ++i) out[i] = static_cast<int16_t>(codes[i] - zero);
}

void double_round_s8s8(const int8_t* codes, int64_t n, const Narrowing& to, int8_t* out) {
  if (to.hi <= 127 >> to.shift) return for_each_32(codes, n, out, NarrowInBytes(to));
  for_each_32(codes, n, out, Narrow(to));
}

}  // namespace quintil::kernels::avx2
