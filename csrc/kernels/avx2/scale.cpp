// Matrices with a scale for every column: integer sums to real numbers and on to codes, real numbers to codes. Eight columns
// at a time.
//
// The law in its order: factors one after another, bias, residual, ReLU; divide, clamp, round to nearest even (clamping first
//   gives the same code, since the limits are integers). An absent bias or residual is -0.0, the one number whose sum with any
//   x is x. NaN passes a ReLU, whose maximum has it as the second operand, and has the code 0.
// Codes, -128..255, are cut to a byte before they are packed, so that nothing saturates; zero is added modulo 256.
#include <immintrin.h>

#include <cstdint>

#include "csrc/core/types.h"
#include "csrc/kernels/avx2/kernels.h"
#include "csrc/kernels/avx2/lanes.h"

namespace quintil::kernels::avx2 {

namespace {

constexpr int64_t kStep = 8;

// Eight columns, or the first ones of them: how they are read and written.
struct Whole {
  __m256i load(const int32_t* p) const { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  __m256 load(const float* p) const { return _mm256_loadu_ps(p); }
  void store(float* p, __m256 v) const { _mm256_storeu_ps(p, v); }
  void store(uint8_t* p, __m128i bytes) const { _mm_storel_epi64(reinterpret_cast<__m128i*>(p), bytes); }
};

struct Part {
  int64_t count;
  __m256i mask;

  explicit Part(int64_t n) : count(n), mask(first_lanes(n)) {}
  __m256i load(const int32_t* p) const { return _mm256_maskload_epi32(p, mask); }
  __m256 load(const float* p) const { return _mm256_maskload_ps(p, mask); }
  void store(float* p, __m256 v) const { _mm256_maskstore_ps(p, mask, v); }
  void store(uint8_t* p, __m128i bytes) const {
    uint64_t rest = static_cast<uint64_t>(_mm_cvtsi128_si64(bytes));
    for (int64_t i = 0; i < count; ++i, rest >>= 8) p[i] = static_cast<uint8_t>(rest);
  }
};

// f(row, column, lanes) for all groups of columns of all rows.
template <class F>
inline void for_each_group(int64_t rows, int64_t cols, F f) {
  const int64_t whole = cols / kStep * kStep;
  const Part part(cols - whole);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < whole; c += kStep) f(r, c, Whole{});
    if (whole < cols) f(r, whole, part);
  }
}

struct RealNumbers {
  const ColumnEpilogue& e;
  __m256 scale, inverse, least;

  explicit RealNumbers(const ColumnEpilogue& epilogue)
      : e(epilogue),
        scale(_mm256_set1_ps(epilogue.scale)),
        inverse(_mm256_set1_ps(epilogue.inverse)),
        least(_mm256_set1_ps(epilogue.relu ? 0.0f : -__builtin_inff())) {}

  template <class Lanes>
  __m256 at(int64_t row, int64_t column, __m256i total, const Lanes& lanes) const {
    const __m256 absent = _mm256_set1_ps(-0.0f);
    __m256 value = _mm256_mul_ps(_mm256_cvtepi32_ps(total), lanes.load(e.column_scale + column));
    value = _mm256_mul_ps(_mm256_mul_ps(value, scale), inverse);
    value = _mm256_add_ps(value, e.bias == nullptr ? absent : lanes.load(e.bias + column));
    value =
        _mm256_add_ps(value, e.residual == nullptr ? absent : lanes.load(e.residual + row * e.residual_ld + column));
    return _mm256_max_ps(least, value);
  }
};

struct Codes {
  __m256 divisor, lo, hi;
  __m128i zero;  // bytes

  explicit Codes(const CodeGrid& grid)
      : divisor(_mm256_set1_ps(grid.divisor)),
        lo(_mm256_set1_ps(static_cast<float>(grid.lo))),
        hi(_mm256_set1_ps(static_cast<float>(grid.hi))),
        zero(_mm_set1_epi8(static_cast<char>(grid.zero))) {}

  // Eight bytes.
  __m128i of(__m256 x) const {
    const __m256 u = _mm256_div_ps(x, divisor);
    const __m256 number = _mm256_cmp_ps(u, u, _CMP_ORD_Q);
    const __m256i rounded = _mm256_cvtps_epi32(_mm256_max_ps(_mm256_min_ps(u, hi), lo));
    const __m256i byte =
        _mm256_and_si256(rounded, _mm256_and_si256(_mm256_castps_si256(number), _mm256_set1_epi32(255)));
    const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(byte), _mm256_extracti128_si256(byte, 1));
    return _mm_add_epi8(_mm_packus_epi16(words, words), zero);
  }
};

}  // namespace

void scale_s32f32_columns(const int32_t* x, int64_t rows, int64_t cols, int64_t ld, const ColumnEpilogue& e, float* out,
                          int64_t out_ld) {
  const RealNumbers numbers(e);
  for_each_group(rows, cols, [&](int64_t r, int64_t c, const auto& lanes) {
    lanes.store(out + r * out_ld + c, numbers.at(r, c, lanes.load(x + r * ld + c), lanes));
  });
}

void scale_s32u8_columns(const int32_t* x, int64_t rows, int64_t cols, int64_t ld, const ColumnEpilogue& e,
                         const CodeGrid& grid, uint8_t* out, int64_t out_ld) {
  const RealNumbers numbers(e);
  const Codes codes(grid);
  for_each_group(rows, cols, [&](int64_t r, int64_t c, const auto& lanes) {
    lanes.store(out + r * out_ld + c, codes.of(numbers.at(r, c, lanes.load(x + r * ld + c), lanes)));
  });
}

void quantize_f32u8_columns(const float* x, int64_t rows, int64_t cols, int64_t ld, const float* gain,
                            const float* shift, const CodeGrid& grid, uint8_t* out, int64_t out_ld) {
  const Codes codes(grid);
  for_each_group(rows, cols, [&](int64_t r, int64_t c, const auto& lanes) {
    const __m256 product = _mm256_mul_ps(lanes.load(x + r * ld + c), lanes.load(gain + c));
    lanes.store(out + r * out_ld + c, codes.of(_mm256_add_ps(product, lanes.load(shift + c))));
  });
}

}  // namespace quintil::kernels::avx2
