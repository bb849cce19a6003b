// The law of the quantisers, element by element [HDQT H1, H2, H7, H8].
#include "csrc/kernels/scalar/kernels.h"
#include "csrc/quantizers/uniform.h"

namespace quintil::kernels::scalar {

namespace {

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
