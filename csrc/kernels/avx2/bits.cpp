// Nibble packing and widening of codes, a vector at a time; the last few codes one by one.
//
// Pack: vpmaddubsw by the bytes (1, 16) makes low + 16 * high of each pair, at most 255, in a word; vpackuswb takes the low
//   bytes in 128-bit halves, so vpermq puts the quarters in order.
// Unpack: a packed byte widened to a word x has its codes at x & 0x000F and (x << 4) & 0x0F00, so the two bytes of the word are
//   the two codes. A nibble n >= 8 stands for n - 16 = (n ^ 8) - 8.
#include <immintrin.h>

#include <cstdint>

#include "csrc/core/types.h"
#include "csrc/kernels/avx2/kernels.h"

namespace quintil::kernels::avx2 {

namespace {

inline __m256i load(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}
inline __m128i load_half(const void* p) {
  return _mm_loadu_si128(static_cast<const __m128i*>(p));
}
inline void store(void* p, __m256i v) {
  _mm256_storeu_si256(static_cast<__m256i*>(p), v);
}

inline __m256i pairs(__m256i codes) {
  return _mm256_maddubs_epi16(_mm256_and_si256(codes, _mm256_set1_epi8(15)), _mm256_set1_epi16(0x1001));
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

}  // namespace quintil::kernels::avx2
