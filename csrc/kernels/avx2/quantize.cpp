// The uniform quantisers of HDQT [HDQT H1, H2, H7, H8], 32 elements at a time.
//
// Both: a true division, then clamp to [lo, hi]. Clamping before rounding gives the same code, since lo and hi are integers, and
//   keeps conversions in range (E8). NaN is found by a comparison, never by what min and max return.
// Nearest: convert with nearest-even. Stochastic: cut off |u|, add 1 where the draw says so, vpsignd by u (0 if u is +0).
// Draws: philox.h.
// Bytes: vpackssdw and vpackuswb work in 128-bit halves, so 32 codes leave them in dword order 0 2 4 6 1 3 5 7 and vpermd puts
//   them right. Codes, -128..255, are cut to a byte in between, so that nothing saturates; zero is added modulo 256.
// Bounds: thresholds are below 65536 and r + 0.5 is exact in float32.
#include <immintrin.h>

#include <cstdint>

#include "csrc/core/types.h"
#include "csrc/kernels/avx2/kernels.h"
#include "csrc/kernels/avx2/lanes.h"
#include "csrc/kernels/avx2/philox.h"

namespace quintil::kernels::avx2 {

namespace {

constexpr int64_t kStep = 32;  // elements of one store of codes

// Eight elements as floats; of the first `count` only those exist, the rest are 0.
inline __m256 load8(const float* x) {
  return _mm256_loadu_ps(x);
}
inline __m256 load8(const float* x, int64_t count) {
  return _mm256_maskload_ps(x, first_lanes(count));
}
inline __m256 load8(const int16_t* x) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x))));
}
inline __m256 load8(const int16_t* x, int64_t count) {
  if (count >= 8) return load8(x);
  alignas(16) int16_t lanes[8] = {};
  for (int64_t i = 0; i < count; ++i) lanes[i] = x[i];
  return load8(lanes);
}

// The first `count` < 32 bytes.
inline void store_first(uint8_t* out, int64_t count, __m256i codes) {
  __m128i half = _mm256_castsi256_si128(codes);
  if (count & 16) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), half);
    half = _mm256_extracti128_si256(codes, 1);
    out += 16;
  }
  if (count & 8) {
    _mm_storel_epi64(reinterpret_cast<__m128i*>(out), half);
    half = _mm_srli_si128(half, 8);
    out += 8;
  }
  uint64_t rest = static_cast<uint64_t>(_mm_cvtsi128_si64(half));
  for (int64_t i = 0; i < (count & 7); ++i, rest >>= 8) out[i] = static_cast<uint8_t>(rest);
}

struct Grid {
  __m256 divisor, lo, hi;
  __m256i zero;  // bytes

  explicit Grid(const CodeGrid& grid)
      : divisor(_mm256_set1_ps(grid.divisor)),
        lo(_mm256_set1_ps(static_cast<float>(grid.lo))),
        hi(_mm256_set1_ps(static_cast<float>(grid.hi))),
        zero(_mm256_set1_epi8(static_cast<char>(grid.zero))) {}

  __m256 clamped(__m256 u) const { return _mm256_max_ps(_mm256_min_ps(u, hi), lo); }

  __m256i nearest(__m256 x) const {
    const __m256 u = _mm256_div_ps(x, divisor);
    return numbers_only(_mm256_cvtps_epi32(clamped(u)), u);
  }

