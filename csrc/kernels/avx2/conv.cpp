// Unfolding of integer codes and its adjoint: what turns a convolution into a product [HDQT H12].
//
// A row of the kernel over a position is `kernel_w` taps of which a run [first, last) lies on the image. With channels_last_taps
//   the taps are `channels` contiguous elements each, and without dilation those of a run are one contiguous piece of the image:
//   one copy, or one vector addition, per kernel row. With dilation it is one per tap. In the order (c, kh, kw) elements are
//   moved one by one; that order is for comparison with published numbers only.
// Copies: vectors of 32 bytes, the last one shifted back to end with the piece; pieces below 32 bytes are two overlapping
//   halves of the next smaller width. All of it lies inside the piece.
// Bound: sums of taps are exact by the bound of the op (N2).
#include <immintrin.h>

#include <cstdint>

#include "csrc/core/types.h"
#include "csrc/kernels/avx2/kernels.h"
#include "csrc/kernels/avx2/lanes.h"

namespace quintil::kernels::avx2 {

namespace {

// size / 2 <= n <= size bytes as two words that may overlap.
template <class Word>
inline void copy_two(uint8_t* to, const uint8_t* from, int64_t n) {
  Word head, tail;
  const int64_t second = n - static_cast<int64_t>(sizeof(Word));
  __builtin_memcpy(&head, from, sizeof head);
  __builtin_memcpy(&tail, from + second, sizeof tail);
  __builtin_memcpy(to, &head, sizeof head);
  __builtin_memcpy(to + second, &tail, sizeof tail);
}

inline void copy(uint8_t* to, const uint8_t* from, int64_t n) {
  if (n >= 32) {
    const __m256i tail = load(from + n - 32);
    for (int64_t i = 0; i < n - 32; i += 32) store(to + i, load(from + i));
    return store(to + n - 32, tail);
  }
  if (n >= 16) {
    const __m128i head = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    const __m128i tail = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + n - 16));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), head);
    return _mm_storeu_si128(reinterpret_cast<__m128i*>(to + n - 16), tail);
  }
  if (n >= 8) return copy_two<uint64_t>(to, from, n);
  if (n >= 4) return copy_two<uint32_t>(to, from, n);
  for (int64_t i = 0; i < n; ++i) to[i] = from[i];
}

inline void add(int32_t* to, const int32_t* from, int64_t n) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) store(to + i, _mm256_add_epi32(load(to + i), load(from + i)));
  if (i == n) return;
  const __m256i rest = first_lanes(n - i);
  const __m256i sum = _mm256_add_epi32(_mm256_maskload_epi32(to + i, rest), _mm256_maskload_epi32(from + i, rest));
  _mm256_maskstore_epi32(to + i, rest, sum);
}

// The taps of one kernel row at one position: those in [first, last) lie on the image, tap `first` at pixel `pixel`.
struct Run {
  int64_t first, last, pixel;
};

// Taps t with 0 <= x0 + t * dilation < width.
inline Run run_of(const ConvShape& s, int64_t y, int64_t x0) {
  if (y < 0 || y >= s.height) return {s.kernel_w, s.kernel_w, 0};
  int64_t first = 0, last = s.kernel_w;
  if (x0 < 0) first = (-x0 + s.dilation_w - 1) / s.dilation_w;
  if (x0 + (s.kernel_w - 1) * s.dilation_w >= s.width)
    last = x0 >= s.width ? 0 : (s.width - x0 + s.dilation_w - 1) / s.dilation_w;
  if (first >= last) return {s.kernel_w, s.kernel_w, 0};
  return {first, last, y * s.width + x0 + first * s.dilation_w};
}

// Calls f(row, kh, run) for each position and kernel row.
template <class F>
inline void for_each_run(const ConvShape& s, int64_t first, int64_t count, F f) {
  if (count == 0) return;
  int64_t oy = first / s.out_w, ox = first % s.out_w;
  for (int64_t row = 0; row < count; ++row) {
    for (int64_t kh = 0; kh < s.kernel_h; ++kh) {
      f(row, kh, run_of(s, oy * s.stride_h - s.pad_h + kh * s.dilation_h, ox * s.stride_w - s.pad_w));
    }
    if (++ox == s.out_w) {
      ox = 0;
      ++oy;
    }
  }
}

// Calls f(tap, pixel) for each tap of a run.
template <class F>
inline void for_each_tap(const ConvShape& s, const Run& run, F f) {
  for (int64_t t = run.first; t < run.last; ++t) f(t, run.pixel + (t - run.first) * s.dilation_w);
}

// `count` pieces of n bytes, at strides.
inline void copy_pieces(uint8_t* to, int64_t to_stride, const uint8_t* from, int64_t from_stride, int64_t n,
                        int64_t count) {
  if (n >= 32 && n <= 64) {  // two vectors, without a loop for each piece
    for (int64_t i = 0; i < count; ++i, to += to_stride, from += from_stride) {
      const __m256i head = load(from), tail = load(from + n - 32);
      store(to, head);
      store(to + n - 32, tail);
    }
    return;
  }
  for (int64_t i = 0; i < count; ++i, to += to_stride, from += from_stride) copy(to, from, n);
}

