// Eight lanes of 32 bits, whole or the first few of them. For .cpp files of this folder alone: everything here is local to them.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace quintil::kernels::avx2 {

namespace {

inline __m256i load(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}
inline void store(void* p, __m256i v) {
  _mm256_storeu_si256(static_cast<__m256i*>(p), v);
}

// -1 in the first `count` of eight lanes; any count.
inline __m256i first_lanes(int64_t count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count < 8 ? count : 8)),
                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

}  // namespace

}  // namespace quintil::kernels::avx2
