// Unfolding of integer codes and its adjoint: what turns a convolution into a product [HDQT H12].
#include <cstring>

#include "csrc/kernels/scalar/kernels.h"

namespace quintil::kernels::scalar {

namespace {

// Calls tap(row, kh, kw, pixel) for each position and kernel tap; pixel is -1 on padding, else y * width + x.
template <class Tap>
void for_each_tap(const ConvShape& s, int64_t first, int64_t count, Tap tap) {
  int64_t oy = s.out_w == 0 ? 0 : first / s.out_w, ox = s.out_w == 0 ? 0 : first % s.out_w;
  for (int64_t row = 0; row < count; ++row) {
    for (int64_t kh = 0; kh < s.kernel_h; ++kh) {
      const int64_t y = oy * s.stride_h - s.pad_h + kh * s.dilation_h;
      for (int64_t kw = 0; kw < s.kernel_w; ++kw) {
        const int64_t x = ox * s.stride_w - s.pad_w + kw * s.dilation_w;
        const bool inside = y >= 0 && y < s.height && x >= 0 && x < s.width;
        tap(row, kh, kw, inside ? y * s.width + x : -1);
      }
    }
    if (++ox == s.out_w) {
      ox = 0;
      ++oy;
    }
  }
}

}  // namespace

void im2col_u8(const uint8_t* image, const ConvShape& s, int64_t first, int64_t count, uint8_t zero, uint8_t* out,
               int64_t ld) {
  const int64_t taps = s.kernel_h * s.kernel_w;
  for_each_tap(s, first, count, [&](int64_t row, int64_t kh, int64_t kw, int64_t pixel) {
    const int64_t t = kh * s.kernel_w + kw;
    if (s.channels_last_taps) {
      uint8_t* to = out + row * ld + t * s.channels;
      if (pixel < 0) {
        std::memset(to, zero, static_cast<size_t>(s.channels));
      } else {
        std::memcpy(to, image + pixel * s.channels, static_cast<size_t>(s.channels));
      }
    } else {
      for (int64_t c = 0; c < s.channels; ++c) {
        out[row * ld + c * taps + t] = pixel < 0 ? zero : image[pixel * s.channels + c];
      }
    }
  });
}

void col2im_s32(const int32_t* cols, int64_t ld, const ConvShape& s, int64_t first, int64_t count, int32_t* image) {
  const int64_t taps = s.kernel_h * s.kernel_w;
  const int64_t tap_stride = s.channels_last_taps ? s.channels : 1;
  const int64_t channel_stride = s.channels_last_taps ? 1 : taps;
  for_each_tap(s, first, count, [&](int64_t row, int64_t kh, int64_t kw, int64_t pixel) {
    if (pixel < 0) return;
    const int32_t* from = cols + row * ld + (kh * s.kernel_w + kw) * tap_stride;
    int32_t* to = image + pixel * s.channels;
    for (int64_t c = 0; c < s.channels; ++c) to[c] += from[c * channel_stride];
  });
}

}  // namespace quintil::kernels::scalar
