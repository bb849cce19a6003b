// What the products of gemm.cpp and gemm_sum.cpp share: an instruction, a limit and the float32 of a total. For .cpp files of this
// folder alone: everything here is local to them.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "csrc/core/types.h"

namespace quintil::kernels::avx512vnni {

namespace {

constexpr int64_t kPanelBytes = kPanel * kDepth;  // one k4 of a panel: two registers

// sum += the four products of each lane. The builtin makes GCC 12 copy each accumulator twice per instruction, which halves
// the speed; tied operands do not.
inline void add_products(__m512i& sum, __m512i codes, __m512i column) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(codes), "v"(column));
}

inline __m512i broadcast4(const uint8_t* p) {
  int32_t word;
  __builtin_memcpy(&word, p, sizeof word);
  return _mm512_set1_epi32(word);
}

template <Overflow kOverflow>
inline __m512i limited(__m512i sum, int32_t limit, int32_t shift) {
  if constexpr (kOverflow == Overflow::kSaturate) {
    sum = _mm512_min_epi32(sum, _mm512_set1_epi32(limit));
    return _mm512_max_epi32(sum, _mm512_set1_epi32(-limit));
  } else if constexpr (kOverflow == Overflow::kWrap) {
    const __m128i count = _mm_cvtsi32_si128(shift);
    return _mm512_sra_epi32(_mm512_sll_epi32(sum, count), count);
  } else {
    return sum;
  }
}

// Each factor its own rounding (N9).
inline __m512 scaled(__m512i total, const Epilogue& e) {
  __m512 value = _mm512_mul_ps(_mm512_cvtepi32_ps(total), _mm512_set1_ps(e.scale[0]));
  value = _mm512_mul_ps(value, _mm512_set1_ps(e.scale[1]));
  value = _mm512_mul_ps(value, _mm512_set1_ps(e.scale[2]));
  return _mm512_mul_ps(value, _mm512_set1_ps(e.inverse));
}

}  // namespace

}  // namespace quintil::kernels::avx512vnni
