// Where a block of a product goes, 16 columns of int32 totals a row: as they are, through the epilogue to float32 (N9), or
// added to what stands there. Columns beyond the last are masked. For .cpp files of this folder alone.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "csrc/core/types.h"
#include "csrc/kernels/avx2/lanes.h"

namespace quintil::kernels::avx2 {

namespace {

constexpr int64_t kColumns = 16;  // columns of a block: half a panel

inline __m256 scaled(__m256i total, const Epilogue& e) {
  __m256 value = _mm256_mul_ps(_mm256_cvtepi32_ps(total), _mm256_set1_ps(e.scale[0]));
  value = _mm256_mul_ps(value, _mm256_set1_ps(e.scale[1]));
  value = _mm256_mul_ps(value, _mm256_set1_ps(e.scale[2]));
  return _mm256_mul_ps(value, _mm256_set1_ps(e.inverse));
}

struct IntegerSink {
  int32_t* c;
  int64_t ld;
  bool whole;
  __m256i mask[2];

  void columns(int64_t first, int64_t count) {
    c += first;
    whole = count >= kColumns;
    for (int j = 0; j < 2; ++j) mask[j] = first_lanes(count - 8 * j);
  }
  void put(int64_t row, int j, __m256i total) const {
    int32_t* to = c + row * ld + 8 * j;
    if (whole) return store(to, total);
    _mm256_maskstore_epi32(to, mask[j], total);
  }
};

// An absent bias is -0.0, the one number whose sum with any x is x.
struct FloatSink {
  float* c;
  int64_t ld;
  Epilogue e;
  bool whole;
  __m256i mask[2];
  __m256 bias[2];

  void columns(int64_t first, int64_t count) {
    c += first;
    whole = count >= kColumns;
    for (int j = 0; j < 2; ++j) {
      mask[j] = first_lanes(count - 8 * j);
      bias[j] = e.bias == nullptr ? _mm256_set1_ps(-0.0f) : _mm256_maskload_ps(e.bias + first + 8 * j, mask[j]);
    }
  }
  void put(int64_t row, int j, __m256i total) const {
    const __m256 value = _mm256_add_ps(scaled(total, e), bias[j]);
    float* to = c + row * ld + 8 * j;
    if (whole) return _mm256_storeu_ps(to, value);
    _mm256_maskstore_ps(to, mask[j], value);
  }
};

struct SumSink {
  float* c;
  int64_t ld;
  Epilogue e;
  __m256i mask[2];

  void columns(int64_t first, int64_t count) {
    c += first;
    for (int j = 0; j < 2; ++j) mask[j] = first_lanes(count - 8 * j);
  }
  void put(int64_t row, int j, __m256i total) const {
    float* to = c + row * ld + 8 * j;
    _mm256_maskstore_ps(to, mask[j], _mm256_add_ps(_mm256_maskload_ps(to, mask[j]), scaled(total, e)));
  }
};

}  // namespace

}  // namespace quintil::kernels::avx2
