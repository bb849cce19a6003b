// Fast Walsh-Hadamard transforms [HDQT H5] in registers: the butterflies h = 1, 2, 4, ... of the definition, regrouped into
// radix 8, which moves loads and stores but no addition (E6).
//
// Columns: only vertical u+v and u-v, in place, one pass over a strip for each factor 8 of the order. A strip is 512 bytes of
//   each row: narrower ones read rows a power of two apart through a few sets of L1, which took 4 times as long on 64 rows of
//   a 2 KB stride. Columns that fill no vector are moved by masks.
// Rows: h = 1, 2, 4 inside a vector of eight, v' = swapped + (v with the sign of its lower partners changed), which is u+v in
//   the upper and u-v in the lower lanes; then up to eight vectors, 64 elements, across registers. A longer run is a matrix of
//   rows of 64 elements whose columns are transformed.
// Registers: 8 vectors of a radix-8 step and its temporaries.
// Bounds: integers wrap; partial sums fit whenever order * max|x| does, which the contract demands.
#include <immintrin.h>

#include <cstdint>

#include "csrc/core/types.h"
#include "csrc/kernels/avx2/kernels.h"
#include "csrc/kernels/avx2/lanes.h"

namespace quintil::kernels::avx2 {

namespace {

constexpr int64_t kRun = 64;          // elements of a row that eight vectors hold
constexpr int64_t kStripBytes = 512;  // of one row; 64 of them stay in L1

// Vectors of each type. A `Part` is the first few lanes of one.
struct F32 {
  using Element = float;
  using Vector = __m256;
  static Vector load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, Vector v) { _mm256_storeu_ps(p, v); }
  static Vector plus(Vector a, Vector b) { return _mm256_add_ps(a, b); }
  static Vector minus(Vector a, Vector b) { return _mm256_sub_ps(a, b); }
  static Vector flipped(Vector v, __m256i lanes) {
    return _mm256_xor_ps(v, _mm256_and_ps(_mm256_castsi256_ps(lanes), _mm256_set1_ps(-0.0f)));
  }
  static Vector swapped_1(Vector v) { return _mm256_permute_ps(v, 0xB1); }
  static Vector swapped_2(Vector v) { return _mm256_permute_ps(v, 0x4E); }
  static Vector swapped_4(Vector v) { return _mm256_permute2f128_ps(v, v, 1); }

