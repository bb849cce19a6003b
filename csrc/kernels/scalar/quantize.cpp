// The law of the quantisers, element by element [HDQT H1, H2, H7, H8].
#include <algorithm>
#include <bit>
#include <cstdlib>

#include "csrc/kernels/scalar/kernels.h"
#include "csrc/quantizers/uniform.h"

namespace quintil::kernels::scalar {

namespace {

template <class T>
int32_t largest_magnitude(const T* x, int64_t n) {
  int32_t result = 0;
  for (int64_t i = 0; i < n; ++i) result = std::max(result, std::abs(int32_t{x[i]}));
  return result;
}

template <class T>
void nearest(const T* x, int64_t rows, int64_t cols, int64_t ld, const CodeGrid& grid, uint8_t* out, int64_t out_ld) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) out[r * out_ld + c] = nearest_code(static_cast<float>(x[r * ld + c]), grid);
  }
}

template <class T>
void drawn(const T* x, int64_t rows, int64_t cols, int64_t ld, const CodeGrid& grid, const Draw& draw, int64_t row0,
           uint8_t* out, int64_t out_ld) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      out[r * out_ld + c] = stochastic_code(static_cast<float>(x[r * ld + c]), grid, draw, row0 + r, c);
    }
  }
}

}  // namespace

AbsMax absmax_f32(const float* x, int64_t n) {
  AbsMax result{0, 0};
  for (int64_t i = 0; i < n; ++i) {
    result.bits = std::max(result.bits, std::bit_cast<uint32_t>(x[i]) & 0x7FFFFFFFu);
    result.negative |= x[i] < 0;
  }
  return result;
}

int32_t absmax_s16(const int16_t* x, int64_t n) { return largest_magnitude(x, n); }
int32_t absmax_u8(const uint8_t* x, int64_t n) { return largest_magnitude(x, n); }
int32_t absmax_s8(const int8_t* x, int64_t n) { return largest_magnitude(x, n); }

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
  drawn(x, rows, cols, ld, grid, draw, row0, out, out_ld);
}

void quantize_s16u8_stochastic(const int16_t* x, int64_t rows, int64_t cols, int64_t ld, const CodeGrid& grid,
                               const Draw& draw, int64_t row0, uint8_t* out, int64_t out_ld) {
  drawn(x, rows, cols, ld, grid, draw, row0, out, out_ld);
}

}  // namespace quintil::kernels::scalar
