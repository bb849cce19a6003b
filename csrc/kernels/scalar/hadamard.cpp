// Fast Walsh-Hadamard transforms by the butterflies of the definition [HDQT H5].
#include "csrc/kernels/scalar/kernels.h"

namespace quintil::kernels::scalar {

namespace {

// Integers wrap instead of overflowing: their intermediate sums fit whenever the result does.
float plus(float a, float b) {
  return a + b;
}
float minus(float a, float b) {
  return a - b;
}
int16_t plus(int16_t a, int16_t b) {
  return static_cast<int16_t>(a + b);
}
int16_t minus(int16_t a, int16_t b) {
  return static_cast<int16_t>(a - b);
}
int32_t plus(int32_t a, int32_t b) {
  return static_cast<int32_t>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b));
}
int32_t minus(int32_t a, int32_t b) {
  return static_cast<int32_t>(static_cast<uint32_t>(a) - static_cast<uint32_t>(b));
}

template <class T>
void rows_in_place(T* x, int64_t rows, int64_t ld, int64_t order, int64_t blocks) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t b = 0; b < blocks; ++b) {
      T* run = x + r * ld + b * order;
      for (int64_t h = 1; h < order; h *= 2) {
        for (int64_t i = 0; i < order; i += 2 * h) {
          for (int64_t j = i; j < i + h; ++j) {
            const T u = run[j], v = run[j + h];
            run[j] = plus(u, v);
            run[j + h] = minus(u, v);
          }
        }
      }
    }
  }
}

template <class T>
void cols_in_place(T* x, int64_t order, int64_t cols, int64_t ld) {
  for (int64_t h = 1; h < order; h *= 2) {
    for (int64_t i = 0; i < order; i += 2 * h) {
      for (int64_t j = i; j < i + h; ++j) {
        T* upper = x + j * ld;
        T* lower = x + (j + h) * ld;
        for (int64_t c = 0; c < cols; ++c) {
          const T u = upper[c], v = lower[c];
          upper[c] = plus(u, v);
          lower[c] = minus(u, v);
        }
      }
    }
  }
}

}  // namespace

void fwht_f32_rows(float* x, int64_t rows, int64_t ld, int64_t order, int64_t blocks) {
  rows_in_place(x, rows, ld, order, blocks);
}
void fwht_s32_rows(int32_t* x, int64_t rows, int64_t ld, int64_t order, int64_t blocks) {
  rows_in_place(x, rows, ld, order, blocks);
}
void fwht_f32_cols(float* x, int64_t order, int64_t cols, int64_t ld) {
  cols_in_place(x, order, cols, ld);
}
void fwht_s16_cols(int16_t* x, int64_t order, int64_t cols, int64_t ld) {
  cols_in_place(x, order, cols, ld);
}
void fwht_s32_cols(int32_t* x, int64_t order, int64_t cols, int64_t ld) {
  cols_in_place(x, order, cols, ld);
}

}  // namespace quintil::kernels::scalar
