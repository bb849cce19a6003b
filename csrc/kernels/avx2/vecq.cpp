// Half-integer levels, and the sums that their step and length come from [VECQ V3-V9], eight elements at a time.
//
// Levels in the order of the law: divide, subtract 1/2, round, clamp, add 1/2. Clamps take the number as the second
//   operand, which min and max return where one is NaN or both are zeros. Codes are the rounded numbers before the 1/2
//   is added, NaN masked to 0; two packs with signed saturation narrow them, which no code of the grid reaches.
// Sums (N8): floats are exact in double, and so are their products; lanes 0..3 and 4..7 go to two registers of four
//   partial sums, so that element i lands in partial i % 8. Lanes beyond the end add +0.0, which changes no sum that
//   began at +0.0.
#include <immintrin.h>

#include <cstdint>

#include "csrc/core/types.h"
#include "csrc/kernels/avx2/kernels.h"
#include "csrc/kernels/avx2/lanes.h"

namespace quintil::kernels::avx2 {

namespace {

// -1 in the first `count` < 8 lanes.

struct Eight {
  __m256d low, high;

  explicit Eight(__m256 v)
      : low(_mm256_cvtps_pd(_mm256_castps256_ps128(v))), high(_mm256_cvtps_pd(_mm256_extractf128_ps(v, 1))) {}
  Eight(__m256d a, __m256d b) : low(a), high(b) {}
};

inline Eight operator*(const Eight& a, const Eight& b) {
  return {_mm256_mul_pd(a.low, b.low), _mm256_mul_pd(a.high, b.high)};
}
inline Eight operator-(const Eight& a, const Eight& b) {
  return {_mm256_sub_pd(a.low, b.low), _mm256_sub_pd(a.high, b.high)};
}
inline Eight operator&(const Eight& a, const Eight& mask) {
  return {_mm256_and_pd(a.low, mask.low), _mm256_and_pd(a.high, mask.high)};
}

// The masks of eight lanes, for four doubles each.
inline Eight double_lanes(__m256i lanes) {
  return {_mm256_castsi256_pd(_mm256_cvtepi32_epi64(_mm256_castsi256_si128(lanes))),
          _mm256_castsi256_pd(_mm256_cvtepi32_epi64(_mm256_extracti128_si256(lanes, 1)))};
}

// Eight partial sums.
struct Partials {
  __m256d low = _mm256_setzero_pd(), high = _mm256_setzero_pd();

  void add(const Eight& terms) {
    low = _mm256_add_pd(low, terms.low);
    high = _mm256_add_pd(high, terms.high);
  }
  double total() const {
    alignas(32) double s[8];
    _mm256_store_pd(s, low);
    _mm256_store_pd(s + 4, high);
    return ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
  }
};

struct Grid {
  __m256 divisor, lo, hi, half = _mm256_set1_ps(0.5f);

  explicit Grid(const LevelGrid& g)
      : divisor(_mm256_set1_ps(g.divisor)), lo(_mm256_set1_ps(g.lo)), hi(_mm256_set1_ps(g.hi)) {}

  // Levels less 1/2.
  __m256 below(__m256 x) const {
    const __m256 u = _mm256_sub_ps(_mm256_div_ps(x, divisor), half);
    const __m256 t = _mm256_round_ps(u, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    return _mm256_max_ps(lo, _mm256_min_ps(hi, t));
  }
  __m256 level(__m256 x) const { return _mm256_add_ps(below(x), half); }
};

inline void store_codes(__m256i codes, int8_t* out) {
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(codes), _mm256_extracti128_si256(codes, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(out), _mm_packs_epi16(words, words));
}
inline void store_codes(__m256i codes, int16_t* out) {
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(codes), _mm256_extracti128_si256(codes, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), words);
}

inline int32_t extreme(__m256i v, bool largest) {
  alignas(32) int32_t lane[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lane), v);
  int32_t result = lane[0];
  for (int i = 1; i < 8; ++i) {
    if (largest ? lane[i] > result : lane[i] < result) result = lane[i];
  }
  return result;
}

template <class Code>
LevelSums steer(const float* x, int64_t n, const LevelGrid& level_grid, Code* codes) {
  const Grid grid(level_grid);
  Partials vx, vv, xx;
  __m256i least = _mm256_cvtps_epi32(grid.hi), most = _mm256_cvtps_epi32(grid.lo);
  const auto codes_of = [](__m256 q) { return _mm256_cvtps_epi32(_mm256_and_ps(q, _mm256_cmp_ps(q, q, _CMP_ORD_Q))); };
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m256 number = _mm256_loadu_ps(x + i), q = grid.below(number);
    const __m256i code = codes_of(q);
    store_codes(code, codes + i);
    least = _mm256_min_epi32(least, code);
    most = _mm256_max_epi32(most, code);
    const Eight a(number), v(_mm256_add_ps(q, grid.half));
    vx.add(v * a);
    vv.add(v * v);
    xx.add(a * a);
  }
  if (i < n) {
    const __m256i lanes = first_lanes(n - i);
    const __m256 number = _mm256_maskload_ps(x + i, lanes), q = grid.below(number);
    const __m256i code = codes_of(q);
    Code last[8];
    store_codes(code, last);
    for (int64_t j = 0; i + j < n; ++j) codes[i + j] = last[j];
    least = _mm256_min_epi32(least, _mm256_blendv_epi8(least, code, lanes));
    most = _mm256_max_epi32(most, _mm256_blendv_epi8(most, code, lanes));
    const Eight a(number), v(_mm256_add_ps(q, grid.half)), mask = double_lanes(lanes);
    vx.add((v * a) & mask);
    vv.add((v * v) & mask);
    xx.add((a * a) & mask);
  }
  return {vx.total(), vv.total(), xx.total(), extreme(least, false), extreme(most, true)};
}

