// Unfolding of integer codes and its adjoint [HDQT H12], by whole runs of bytes.
//
// With k in the order (kh, kw, c) the taps of one kernel row that lie inside the image are contiguous there and in the output,
//   as long as dilation_w is 1: a position costs one run per kernel row instead of one per tap. Other taps are runs of
//   `channels` bytes. With k in the order (c, kh, kw) bytes stand alone; they are moved one by one.
// col2im adds the same runs the other way; int32 sums are exact in any order.
#include <immintrin.h>

#include <cstdint>

#include "csrc/core/types.h"
#include "csrc/kernels/avx512vnni/kernels.h"

namespace quintil::kernels::avx512vnni {

namespace {

inline __mmask64 first_bytes(int64_t count) {
  return count >= 64 ? ~__mmask64{0} : (__mmask64{1} << count) - 1;
}
inline __mmask16 first_words(int64_t count) {
  return static_cast<__mmask16>(count >= 16 ? 0xFFFF : (1u << count) - 1);
}

inline void copy(uint8_t* to, const uint8_t* from, int64_t count) {
  int64_t i = 0;
  for (; i + 64 <= count; i += 64) _mm512_storeu_si512(to + i, _mm512_loadu_si512(from + i));
  if (i == count) return;
  const __mmask64 rest = first_bytes(count - i);
  _mm512_mask_storeu_epi8(to + i, rest, _mm512_maskz_loadu_epi8(rest, from + i));
}

inline void fill(uint8_t* to, __m512i value, int64_t count) {
  for (int64_t i = 0; i < count; i += 64) _mm512_mask_storeu_epi8(to + i, first_bytes(count - i), value);
}

inline void add(int32_t* to, const int32_t* from, int64_t count) {
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    _mm512_storeu_si512(to + i, _mm512_add_epi32(_mm512_loadu_si512(to + i), _mm512_loadu_si512(from + i)));
  }
  if (i == count) return;
  const __mmask16 rest = first_words(count - i);
  const __m512i sum =
      _mm512_add_epi32(_mm512_maskz_loadu_epi32(rest, to + i), _mm512_maskz_loadu_epi32(rest, from + i));
  _mm512_mask_storeu_epi32(to + i, rest, sum);
}

// Calls run(row, tap, taps, pixel) for each position: `taps` taps from number `tap` on are neighbours in the image, the first
// one at `pixel`; pixel is -1 where they lie on padding.
template <class Run>
[[gnu::always_inline]] inline void for_each_run(const ConvShape& s, int64_t first, int64_t count, Run run) {
  const bool joined = s.dilation_w == 1 && s.channels_last_taps;
  int64_t oy = s.out_w == 0 ? 0 : first / s.out_w, ox = s.out_w == 0 ? 0 : first % s.out_w;
  for (int64_t row = 0; row < count; ++row) {
    const int64_t x0 = ox * s.stride_w - s.pad_w;
    for (int64_t kh = 0; kh < s.kernel_h; ++kh) {
      const int64_t y = oy * s.stride_h - s.pad_h + kh * s.dilation_h, tap = kh * s.kernel_w;
      const bool row_inside = y >= 0 && y < s.height;
      if (!row_inside) {
        run(row, tap, s.kernel_w, int64_t{-1});
      } else if (joined && x0 >= 0 && x0 + s.kernel_w <= s.width) {
        run(row, tap, s.kernel_w, y * s.width + x0);
      } else {
        for (int64_t kw = 0; kw < s.kernel_w; ++kw) {
          const int64_t x = x0 + kw * s.dilation_w;
          run(row, tap + kw, int64_t{1}, x >= 0 && x < s.width ? y * s.width + x : int64_t{-1});
        }
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
  const __m512i padding = _mm512_set1_epi8(static_cast<char>(zero));
  if (s.channels_last_taps) {
    for_each_run(s, first, count, [&](int64_t row, int64_t tap, int64_t taps, int64_t pixel) {
      uint8_t* to = out + row * ld + tap * s.channels;
      if (pixel < 0) {
        fill(to, padding, taps * s.channels);
      } else {
        copy(to, image + pixel * s.channels, taps * s.channels);
      }
    });
    return;
  }
  const int64_t all = s.kernel_h * s.kernel_w;
  for_each_run(s, first, count, [&](int64_t row, int64_t tap, int64_t taps, int64_t pixel) {
    for (int64_t t = tap; t < tap + taps; ++t) {
      uint8_t* to = out + row * ld + t;
      for (int64_t c = 0; c < s.channels; ++c) to[c * all] = pixel < 0 ? zero : image[pixel * s.channels + c];
    }
  });
}

void col2im_s32(const int32_t* cols, int64_t ld, const ConvShape& s, int64_t first, int64_t count, int32_t* image) {
  const int64_t all = s.kernel_h * s.kernel_w;
  for_each_run(s, first, count, [&](int64_t row, int64_t tap, int64_t taps, int64_t pixel) {
    if (pixel < 0) return;
    int32_t* to = image + pixel * s.channels;
    if (s.channels_last_taps) return add(to, cols + row * ld + tap * s.channels, taps * s.channels);
    const int32_t* from = cols + row * ld + tap;
    for (int64_t c = 0; c < s.channels; ++c) to[c] += from[c * all];
  });
}

}  // namespace quintil::kernels::avx512vnni