  // `random` holds integers 0 .. resolution - 1.
  __m256i stochastic(__m256 x, __m256i random, __m256 resolution) const {
    const __m256 u = _mm256_div_ps(x, divisor), v = clamped(u);
    const __m256 magnitude = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v);
    const __m256i whole = _mm256_cvttps_epi32(magnitude);
    const __m256 threshold = _mm256_mul_ps(resolution, _mm256_sub_ps(magnitude, _mm256_cvtepi32_ps(whole)));
    const __m256 draw = _mm256_add_ps(_mm256_cvtepi32_ps(random), _mm256_set1_ps(0.5f));
    const __m256i up = _mm256_castps_si256(_mm256_cmp_ps(draw, threshold, _CMP_LT_OQ));  // -1 or 0
    return numbers_only(_mm256_sign_epi32(_mm256_sub_epi32(whole, up), _mm256_castps_si256(v)), u);
  }

  // 4 x 8 codes as 32 stored bytes in their order.
  __m256i bytes(__m256i a, __m256i b, __m256i c, __m256i d) const {
    const __m256i byte = _mm256_set1_epi16(255);
    const __m256i low = _mm256_and_si256(_mm256_packs_epi32(a, b), byte),
                  high = _mm256_and_si256(_mm256_packs_epi32(c, d), byte);
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    return _mm256_add_epi8(_mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high), order), zero);
  }

 private:
  // The code 0 where u is no number.
  static __m256i numbers_only(__m256i code, __m256 u) {
    return _mm256_and_si256(code, _mm256_castps_si256(_mm256_cmp_ps(u, u, _CMP_ORD_Q)));
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
  const auto codes = [&](auto x8) {
    return grid.bytes(grid.nearest(x8(0)), grid.nearest(x8(1)), grid.nearest(x8(2)), grid.nearest(x8(3)));
  };
  for (int64_t r = 0; r < rows; ++r) {
    const T* from = x + r * ld;
    uint8_t* to = out + r * out_ld;
    int64_t c = 0;
    for (; c + kStep <= cols; c += kStep) store(to + c, codes([&](int i) { return load8(from + c + 8 * i); }));
    if (c < cols)
      store_first(to + c, cols - c, codes([&](int i) { return load8(from + c + 8 * i, cols - c - 8 * i); }));
  }
}

// Codes of the columns of one group, at most 4 * 32 / bits halves of a step of them.
template <int bits, class T>
[[gnu::noinline]] void fill_rows(const T* x, int64_t rows, int64_t cols, int64_t ld, const Grid& grid,
                                 const __m256i (*words)[8], uint8_t* out, int64_t out_ld) {
  constexpr int per_word = 32 / bits, steps = 2 * per_word;
  const __m256 resolution = _mm256_set1_ps(static_cast<float>(1 << bits));
  const __m256i mask = _mm256_set1_epi32((1 << bits) - 1);
  for (int64_t r = 0; r < rows; ++r, x += ld, out += out_ld) {
#pragma GCC unroll 8
    for (int j = 0; j < steps; ++j) {
      const int64_t left = cols - kStep * j;
      if (left <= 0) break;
      const auto codes = [&](auto x8) {  // draws 2 j and 2 j + 1 of the call, 16 columns each
        const __m256i* word = words[r] + 2 * j / per_word * 2;
        const int shift = 2 * j % per_word * bits;
        __m256i code[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
          const int first_bit = shift + i / 2 * bits;
          const __m256i bits_on = first_bit == 0 ? word[i & 1] : _mm256_srli_epi32(word[i & 1], first_bit);
          const __m256i random = first_bit + bits == 32 ? bits_on : _mm256_and_si256(bits_on, mask);
          code[i] = grid.stochastic(x8(i), random, resolution);
        }
        return grid.bytes(code[0], code[1], code[2], code[3]);
      };
      const T* from = x + kStep * j;
      if (left < kStep) {
        store_first(out + kStep * j, left, codes([&](int i) { return load8(from + 8 * i, left - 8 * i); }));
        break;
      }
      store(out + kStep * j, codes([&](int i) { return load8(from + 8 * i); }));
    }
  }
}

template <int bits, class T>
void drawn(const T* x, int64_t rows, int64_t cols, int64_t ld, const Grid& grid, const Draw& draw, int64_t row0,
           uint8_t* out, int64_t out_ld) {
  for_each_block<bits>(rows, cols, draw, row0, [&](int64_t r, int64_t c, int64_t count, const __m256i(*words)[8]) {
    fill_rows<bits>(x + r * ld + c, count, cols - c, ld, grid, words, out + r * out_ld + c, out_ld);
  });
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
  stochastic(x, rows, cols, ld, grid, draw, row0, out, out_ld);
}

}  // namespace quintil::kernels::avx2
