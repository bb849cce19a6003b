// Nibbles and bytes: two codes per byte, even index in the low nibble, 64 codes at a time.
//
// Pack: the 16-bit lane of a pair is b1 << 8 | b0; shifted right by 4 its low byte becomes b1 << 4, and vpmovwb keeps it.
// Unpack: a packed byte widened to 16 bits holds both nibbles; shifted left by 4 the high one moves to the upper byte.
#include <immintrin.h>

#include <cstdint>

#include "csrc/core/types.h"
#include "csrc/kernels/avx512vnni/kernels.h"
#include "csrc/kernels/avx512vnni/lanes.h"

namespace quintil::kernels::avx512vnni {

namespace {

inline __mmask64 first_bytes(int64_t count) {
  return count >= 64 ? ~__mmask64{0} : (__mmask64{1} << count) - 1;
}

}  // namespace

void pack_u8u4(const uint8_t* codes, int64_t n, uint8_t* out) {
  const __m512i low = _mm512_set1_epi16(0x000F), high = _mm512_set1_epi16(0x00F0);
  for (int64_t i = 0; i < n; i += 64) {
    const __m512i pairs = _mm512_maskz_loadu_epi8(first_bytes(n - i), codes + i);
    const __m512i even = _mm512_and_si512(pairs, low);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi16(pairs, 4), high);
    const __m256i bytes = _mm512_cvtepi16_epi8(_mm512_or_si512(even, odd));
    _mm256_mask_storeu_epi8(out + i / 2, first_of_32((n - i + 1) / 2), bytes);
  }
}

void unpack_u4u8(const uint8_t* packed, int64_t n, bool sign_extend, uint8_t* out) {
  const __m512i low = _mm512_set1_epi16(0x000F), high = _mm512_set1_epi16(0x0F00);
  const __m512i sign = _mm512_set1_epi8(sign_extend ? 8 : 0);
  for (int64_t i = 0; i < n; i += 64) {
    const __m512i pairs = _mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8(first_of_32((n - i + 1) / 2), packed + i / 2));
    const __m512i even = _mm512_and_si512(pairs, low);
    const __m512i odd = _mm512_and_si512(_mm512_slli_epi16(pairs, 4), high);
    const __m512i nibbles = _mm512_xor_si512(_mm512_or_si512(even, odd), sign);
    _mm512_mask_storeu_epi8(out + i, first_bytes(n - i), _mm512_sub_epi8(nibbles, sign));
  }
}

void widen_u8s16(const uint8_t* codes, int64_t n, int32_t zero, int16_t* out) {
  const __m512i offset = _mm512_set1_epi16(static_cast<int16_t>(zero));
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + i));
    _mm512_storeu_si512(out + i, _mm512_sub_epi16(_mm512_cvtepu8_epi16(bytes), offset));
  }
  const __mmask32 rest = first_of_32(n - i);
  const __m512i wide = _mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8(rest, codes + i));
  _mm512_mask_storeu_epi16(out + i, rest, _mm512_sub_epi16(wide, offset));
}

}  // namespace quintil::kernels::avx512vnni
