// The uniform quantisers of HDQT [HDQT H1, H2, H7, H8], 16 elements at a time.
//
// Nearest: the quotient clamped to [lo, hi], converted with nearest-even. Clamping first gives the same code,
//   since lo and hi are integers, and keeps the conversion in range (E8). NaN is found by a comparison, never by what min and
//   max return.
// Stochastic: the random numbers of philox.cpp; int16 with 8 bits in quantize_short.cpp.
// Bounds: |u| is at most 255, thresholds are below 65536 and r + 0.5 is exact in float32.
#include <immintrin.h>

#include <cstdint>

#include "csrc/core/types.h"
#include "csrc/kernels/avx512vnni/kernels.h"
#include "csrc/kernels/avx512vnni/lanes.h"

namespace quintil::kernels::avx512vnni {

namespace {

inline __m512 load(const float* x, __mmask16 lanes) {
  return _mm512_maskz_loadu_ps(lanes, x);
}
inline __m512 load(const int16_t* x, __mmask16 lanes) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(_mm256_maskz_loadu_epi16(lanes, x)));
}
inline __m512 load(const float* x) {
  return _mm512_loadu_ps(x);
}
inline __m512 load(const int16_t* x) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x))));
}

// Both roundings try a product with the reciprocal first. It may miss the quotient by 3 * 2^-24 of it, so what lies further
// from every place where the code changes has the code of the quotient; 16 elements of which one lies nearer are divided.
struct Grid {
  __m512 divisor, lo, hi, inverse, safe;
  __m512i zero;
  bool invertible;

  explicit Grid(const CodeGrid& grid)
      : divisor(_mm512_set1_ps(grid.divisor)),
        lo(_mm512_set1_ps(static_cast<float>(grid.lo))),
        hi(_mm512_set1_ps(static_cast<float>(grid.hi))),
        inverse(_mm512_set1_ps(1.0f / grid.divisor)),
        safe(_mm512_set1_ps(0.5f - 0x1p-14f)),
        zero(_mm512_set1_epi32(grid.zero)),
        invertible(grid.divisor > 1e-30f && grid.divisor < 1e30f) {}

  __m512 limited(__m512 u) const { return _mm512_max_ps(_mm512_min_ps(u, hi), lo); }

  __m128i bytes(__m512i code) const { return _mm512_cvtepi32_epi8(_mm512_add_epi32(code, zero)); }

  __m128i nearest(__m512 x) const {
    const __m512 u = limited(_mm512_mul_ps(x, inverse));
    const __m512i code = _mm512_cvtps_epi32(u);
    const __m512 distance = _mm512_abs_ps(_mm512_sub_ps(u, _mm512_cvtepi32_ps(code)));
    const __mmask16 unsafe = _mm512_cmp_ps_mask(distance, safe, _CMP_GT_OQ) | _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    return __builtin_expect(unsafe != 0 || !invertible, 0) ? divided(x) : bytes(code);
  }

  [[gnu::noinline]] __m128i divided(__m512 x) const {
    const __m512 u = _mm512_div_ps(x, divisor);
    const __mmask16 numbers = _mm512_cmp_ps_mask(u, u, _CMP_ORD_Q);
    return bytes(_mm512_maskz_cvt_roundps_epi32(numbers, limited(u), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }

  // `random` holds integers r, 0 <= r < R = 2^bits. With t = R u rounded to an integer the code is floor((t + R - 1 - r) / R),
  // for t < 0 floor((t + r) / R); another t counts only where the sum comes within `margin` of a multiple of R.
  template <int bits>
  __m128i stochastic(__m512 x, __m512i random) const {
    constexpr int32_t resolution = 1 << bits;
    const int32_t margin = bits == 16 ? 4 : 1;
    const __m512 scale = _mm512_set1_ps(static_cast<float>(resolution));
    const __m512 scaled = _mm512_mul_ps(limited(_mm512_mul_ps(x, inverse)), scale);
    const __m512i t = _mm512_cvtps_epi32(scaled);
    const __m512i mask = _mm512_set1_epi32(resolution - 1);
    const __m512i offset =
        _mm512_ternarylogic_epi32(random, _mm512_srai_epi32(t, 31), mask, 0xD2);  // r ^ (~sign & mask)
    const __m512i sum = _mm512_add_epi32(t, offset);
    const __m512i place = _mm512_and_si512(_mm512_add_epi32(sum, _mm512_set1_epi32(margin)), mask);
    const __mmask16 unsafe =
        _mm512_cmplt_epi32_mask(place, _mm512_set1_epi32(2 * margin)) | _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    if (__builtin_expect(unsafe != 0 || !invertible, 0)) return divided(x, random, scale);
    return bytes(_mm512_srai_epi32(sum, bits));
  }

  // The bounds are integers, so clamping before rounding gives the same code.
  [[gnu::noinline]] __m128i divided(__m512 x, __m512i random, __m512 resolution) const {
    const __m512 quotient = _mm512_div_ps(x, divisor);
    const __mmask16 numbers = _mm512_cmp_ps_mask(quotient, quotient, _CMP_ORD_Q);
    const __m512 u = limited(quotient);
    const __m512 magnitude = _mm512_abs_ps(u);
    const __m512i whole = _mm512_maskz_cvttps_epi32(numbers, magnitude);
    const __m512 threshold = _mm512_mul_ps(resolution, _mm512_sub_ps(magnitude, _mm512_cvtepi32_ps(whole)));
    const __m512 draw = _mm512_add_ps(_mm512_cvtepi32_ps(random), _mm512_set1_ps(0.5f));
    const __mmask16 up = _mm512_mask_cmp_ps_mask(numbers, draw, threshold, _CMP_LT_OQ);
    const __m512i rounded = _mm512_mask_add_epi32(whole, up, whole, _mm512_set1_epi32(1));
    const __mmask16 negative = _mm512_movepi32_mask(_mm512_castps_si512(u));
    return bytes(_mm512_mask_sub_epi32(rounded, negative, _mm512_setzero_si512(), rounded));
  }
};

template <class T>
void nearest(const T* x, int64_t rows, int64_t cols, int64_t ld, const CodeGrid& code_grid, uint8_t* out,
             int64_t out_ld) {
  const Grid grid(code_grid);
  if (ld == cols && out_ld == cols) {
    cols *= rows;
    rows = rows == 0 ? 0 : 1;
  }
  for (int64_t r = 0; r < rows; ++r) {
    const T* from = x + r * ld;
    uint8_t* to = out + r * out_ld;
    int64_t c = 0;
    for (; c + 16 <= cols; c += 16) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to + c), grid.nearest(load(from + c)));
    }
    if (c < cols) {
      const __mmask16 lanes = first_lanes(cols - c);
      _mm_mask_storeu_epi8(to + c, lanes, grid.nearest(load(from + c, lanes)));
    }
  }
}

