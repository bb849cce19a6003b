// Fast Walsh-Hadamard transforms in registers [HDQT H5]; the butterflies keep the order h = 1, 2, 4, ... of the law (N7).
//
// Rows: stages h = 1, 2, 4, 8 stay inside a register of 16 elements: a shuffle brings each element its partner, and the upper
//   one of a pair is subtracted (float32: multiplied by -1 and added, one instruction). From h = 16 on whole registers are added
//   and subtracted: up to sixteen of them, in registers, make runs of 256; longer ones take two stages a pass.
// Columns: vertical additions only. One pass holds 2, 4 or 8 rows h apart and runs up to three stages before it stores (16 rows
//   4 KiB apart would not fit a set of the L1 cache); order 64 takes two passes. Rows far apart in memory share few sets of the L1 cache, so a strip is 512 bytes wide:
//   neighbouring lines come in together, and the strip stays in L2.
// Integers add modulo their width: intermediate sums fit whenever the results do.
#include <immintrin.h>

#include <cstdint>

#include "csrc/core/types.h"
#include "csrc/kernels/avx512vnni/kernels.h"

namespace quintil::kernels::avx512vnni {

namespace {

constexpr int64_t kStripBytes = 512;

// A register of one element type: loads, stores, and both halves of a butterfly.
struct F32 {
  using Element = float;
  using Register = __m512;
  static constexpr int64_t kLanes = 16;

  static Register load(const float* p) { return _mm512_loadu_ps(p); }
  static Register load(const float* p, uint32_t lanes) {
    return _mm512_maskz_loadu_ps(static_cast<__mmask16>(lanes), p);
  }
  static void store(float* p, Register v) { _mm512_storeu_ps(p, v); }
  static void store(float* p, Register v, uint32_t lanes) {
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>(lanes), v);
  }
  static Register plus(Register u, Register v) { return _mm512_add_ps(u, v); }
  static Register minus(Register u, Register v) { return _mm512_sub_ps(u, v); }
  // partner + v in lower lanes, partner - v in those of `upper`. A product with 1 or -1 is exact, so the fused instruction rounds
  // once, as the sum alone does.
  static Register butterfly(Register v, Register partner, __mmask16 upper) {
    const Register signs = _mm512_mask_mov_ps(_mm512_set1_ps(1.0f), upper, _mm512_set1_ps(-1.0f));
    return _mm512_fmadd_ps(v, signs, partner);
  }
  static Register swapped(Register v, int64_t h) {
    switch (h) {
      case 1: return _mm512_permute_ps(v, 0xB1);
      case 2: return _mm512_permute_ps(v, 0x4E);
      case 4: return _mm512_shuffle_f32x4(v, v, 0xB1);
      default: return _mm512_shuffle_f32x4(v, v, 0x4E);
    }
  }
};

struct S32 {
  using Element = int32_t;
  using Register = __m512i;
  static constexpr int64_t kLanes = 16;

  static Register load(const int32_t* p) { return _mm512_loadu_si512(p); }
  static Register load(const int32_t* p, uint32_t lanes) {
    return _mm512_maskz_loadu_epi32(static_cast<__mmask16>(lanes), p);
  }
  static void store(int32_t* p, Register v) { _mm512_storeu_si512(p, v); }
  static void store(int32_t* p, Register v, uint32_t lanes) {
    _mm512_mask_storeu_epi32(p, static_cast<__mmask16>(lanes), v);
  }
  static Register plus(Register u, Register v) { return _mm512_add_epi32(u, v); }
  static Register minus(Register u, Register v) { return _mm512_sub_epi32(u, v); }
  static Register butterfly(Register v, Register partner, __mmask16 upper) {
    return _mm512_mask_sub_epi32(_mm512_add_epi32(partner, v), upper, partner, v);
  }
  static Register swapped(Register v, int64_t h) {
    switch (h) {
      case 1: return _mm512_shuffle_epi32(v, _MM_PERM_CDAB);
      case 2: return _mm512_shuffle_epi32(v, _MM_PERM_BADC);
      case 4: return _mm512_shuffle_i32x4(v, v, 0xB1);
      default: return _mm512_shuffle_i32x4(v, v, 0x4E);
    }
  }
};

struct S16 {
  using Element = int16_t;
  using Register = __m512i;
  static constexpr int64_t kLanes = 32;