// Taps in the order (kh, kw, c) without dilation: a kernel row is one piece of the image.
struct Unfolding {
  const uint8_t* image;
  const ConvShape& s;
  uint8_t zero;
  uint8_t* out;
  int64_t ld;
};

// Kernel row kh of one position, some of whose taps may lie outside.
inline void unfold_run(const Unfolding& u, const Run& run, uint8_t* to) {
  const int64_t c = u.s.channels, kernel_w = u.s.kernel_w;
  if (run.first > 0) __builtin_memset(to, u.zero, static_cast<size_t>(run.first * c));
  if (run.last < kernel_w) __builtin_memset(to + run.last * c, u.zero, static_cast<size_t>((kernel_w - run.last) * c));
  copy(to + run.first * c, u.image + run.pixel * c, (run.last - run.first) * c);
}

// Position by position at the edges of the image; in between, all of a row of positions.
inline void unfold_rows(const Unfolding& u, int64_t first, int64_t count) {
  const ConvShape& s = u.s;
  const int64_t c = s.channels, piece = s.kernel_w * c;
  const int64_t inner_first = (s.pad_w + s.stride_w - 1) / s.stride_w;  // positions with all taps on the image
  const int64_t room = s.width - s.kernel_w + s.pad_w;
  const int64_t inner_last = room < 0 ? 0 : room / s.stride_w + 1;
  for (int64_t row = 0; row < count;) {
    const int64_t oy = (first + row) / s.out_w, begin = (first + row) % s.out_w;
    const int64_t end = s.out_w - begin < count - row ? s.out_w : begin + count - row;
    const int64_t lo = inner_first < begin ? begin : inner_first, hi = inner_last < end ? inner_last : end;
    for (int64_t kh = 0; kh < s.kernel_h; ++kh) {
      const int64_t y = oy * s.stride_h - s.pad_h + kh * s.dilation_h;
      uint8_t* to = u.out + row * u.ld + kh * piece - begin * u.ld;
      const bool has_inner = y >= 0 && y < s.height && lo < hi;
      for (int64_t ox = begin; ox < end; ++ox) {
        if (has_inner && ox == lo) ox = hi;
        if (ox < end) unfold_run(u, run_of(s, y, ox * s.stride_w - s.pad_w), to + ox * u.ld);
      }
      if (!has_inner) continue;
      const uint8_t* from = u.image + (y * s.width + lo * s.stride_w - s.pad_w) * c;
      copy_pieces(to + lo * u.ld, u.ld, from, s.stride_w * c, piece, hi - lo);
    }
    row += end - begin;
  }
}

}  // namespace

void im2col_u8(const uint8_t* image, const ConvShape& s, int64_t first, int64_t count, uint8_t zero, uint8_t* out,
               int64_t ld) {
  if (s.channels_last_taps && s.dilation_w == 1) return unfold_rows({image, s, zero, out, ld}, first, count);
  const int64_t taps = s.kernel_h * s.kernel_w, c = s.channels;
  for_each_run(s, first, count, [&](int64_t row, int64_t kh, const Run& run) {
    if (s.channels_last_taps) {
      uint8_t* to = out + row * ld + kh * s.kernel_w * c;
      if (run.last - run.first < s.kernel_w) __builtin_memset(to, zero, static_cast<size_t>(s.kernel_w * c));
      return for_each_tap(s, run, [&](int64_t t, int64_t pixel) { copy(to + t * c, image + pixel * c, c); });
    }
    uint8_t* to = out + row * ld + kh * s.kernel_w;
    for (int64_t t = 0; t < s.kernel_w; ++t) {
      const bool inside = t >= run.first && t < run.last;
      const uint8_t* from = inside ? image + (run.pixel + (t - run.first) * s.dilation_w) * c : nullptr;
      for (int64_t i = 0; i < c; ++i) to[i * taps + t] = inside ? from[i] : zero;
    }
  });
}

void col2im_s32(const int32_t* cols, int64_t ld, const ConvShape& s, int64_t first, int64_t count, int32_t* image) {
  const int64_t taps = s.kernel_h * s.kernel_w, c = s.channels;
  for_each_run(s, first, count, [&](int64_t row, int64_t kh, const Run& run) {
    if (!s.channels_last_taps) {
      const int32_t* from = cols + row * ld + kh * s.kernel_w;
      for_each_tap(s, run, [&](int64_t t, int64_t pixel) {
        for (int64_t i = 0; i < c; ++i) image[pixel * c + i] += from[i * taps + t];
      });
      return;
    }
    const int32_t* from = cols + row * ld + kh * s.kernel_w * c;
    if (s.dilation_w == 1) return add(image + run.pixel * c, from + run.first * c, (run.last - run.first) * c);
    for_each_tap(s, run, [&](int64_t t, int64_t pixel) { add(image + pixel * c, from + t * c, c); });
  });
}

}  // namespace quintil::kernels::avx2