// Values of the levels; `blended` with a ratio other than 0.
template <bool blended>
struct Value {
  __m256 alpha, ratio, floor, ceiling;

  explicit Value(const LevelValue& v)
      : alpha(_mm256_set1_ps(v.alpha)),
        ratio(_mm256_set1_ps(v.ratio)),
        floor(_mm256_set1_ps(v.floor)),
        ceiling(_mm256_set1_ps(v.ceiling)) {}

  __m256 of(__m256 x, const Grid& grid) const {
    const __m256 y = _mm256_mul_ps(alpha, grid.level(x));
    if constexpr (!blended) return y;
    const __m256 inside = _mm256_max_ps(floor, _mm256_min_ps(ceiling, x));
    return _mm256_add_ps(y, _mm256_mul_ps(ratio, _mm256_sub_ps(inside, y)));
  }
};

template <bool blended>
void drive(const float* x, int64_t n, const LevelGrid& level_grid, const LevelValue& level_value, float* y) {
  const Grid grid(level_grid);
  const Value<blended> value(level_value);
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) _mm256_storeu_ps(y + i, value.of(_mm256_loadu_ps(x + i), grid));
  if (i == n) return;
  const __m256i lanes = first_lanes(n - i);
  _mm256_maskstore_ps(y + i, lanes, value.of(_mm256_maskload_ps(x + i, lanes), grid));
}

}  // namespace

Moments moments_f32(const float* x, int64_t n, float pivot) {
  const Eight centre(_mm256_set1_ps(pivot));
  Partials sum, squares;
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const Eight d = Eight(_mm256_loadu_ps(x + i)) - centre;
    sum.add(d);
    squares.add(d * d);
  }
  if (i < n) {
    const __m256i lanes = first_lanes(n - i);
    const Eight d = (Eight(_mm256_maskload_ps(x + i, lanes)) - centre) & double_lanes(lanes);
    sum.add(d);
    squares.add(d * d);
  }
  return {sum.total(), squares.total()};
}

LevelSums steer_f32s8(const float* x, int64_t n, const LevelGrid& grid, int8_t* codes) {
  return steer(x, n, grid, codes);
}
LevelSums steer_f32s16(const float* x, int64_t n, const LevelGrid& grid, int16_t* codes) {
  return steer(x, n, grid, codes);
}

void drive_f32f32(const float* x, int64_t n, const LevelGrid& grid, const LevelValue& value, float* y) {
  return value.ratio == 0.0f ? drive<false>(x, n, grid, value, y) : drive<true>(x, n, grid, value, y);
}

PairSums compare_f32f32(const float* x, const float* y, int64_t n) {
  Partials xy, yy, xx, error;
  const auto add = [&](__m256 number, __m256 other) {
    const Eight a(number), b(other), d = a - b;
    xy.add(a * b);
    yy.add(b * b);
    xx.add(a * a);
    error.add(d * d);
  };
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) add(_mm256_loadu_ps(x + i), _mm256_loadu_ps(y + i));
  if (i < n) {
    const __m256i lanes = first_lanes(n - i);
    add(_mm256_maskload_ps(x + i, lanes), _mm256_maskload_ps(y + i, lanes));
  }
  return {xy.total(), yy.total(), xx.total(), error.total()};
}

}  // namespace quintil::kernels::avx2
