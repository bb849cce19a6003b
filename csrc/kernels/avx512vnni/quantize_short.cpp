// Stochastic codes of int16 with 8 random bits each [HDQT H8], 64 at a time and without a division.
//
// Law: u = x / divisor, n = floor |u|, up iff r + 0.5 < 256 (|u| - n). With t(x) = ceil(256 |u| - 0.5), an integer, that is
//   code = floor((t + 255 - r) / 256), and for negative x, with t counted negative, floor((t + r) / 256).
// t depends on x alone, and the transformed codes of a layer have some hundred values: a reciprocal K = 256 / divisor is taken
//   for the division only if rint(x * K) is t(x) for every x up to the first one whose |u| reaches hi. That is tried out per
//   call, since a product next to a tie can fall on its other side; where it does, or where a trial would cost more than
//   it saves, nothing is written and the caller divides.
// Layout: dword l of a call's word w holds the random bytes of columns 64 w + l + {0, 16, 32, 48}. So t of those four columns is
//   brought into one dword, as two int16 in each of two registers; packing leaves them as four bytes, and a transpose of
//   4 x 4 dwords puts the columns in order.
// Bounds: hi <= 127, so |t| + 255 <= 32767 and nothing wraps; x is limited first to where t = 256 hi.
#include <immintrin.h>

#include <cstdint>

#include "csrc/core/types.h"
#include "csrc/kernels/avx512vnni/kernels.h"
#include "csrc/kernels/avx512vnni/lanes.h"

namespace quintil::kernels::avx512vnni {

namespace {

constexpr int64_t kValuesPerTrial = 16;  // a trial pays off if there are that many elements for each value it tries

// t by the law, for 16 non-negative x.
inline __m512i exact_parts(__m512 x, float divisor, float hi) {
  const __m512 u = _mm512_min_ps(_mm512_div_ps(x, _mm512_set1_ps(divisor)), _mm512_set1_ps(hi));
  const __m512 parts = _mm512_sub_ps(_mm512_mul_ps(u, _mm512_set1_ps(256.0f)), _mm512_set1_ps(0.5f));
  return _mm512_cvtps_epi32(_mm512_roundscale_ps(parts, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC));
}

// Whether rint(x * factor) is t(x) for x = 0 .. top.
bool is_exact(float factor, int32_t top, float divisor, float hi) {
  __m512 x = _mm512_cvtepi32_ps(_mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0));
  for (int32_t first = 0; first <= top; first += 16) {
    const __mmask16 tried = first_lanes(top + 1 - first);
    const __m512i product = _mm512_cvtps_epi32(_mm512_mul_ps(x, _mm512_set1_ps(factor)));
    if (_mm512_mask_cmpneq_epi32_mask(tried, product, exact_parts(x, divisor, hi)) != 0) return false;
    x = _mm512_add_ps(x, _mm512_set1_ps(16.0f));
  }
  return true;
}

// The reciprocal and the largest magnitude that differs from those below it; most = 0 if the reciprocal is not exact.
struct Reciprocal {
  __m512 factor;
  int32_t most = 0;

  Reciprocal(const CodeGrid& grid, int64_t elements) {
    const float hi = static_cast<float>(grid.hi), end = hi * grid.divisor;
    if (grid.lo != -grid.hi || !(end >= 1.0f && end < 32000.0f)) return;
    auto top = static_cast<int32_t>(end) - 1;  // from here to the first x whose t is 256 hi
    while (256.0f * (static_cast<float>(top) / grid.divisor) <= 256.0f * hi - 0.5f) ++top;
    if (elements < kValuesPerTrial * top) return;
    if (!is_exact(256.0f / grid.divisor, top, grid.divisor, hi)) return;
    factor = _mm512_set1_ps(256.0f / grid.divisor);
    most = top;
  }
};

// t of 32 columns c as int16: columns l in the low halves of the dwords, columns 16 + l in the high ones.
inline __m512i parts(__m512i x, const Reciprocal& reciprocal) {
  x = _mm512_max_epi16(x, _mm512_set1_epi16(static_cast<int16_t>(-reciprocal.most)));
  x = _mm512_min_epi16(x, _mm512_set1_epi16(static_cast<int16_t>(reciprocal.most)));
  const __m512 low = _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(_mm512_castsi512_si256(x)));
  const __m512 high = _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(x, 1)));
  const __m512i low_parts = _mm512_cvtps_epi32(_mm512_mul_ps(low, reciprocal.factor));
  const __m512i high_parts = _mm512_cvtps_epi32(_mm512_mul_ps(high, reciprocal.factor));
  return _mm512_mask_blend_epi16(0xAAAAAAAAu, low_parts, _mm512_slli_epi32(high_parts, 16));
}