  static Register load(const int16_t* p) { return _mm512_loadu_si512(p); }
  static Register load(const int16_t* p, uint32_t lanes) { return _mm512_maskz_loadu_epi16(lanes, p); }
  static void store(int16_t* p, Register v) { _mm512_storeu_si512(p, v); }
  static void store(int16_t* p, Register v, uint32_t lanes) { _mm512_mask_storeu_epi16(p, lanes, v); }
  static Register plus(Register u, Register v) { return _mm512_add_epi16(u, v); }
  static Register minus(Register u, Register v) { return _mm512_sub_epi16(u, v); }
};

template <class V>
uint32_t first_lanes(int64_t count) {
  return count >= V::kLanes ? ~0u : (1u << count) - 1;
}

// --- rows ------------------------------------------------------------------------------------------------------------

// Stages h = 1 .. min(order, 16) / 2 of the runs in one register.
template <class V>
inline typename V::Register inside(typename V::Register v, int64_t order) {
  if (order > 1) v = V::butterfly(v, V::swapped(v, 1), 0xAAAA);
  if (order > 2) v = V::butterfly(v, V::swapped(v, 2), 0xCCCC);
  if (order > 4) v = V::butterfly(v, V::swapped(v, 4), 0xF0F0);
  if (order > 8) v = V::butterfly(v, V::swapped(v, 8), 0xFF00);
  return v;
}

template <class V>
inline void across(typename V::Register& upper, typename V::Register& lower) {
  const auto u = upper, v = lower;
  upper = V::plus(u, v);
  lower = V::minus(u, v);
}

// All stages between `radix` registers.
template <class V, int radix>
inline void between(typename V::Register (&r)[radix]) {
#pragma GCC unroll 4
  for (int h = 1; h < radix; h *= 2) {
#pragma GCC unroll 16
    for (int i = 0; i < radix; ++i) {
      if ((i & h) == 0) across<V>(r[i], r[i + h]);
    }
  }
}

// All stages of a run of 16 * `registers` contiguous elements.
template <class V, int registers>
inline void whole_run(typename V::Element* x) {
  typename V::Register r[registers];
#pragma GCC unroll 16
  for (int i = 0; i < registers; ++i) r[i] = inside<V>(V::load(x + 16 * i), 16);
  between<V>(r);
#pragma GCC unroll 16
  for (int i = 0; i < registers; ++i) V::store(x + 16 * i, r[i]);
}

// Stages h .. radix * h / 2 between whole registers of one run.
template <class V, int radix>
void later_pass(typename V::Element* x, int64_t h, int64_t order) {
  for (int64_t i = 0; i < order; i += radix * h) {
    for (int64_t j = i; j < i + h; j += 16) {
      typename V::Register r[radix];
#pragma GCC unroll 4
      for (int k = 0; k < radix; ++k) r[k] = V::load(x + j + k * h);
      between<V>(r);
#pragma GCC unroll 4
      for (int k = 0; k < radix; ++k) V::store(x + j + k * h, r[k]);
    }
  }
}

template <class V, int registers>
void long_rows(typename V::Element* x, int64_t rows, int64_t ld, int64_t order, int64_t blocks) {
  constexpr int64_t kRun = 16 * registers;
  for (int64_t r = 0; r < rows; ++r, x += ld) {
    for (typename V::Element* run = x; run < x + order * blocks; run += order) {
      for (int64_t i = 0; i < order; i += kRun) whole_run<V, registers>(run + i);
      int64_t h = kRun;
      for (; 4 * h <= order; h *= 4) later_pass<V, 4>(run, h, order);
      if (2 * h <= order) later_pass<V, 2>(run, h, order);
    }
  }
}

template <class V>
void rows_in_place(typename V::Element* x, int64_t rows, int64_t ld, int64_t order, int64_t blocks) {
  if (order >= 256) return long_rows<V, 16>(x, rows, ld, order, blocks);
  if (order == 128) return long_rows<V, 8>(x, rows, ld, order, blocks);
  if (order == 64) return long_rows<V, 4>(x, rows, ld, order, blocks);
  if (order == 32) return long_rows<V, 2>(x, rows, ld, order, blocks);
  const int64_t length = order * blocks;
  for (int64_t r = 0; r < rows; ++r, x += ld) {
    for (int64_t i = 0; i < length; i += 16) {
      const uint32_t lanes = first_lanes<V>(length - i);
      V::store(x + i, inside<V>(V::load(x + i, lanes), order), lanes);
    }
  }
}

// --- columns ---------------------------------------------------------------------------------------------------------

// The stages of `radix` rows that stand `stride` elements apart, one register wide.
template <class V, int radix, bool whole>
inline void column_group(typename V::Element* x, int64_t stride, uint32_t lanes) {
  typename V::Register r[radix];
#pragma GCC unroll 8
  for (int i = 0; i < radix; ++i) r[i] = whole ? V::load(x + i * stride) : V::load(x + i * stride, lanes);
  between<V>(r);
#pragma GCC unroll 8
  for (int i = 0; i < radix; ++i) {
    if (whole) {
      V::store(x + i * stride, r[i]);
    } else {
      V::store(x + i * stride, r[i], lanes);
    }
  }
}

// Stages h .. radix * h / 2 of a strip of columns.
template <class V, int radix>
void column_pass(typename V::Element* x, int64_t order, int64_t h, int64_t ld, int64_t columns) {
  for (int64_t i = 0; i < order; i += radix * h) {
    for (int64_t j = i; j < i + h; ++j) {
      typename V::Element* group = x + j * ld;
      int64_t c = 0;
      for (; c + V::kLanes <= columns; c += V::kLanes) column_group<V, radix, true>(group + c, h * ld, ~0u);
      if (c < columns) column_group<V, radix, false>(group + c, h * ld, first_lanes<V>(columns - c));
    }
  }
}

template <class V>
void cols_in_place(typename V::Element* x, int64_t order, int64_t cols, int64_t ld) {
  constexpr int64_t kColumns = kStripBytes / static_cast<int64_t>(sizeof(typename V::Element));
  for (int64_t c = 0; c < cols; c += kColumns) {
    const int64_t columns = cols - c < kColumns ? cols - c : kColumns;
    int64_t h = 1;
    for (; 8 * h <= order; h *= 8) column_pass<V, 8>(x + c, order, h, ld, columns);
    if (4 * h <= order) {
      column_pass<V, 4>(x + c, order, h, ld, columns);
      h *= 4;
    }
    if (2 * h <= order) column_pass<V, 2>(x + c, order, h, ld, columns);
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

}  // namespace quintil::kernels::avx512vnni