// The j-th 16 draws of a row, `bits` bits each, from its words.
template <int bits>
inline __m512i draws(const uint32_t* words, int j) {
  constexpr int per_word = 32 / bits;
  const __m512i word = _mm512_load_si512(words + j / per_word * 16);
  const __m512i shifted = _mm512_srli_epi32(word, static_cast<unsigned>(bits * (j % per_word)));
  return _mm512_and_si512(shifted, _mm512_set1_epi32((1 << bits) - 1));
}

// Codes of the columns of one group, at most 4 * 32 / bits vectors of them.
template <int bits, class T>
[[gnu::noinline]] void fill_rows(const T* x, int64_t rows, int64_t cols, int64_t ld, const Grid& grid,
                                 const uint32_t (*words)[64], uint8_t* out, int64_t out_ld) {
  constexpr int vectors = 4 * 32 / bits;
  for (int64_t r = 0; r < rows; ++r, x += ld, out += out_ld) {
#pragma GCC unroll 16
    for (int j = 0; j < vectors; ++j) {
      const int64_t left = cols - 16 * j;
      if (left <= 0) break;
      const __m512i random = draws<bits>(words[r], j);
      if (left < 16) {
        const __mmask16 lanes = first_lanes(left);
        _mm_mask_storeu_epi8(out + 16 * j, lanes, grid.stochastic<bits>(load(x + 16 * j, lanes), random));
        break;
      }
      const __m128i codes = grid.stochastic<bits>(load(x + 16 * j), random);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 16 * j), codes);
    }
  }
}

template <int bits, class T>
void drawn(const T* x, int64_t rows, int64_t cols, int64_t ld, const Grid& grid, const Draw& draw, int64_t row0,
           uint8_t* out, int64_t out_ld) {
  constexpr int64_t span = 16 * 4 * 32 / bits;
  alignas(64) uint32_t words[kDrawRows][64];
  for (int64_t r = 0, count = 0; cols > 0 && r < rows; r += count) {
    for (int64_t c = 0; c < cols; c += span) {
      count = draw_block(draw, static_cast<uint64_t>(row0 + r), rows - r, static_cast<uint32_t>(c / span), words);
      fill_rows<bits>(x + r * ld + c, count, cols - c, ld, grid, words, out + r * out_ld + c, out_ld);
    }
  }
}

template <class T>
void stochastic(const T* x, int64_t rows, int64_t cols, int64_t ld, const CodeGrid& code_grid, const Draw& draw,
                int64_t row0, uint8_t* out, int64_t out_ld) {
  const Grid grid(code_grid);
  if (draw.bits == 16) {
    drawn<16>(x, rows, cols, ld, grid, draw, row0, out, out_ld);
  } else {
    drawn<8>(x, rows, cols, ld, grid, draw, row0, out, out_ld);
  }
}

}  // namespace

void quantize_f32u8(const float* x, int64_t rows, int64_t cols, int64_t ld, const CodeGrid& grid, uint8_t* out,
                    int64_t out_ld) {
  nearest(x, rows, cols, ld, grid, out, out_ld);
}

void quantize_s16u8(const int16_t* x, int64_t rows, int64_t cols, int64_t ld, const CodeGrid& grid, uint8_t* out,
                    int64_t out_ld) {
  nearest(x, rows, cols, ld, grid, out, out_ld);
}

void quantize_f32u8_stochastic(const float* x, int64_t rows, int64_t cols, int64_t ld, const CodeGrid& grid,
                               const Draw& draw, int64_t row0, uint8_t* out, int64_t out_ld) {
  stochastic(x, rows, cols, ld, grid, draw, row0, out, out_ld);
}

void quantize_s16u8_stochastic(const int16_t* x, int64_t rows, int64_t cols, int64_t ld, const CodeGrid& grid,
                               const Draw& draw, int64_t row0, uint8_t* out, int64_t out_ld) {
  if (draw.bits == 8 && quantize_short_codes(x, rows, cols, ld, grid, draw, row0, out, out_ld)) return;
  stochastic(x, rows, cols, ld, grid, draw, row0, out, out_ld);
}

}  // namespace quintil::kernels::avx512vnni
