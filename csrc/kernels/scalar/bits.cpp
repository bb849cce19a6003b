// Nibble packing, widening and narrowing of codes.
#include "csrc/kernels/scalar/kernels.h"
#include "csrc/quantizers/double_rounding.h"

namespace quintil::kernels::scalar {

void pack_u8u4(const uint8_t* codes, int64_t n, uint8_t* out) {
  for (int64_t i = 0; i < n; i += 2) {
    const int high = i + 1 < n ? codes[i + 1] & 15 : 0;
    out[i / 2] = static_cast<uint8_t>((codes[i] & 15) | high << 4);
  }
}

void unpack_u4u8(const uint8_t* packed, int64_t n, bool sign_extend, uint8_t* out) {
  for (int64_t i = 0; i < n; ++i) {
    const int nibble = packed[i / 2] >> (4 * (i % 2)) & 15;
    out[i] = static_cast<uint8_t>(sign_extend ? (nibble ^ 8) - 8 : nibble);
  }
}

void widen_u8s16(const uint8_t* codes, int64_t n, int32_t zero, int16_t* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = static_cast<int16_t>(codes[i] - zero);
}

void double_round_s8s8(const int8_t* codes, int64_t n, const Narrowing& to, int8_t* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = twice_rounded(codes[i], to.shift, to.rounding, to.lo, to.hi);
}

}  // namespace quintil::kernels::scalar