  struct Part {
    __m256i lanes;
    explicit Part(int64_t count) : lanes(first_lanes(count)) {}
    Vector load(const float* p) const { return _mm256_maskload_ps(p, lanes); }
    void store(float* p, Vector v) const { _mm256_maskstore_ps(p, lanes, v); }
  };
};

struct S32 {
  using Element = int32_t;
  using Vector = __m256i;
  static Vector load(const int32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  static void store(int32_t* p, Vector v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
  static Vector plus(Vector a, Vector b) { return _mm256_add_epi32(a, b); }
  static Vector minus(Vector a, Vector b) { return _mm256_sub_epi32(a, b); }
  static Vector flipped(Vector v, __m256i lanes) { return _mm256_sub_epi32(_mm256_xor_si256(v, lanes), lanes); }
  static Vector swapped_1(Vector v) { return _mm256_shuffle_epi32(v, 0xB1); }
  static Vector swapped_2(Vector v) { return _mm256_shuffle_epi32(v, 0x4E); }
  static Vector swapped_4(Vector v) { return _mm256_permute2x128_si256(v, v, 1); }

  struct Part {
    __m256i lanes;
    explicit Part(int64_t count) : lanes(first_lanes(count)) {}
    Vector load(const int32_t* p) const { return _mm256_maskload_epi32(p, lanes); }
    void store(int32_t* p, Vector v) const { _mm256_maskstore_epi32(p, lanes, v); }
  };
};

struct S16 {
  using Element = int16_t;
  using Vector = __m256i;
  static Vector load(const int16_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  static void store(int16_t* p, Vector v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
  static Vector plus(Vector a, Vector b) { return _mm256_add_epi16(a, b); }
  static Vector minus(Vector a, Vector b) { return _mm256_sub_epi16(a, b); }

  struct Part {  // pairs by dwords; an odd last element on its own, in the low half of dword `last`
    __m256i pairs, last;
    int64_t odd;  // index of the odd element, -1 without one
    explicit Part(int64_t count)
        : pairs(first_lanes(count / 2)),
          last(_mm256_set1_epi32(static_cast<int>(count / 2))),
          odd(count % 2 == 0 ? -1 : count - 1) {}
    Vector load(const int16_t* p) const {
      const __m256i v = _mm256_maskload_epi32(reinterpret_cast<const int*>(p), pairs);
      if (odd < 0) return v;
      const __m256i lane = _mm256_cmpeq_epi32(last, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
      return _mm256_or_si256(v, _mm256_and_si256(lane, _mm256_set1_epi32(p[odd])));
    }
    void store(int16_t* p, Vector v) const {
      _mm256_maskstore_epi32(reinterpret_cast<int*>(p), pairs, v);
      if (odd >= 0) p[odd] = static_cast<int16_t>(_mm256_cvtsi256_si32(_mm256_permutevar8x32_epi32(v, last)));
    }
  };
};

// The butterflies across `count` vectors: h = 1, 2, 4, ..., count/2 in units of vectors.
template <class Type, int count>
[[gnu::always_inline]] inline void butterflies(typename Type::Vector (&v)[count]) {
#pragma GCC unroll 3
  for (int h = 1; h < count; h *= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < count; ++i) {
      if ((i & h) != 0) continue;
      const typename Type::Vector upper = v[i], lower = v[i + h];
      v[i] = Type::plus(upper, lower);
      v[i + h] = Type::minus(upper, lower);
    }
  }
}

// One radix step on one vector of columns of the rows i * stride, i < radix. Lanes: a whole vector or a Part.
template <class Type, int radix, class Lanes>
[[gnu::always_inline]] inline void step(typename Type::Element* x, int64_t stride, Lanes lanes) {
  typename Type::Vector v[radix];
#pragma GCC unroll 8
  for (int i = 0; i < radix; ++i) v[i] = lanes.load(x + i * stride);
  butterflies<Type, radix>(v);
#pragma GCC unroll 8
  for (int i = 0; i < radix; ++i) lanes.store(x + i * stride, v[i]);
}

// A strip of columns: its vectors, the last of them partial perhaps.
template <class Type>
struct Strip {
  using Element = typename Type::Element;
  static constexpr int64_t kLanes = 32 / sizeof(Element);
  int64_t whole;  // elements in whole vectors
  bool partial;
  typename Type::Part part;

  explicit Strip(int64_t cols) : whole(cols / kLanes * kLanes), partial(cols != whole), part(cols - whole) {}

  // Radix steps at rows start + i * h for the h starts of each of order / (radix h) groups.
  template <int radix>
  void pass(Element* x, int64_t ld, int64_t order, int64_t h) const {
    for (int64_t group = 0; group < order; group += radix * h) {
      for (int64_t row = group; row < group + h; ++row) {
        Element* to = x + row * ld;
        for (int64_t c = 0; c < whole; c += kLanes) step<Type, radix>(to + c, h * ld, Type{});
        if (partial) step<Type, radix>(to + whole, h * ld, part);
      }
    }
  }

  // The butterflies first <= h < order.
  void transform(Element* x, int64_t ld, int64_t order, int64_t first) const {
    int64_t h = first;
    for (; h * 8 <= order; h *= 8) pass<8>(x, ld, order, h);
    if (h * 4 == order) pass<4>(x, ld, order, h);
    if (h * 2 == order) pass<2>(x, ld, order, h);
  }
};

template <class Type>
void cols_in_place(typename Type::Element* x, int64_t order, int64_t cols, int64_t ld) {
  constexpr int64_t kWidth = kStripBytes / sizeof(typename Type::Element);
  const Strip<Type> strip(kWidth);
  int64_t c = 0;
  for (; c + kWidth <= cols; c += kWidth) strip.transform(x + c, ld, order, 1);
  if (c < cols) Strip<Type>(cols - c).transform(x + c, ld, order, 1);
}

// The butterflies h = 1, 2, 4 below `order` inside a vector.
template <class Type>
[[gnu::always_inline]] inline typename Type::Vector within(typename Type::Vector v, int64_t order) {
  if (order >= 2) v = Type::plus(Type::swapped_1(v), Type::flipped(v, _mm256_setr_epi32(0, -1, 0, -1, 0, -1, 0, -1)));
  if (order >= 4) v = Type::plus(Type::swapped_2(v), Type::flipped(v, _mm256_setr_epi32(0, 0, -1, -1, 0, 0, -1, -1)));
  if (order >= 8) v = Type::plus(Type::swapped_4(v), Type::flipped(v, _mm256_setr_epi32(0, 0, 0, 0, -1, -1, -1, -1)));
  return v;
}

// Runs of 8 * count elements, one after the other.
template <class Type, int count>
void runs_in_place(typename Type::Element* x, int64_t n) {
  for (typename Type::Element* const end = x + n; x < end; x += 8 * count) {
    typename Type::Vector v[count];
#pragma GCC unroll 8
    for (int i = 0; i < count; ++i) v[i] = within<Type>(Type::load(x + 8 * i), 8);
    butterflies<Type, count>(v);
#pragma GCC unroll 8
    for (int i = 0; i < count; ++i) Type::store(x + 8 * i, v[i]);
  }
}

// Runs shorter than a vector: whole ones fill each vector, the last partial one too.
template <class Type>
void short_runs_in_place(typename Type::Element* x, int64_t n, int64_t order) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) Type::store(x + i, within<Type>(Type::load(x + i), order));
  const typename Type::Part part(n - i);
  part.store(x + i, within<Type>(part.load(x + i), order));
}

template <class Type>
void rows_in_place(typename Type::Element* x, int64_t rows, int64_t ld, int64_t order, int64_t blocks) {
  const int64_t n = order * blocks;
  const Strip<Type> strip(kRun);
  for (int64_t r = 0; r < rows; ++r, x += ld) {
    switch (order < kRun ? order : kRun) {
      case 1: return;
      case 2:
      case 4: short_runs_in_place<Type>(x, n, order); break;
      case 8: runs_in_place<Type, 1>(x, n); break;
      case 16: runs_in_place<Type, 2>(x, n); break;
      case 32: runs_in_place<Type, 4>(x, n); break;
      default: runs_in_place<Type, 8>(x, n); break;
    }
    for (int64_t first = 0; order > kRun && first < n; first += order) {  // a matrix of rows of kRun elements
      strip.transform(x + first, kRun, order / kRun, 1);
    }
  }
}

}  // namespace

void fwht_f32_rows(float* x, int64_t rows, int64_t ld, int64_t order, int64_t blocks) {
  rows_in_place<F32>(x, rows, ld, order, blocks);
}
void fwht_s32_rows(int32_t* x, int64_t rows, int64_t ld, int64_t order, int64_t blocks) {
  rows_in_place<S32>(x, rows, ld, order, blocks);
}
void fwht_f32_cols(float* x, int64_t order, int64_t cols, int64_t ld) {
  cols_in_place<F32>(x, order, cols, ld);
}
void fwht_s16_cols(int16_t* x, int64_t order, int64_t cols, int64_t ld) {
  cols_in_place<S16>(x, order, cols, ld);
}
void fwht_s32_cols(int32_t* x, int64_t order, int64_t cols, int64_t ld) {
  cols_in_place<S32>(x, order, cols, ld);
}

}  // namespace quintil::kernels::avx2
