// Largest magnitudes: the range of a quantiser [HDQT H1] and the width of codes.
#include <algorithm>
#include <bit>
#include <cstdlib>

#include "csrc/kernels/scalar/kernels.h"

namespace quintil::kernels::scalar {

namespace {

template <class T>
int32_t largest_magnitude(const T* x, int64_t n) {
  int32_t result = 0;
  for (int64_t i = 0; i < n; ++i) result = std::max(result, std::abs(int32_t{x[i]}));
  return result;
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

int32_t absmax_s16(const int16_t* x, int64_t n) {
  return largest_magnitude(x, n);
}
int32_t absmax_u8(const uint8_t* x, int64_t n) {
  return largest_magnitude(x, n);
}
int32_t absmax_s8(const int8_t* x, int64_t n) {
  return largest_magnitude(x, n);
}

}  // namespace quintil::kernels::scalar
