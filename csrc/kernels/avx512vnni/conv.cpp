// The adjoint of unfolding [HDQT H12], by whole runs of taps; unfolding itself is that of avx2.
//
// With k in the order (kh, kw, c) the taps of one kernel row that lie inside the image are contiguous there and in `cols`, as
//   long as dilation_w is 1: a position costs one run per kernel row instead of one per tap. Other taps are runs of
//   `channels` sums. With k in the order (c, kh, kw) sums stand alone; they are added one by one.
// int32 sums are exact in any order.
#include <immintrin.h>

#include <cstdint>

#include "csrc/core/types.h"
#include "csrc/kernels/avx512vnni/kernels.h"
#include "csrc/kernels/avx512vnni/lanes.h"

namespace quintil::kernels::avx512vnni {

namespace {

inline void add(int32_t* to, const int32_t* from, int64_t count) {
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    _mm512_storeu_si512(to + i, _mm512_add_epi32(_mm512_loadu_si512(to + i), _mm512_loadu_si512(from + i)));
  }
  if (i == count) return;
  const __mmask16 rest = first_lanes(count - i);
  const __m512i sum =
      _mm512_add_epi32(_mm512_maskz_loadu_epi32(rest, to + i), _mm512_maskz_loadu_epi32(rest, from + i));
  _mm512_mask_storeu_epi32(to + i, rest, sum);
}

// Calls run(row, tap, taps, pixel) for each position: `taps` taps from number `tap` on are neighbours in the image, the first
// one at `pixel`. Taps on padding are left out.
template <class Run>
[[gnu::always_inline]] inline void for_each_run(const ConvShape& s, int64_t first, int64_t count, Run run) {
  const bool joined = s.dilation_w == 1 && s.channels_last_taps;
  int64_t oy = s.out_w == 0 ? 0 : first / s.out_w, ox = s.out_w == 0 ? 0 : first % s.out_w;
  for (int64_t row = 0; row < count; ++row) {
    const int64_t x0 = ox * s.stride_w - s.pad_w;
    for (int64_t kh = 0; kh < s.kernel_h; ++kh) {
      const int64_t y = oy * s.stride_h - s.pad_h + kh * s.dilation_h, tap = kh * s.kernel_w;
      if (y < 0 || y >= s.height) continue;
      if (joined && x0 >= 0 && x0 + s.kernel_w <= s.width) {
        run(row, tap, s.kernel_w, y * s.width + x0);
      } else {
        for (int64_t kw = 0; kw < s.kernel_w; ++kw) {
          const int64_t x = x0 + kw * s.dilation_w;
          if (x >= 0 && x < s.width) run(row, tap + kw, int64_t{1}, y * s.width + x);
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

void col2im_s32(const int32_t* cols, int64_t ld, const ConvShape& s, int64_t first, int64_t count, int32_t* image) {
  const int64_t all = s.kernel_h * s.kernel_w;
  for_each_run(s, first, count, [&](int64_t row, int64_t tap, int64_t taps, int64_t pixel) {
    int32_t* to = image + pixel * s.channels;
    if (s.channels_last_taps) return add(to, cols + row * ld + tap * s.channels, taps * s.channels);
    const int32_t* from = cols + row * ld + tap;
    for (int64_t c = 0; c < s.channels; ++c) to[c] += from[c * all];
  });
}

}  // namespace quintil::kernels::avx512vnni