// code = (t + (t < 0 ? r : 255 - r)) >> 8 for 32 columns; `rest` holds 255 - r in the same places as t.
inline __m512i codes_of(__m512i t, __m512i rest) {
  const __m512i sign = _mm512_srai_epi16(t, 15);
  const __m512i offset = _mm512_ternarylogic_epi32(rest, sign, _mm512_set1_epi16(0xFF), 0x78);  // rest ^ (sign & 255)
  return _mm512_srai_epi16(_mm512_add_epi16(t, offset), 8);
}

// The order of bytes on the way: the four random bytes of a dword to the low bytes of two int16 (80: zero), packed codes to
// dwords of four neighbouring columns, and these dwords to their places.
inline __m512i in_every_lane(int32_t d0, int32_t d1, int32_t d2, int32_t d3) {
  return _mm512_broadcast_i32x4(_mm_set_epi32(d3, d2, d1, d0));
}

// 64 columns; `random` is the word of their draws.
inline __m512i codes64(__m512i first, __m512i second, __m512i random, const Reciprocal& reciprocal) {
  const __m512i rest = _mm512_ternarylogic_epi32(random, random, random, 0x55);  // 255 - r
  const __m512i low_bytes = in_every_lane(static_cast<int32_t>(0x80018000), static_cast<int32_t>(0x80058004),
                                          static_cast<int32_t>(0x80098008), static_cast<int32_t>(0x800D800C));
  const __m512i high_bytes = _mm512_add_epi32(low_bytes, _mm512_set1_epi32(0x00020002));
  const __m512i low = codes_of(parts(first, reciprocal), _mm512_shuffle_epi8(rest, low_bytes));
  const __m512i high = codes_of(parts(second, reciprocal), _mm512_shuffle_epi8(rest, high_bytes));
  const __m512i neighbours = in_every_lane(0x06040200, 0x07050301, 0x0E0C0A08, 0x0F0D0B09);
  const __m512i places = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
  return _mm512_permutexvar_epi32(places, _mm512_shuffle_epi8(_mm512_packs_epi16(low, high), neighbours));
}

// Codes of at most 256 columns of some rows. Not inlined: it has the registers for itself.
[[gnu::noinline]] void fill_rows(const int16_t* x, int64_t rows, int64_t cols, int64_t ld, const Reciprocal& reciprocal,
                                 int32_t zero, const uint32_t (*words)[64], uint8_t* out, int64_t out_ld) {
  const __m512i offset = _mm512_set1_epi8(static_cast<char>(zero));
  for (int64_t r = 0; r < rows; ++r, x += ld, out += out_ld) {
    for (int64_t c = 0; c < cols && c < 256; c += 64) {
      const uint64_t lanes = cols - c >= 64 ? ~uint64_t{0} : (uint64_t{1} << (cols - c)) - 1;
      const __m512i first = _mm512_maskz_loadu_epi16(static_cast<__mmask32>(lanes), x + c);
      const __m512i second = _mm512_maskz_loadu_epi16(static_cast<__mmask32>(lanes >> 32), x + c + 32);
      const __m512i codes = codes64(first, second, _mm512_load_si512(words[r] + c / 4), reciprocal);
      _mm512_mask_storeu_epi8(out + c, lanes, _mm512_add_epi8(codes, offset));
    }
  }
}

}  // namespace

bool quantize_short_codes(const int16_t* x, int64_t rows, int64_t cols, int64_t ld, const CodeGrid& grid,
                          const Draw& draw, int64_t row0, uint8_t* out, int64_t out_ld) {
  const Reciprocal reciprocal(grid, rows * cols);
  if (reciprocal.most == 0) return false;
  alignas(64) uint32_t words[kDrawRows][64];
  for (int64_t r = 0, count = 0; cols > 0 && r < rows; r += count) {
    for (int64_t c = 0; c < cols; c += 256) {
      count = draw_block(draw, static_cast<uint64_t>(row0 + r), rows - r, static_cast<uint32_t>(c / 256), words);
      fill_rows(x + r * ld + c, count, cols - c, ld, reciprocal, grid.zero, words, out + r * out_ld + c, out_ld);
    }
  }
  return true;
}

}  // namespace quintil::kernels::avx512vnni
