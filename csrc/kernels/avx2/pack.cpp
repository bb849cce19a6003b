// Packing of the operands that gemm.cpp reads: groups of four products of each column of B side by side, rows of A along k.
//
// Both begin with a matrix of bytes src[i * k_stride + j * line_stride] and dwords of four i for each line j, in the order
// [k / 4][j][4]. The memory order of the source decides how:
//   lines of contiguous i: squares of 32 i x 8 lines, eight loads and the transpose of 8 x 8 dwords;
//   rows of contiguous lines: four rows of one group interleaved, 4 x 32 bytes -> 32 dwords, in two unpacks;
//   neither: bytes gathered into lines on the stack, then as lines.
// A lane per column (every_mac): dwords of 8 lines become rows of one k, by a byte transpose within 128-bit lanes and a permute
//   of dwords across them.
// Sums for start[]: vpmaddubsw by ones adds two signed bytes (|sum| <= 256), vpmaddwd by ones the two pairs of a dword; lanes of
//   int32 sum a tile, exact by the bound of the op (N2).
// A whose rows lie side by side is interleaved in the same way, then squares of 8 x 8 dwords are transposed.
// Index map: panel[k4][32][4] holds b(4 k4 + i, j) at ((k4 * 32) + j) * 4 + i.
// Registers: 8 lines and the temporaries of a transpose.
#include <immintrin.h>

#include <cstdint>

#include "csrc/core/types.h"
#include "csrc/kernels/avx2/kernels.h"
#include "csrc/kernels/avx2/lanes.h"

namespace quintil::kernels::avx2 {

namespace {

constexpr int64_t kSquare = 32;  // i of a square
constexpr int64_t kLines = 8;    // lines of a square, dwords of a vector

inline int64_t padded(int64_t k) {
  return (k + kDepth - 1) / kDepth * kDepth;
}

// Bytes of a matrix seen as lines along k.
struct Source {
  const uint8_t* first;
  int64_t k_stride, line_stride;

  const uint8_t* at(int64_t i, int64_t line) const { return first + i * k_stride + line * line_stride; }
};

// Row q of the result holds dword q of every line.
inline void transpose(__m256i (&v)[kLines]) {
  __m256i pairs[kLines], fours[kLines];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {  // lines 2 i and 2 i + 1
    pairs[2 * i] = _mm256_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
    pairs[2 * i + 1] = _mm256_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {  // lines 4 i .. 4 i + 3
    fours[4 * i] = _mm256_unpacklo_epi64(pairs[4 * i], pairs[4 * i + 2]);
    fours[4 * i + 1] = _mm256_unpackhi_epi64(pairs[4 * i], pairs[4 * i + 2]);
    fours[4 * i + 2] = _mm256_unpacklo_epi64(pairs[4 * i + 1], pairs[4 * i + 3]);
    fours[4 * i + 3] = _mm256_unpackhi_epi64(pairs[4 * i + 1], pairs[4 * i + 3]);
  }
#pragma GCC unroll 4
  for (int q = 0; q < 4; ++q) {  // dwords 0..3 lie in the lower halves, 4..7 in the upper ones
    v[q] = _mm256_permute2x128_si256(fours[q], fours[q + 4], 0x20);
    v[q + 4] = _mm256_permute2x128_si256(fours[q], fours[q + 4], 0x31);
  }
}

// The first `count` <= 32 contiguous bytes, zero behind them: whole dwords by a mask, the last 1 to 3 bytes into theirs.
inline __m256i first_bytes(const uint8_t* p, int64_t count) {
  if (count == 32) return load(p);
  if (count == 16) return _mm256_zextsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), last = _mm256_set1_epi32(static_cast<int>(count / 4));
  const __m256i whole = _mm256_maskload_epi32(reinterpret_cast<const int*>(p), _mm256_cmpgt_epi32(last, lane));
  uint32_t rest = 0;
  for (int64_t i = count - 1; i >= count / 4 * 4; --i) rest = rest << 8 | p[i];
  return _mm256_or_si256(whole,
                         _mm256_and_si256(_mm256_set1_epi32(static_cast<int>(rest)), _mm256_cmpeq_epi32(last, lane)));
}

// The same of bytes `stride` apart. Not inlined: 32 copies of it would be most of this file's code.
[[gnu::noinline]] __m256i gathered(const uint8_t* p, int64_t stride, int64_t count) {
  if (stride == 1) return first_bytes(p, count);
  alignas(32) uint8_t bytes[kSquare] = {};
  for (int64_t i = 0; i < count; ++i) bytes[i] = p[i * stride];
  return load(bytes);
}

// Group `i`, `depth` <= 4 rows of `count` contiguous lines, up to 32 of them and zero elsewhere: v[j] is lines 8 j .. 8 j + 7.
[[gnu::always_inline]] inline void interleave(const Source& src, int64_t i, int64_t depth, int64_t line, int64_t count,
                                              __m256i (&v)[4]) {
  __m256i row[kDepth];
  if (depth >= kDepth && count >= kPanel) {
#pragma GCC unroll 4
    for (int r = 0; r < kDepth; ++r) row[r] = load(src.at(i + r, line));
  } else {
#pragma GCC unroll 4
    for (int r = 0; r < kDepth; ++r) {
      row[r] = r < depth ? first_bytes(src.at(i + r, line), count < kPanel ? count : kPanel) : _mm256_setzero_si256();
    }
  }
  const __m256i low01 = _mm256_unpacklo_epi8(row[0], row[1]), high01 = _mm256_unpackhi_epi8(row[0], row[1]);
  const __m256i low23 = _mm256_unpacklo_epi8(row[2], row[3]), high23 = _mm256_unpackhi_epi8(row[2], row[3]);
  const __m256i a = _mm256_unpacklo_epi16(low01, low23),
                b = _mm256_unpackhi_epi16(low01, low23);  // 0-3 16-19, 4-7 20-23
  const __m256i c = _mm256_unpacklo_epi16(high01, high23),
                d = _mm256_unpackhi_epi16(high01, high23);  // 8-11 24-27, 12-15 28-31
  v[0] = _mm256_permute2x128_si256(a, b, 0x20);
  v[1] = _mm256_permute2x128_si256(c, d, 0x20);
  v[2] = _mm256_permute2x128_si256(a, b, 0x31);
  v[3] = _mm256_permute2x128_si256(c, d, 0x31);
}

// Calls put(group, j, dwords) for the products [i, end) of lines 8 j .. 8 j + 7, counted from `line`, j < 4, of which `count`
// exist; groups count from 0. Lines are whole where count >= 32.
template <class Put>
[[gnu::always_inline]] inline void squares(const Source& src, int64_t i, int64_t end, int64_t line, int64_t count,
                                           Put put) {
  for (int64_t group = 0; i < end; group += kLines, i += kSquare) {
    const int64_t depth = end - i < kSquare ? end - i : kSquare;
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const int64_t first = line + kLines * j, lines = count - kLines * j;
      __m256i v[kLines];
      if (src.k_stride == 1 && depth == kSquare && lines >= kLines) {
#pragma GCC unroll 8
        for (int l = 0; l < kLines; ++l) v[l] = load(src.at(i, first + l));
      } else {
#pragma GCC unroll 8
        for (int l = 0; l < kLines; ++l) {
          v[l] = l < lines ? gathered(src.at(i, first + l), src.k_stride, depth) : _mm256_setzero_si256();
        }
      }
      transpose(v);
#pragma GCC unroll 8
      for (int q = 0; q < kLines; ++q) {
        if (q * kDepth < depth) put(group + q, j, v[q]);
      }
    }
  }
}

// 8 lines of four k, [line][4], into rows of one k each, `kWidePanel` bytes apart.
inline void store_rows(uint8_t* to, __m256i group) {
  const __m256i bytes =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  const __m256i dwords = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  alignas(32) uint8_t rows[32];
  store(rows, _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(group, bytes), dwords));
#pragma GCC unroll 4
  for (int i = 0; i < kDepth; ++i) __builtin_memcpy(to + kWidePanel * i, rows + kLines * i, kLines);
}

// `count` rows of contiguous lines become rows along k, `out_row` apart: lines `line` .. `line` + 31 of `lines`.
inline void turn_rows(const Source& src, int64_t count, int64_t line, int64_t lines, uint8_t* out, int64_t out_row) {
  for (int64_t i = 0; i < count; i += kSquare) {
    const int64_t bytes = padded(count - i < kSquare ? count - i : kSquare);
    __m256i group[kLines][4];
    for (int64_t q = 0; q < kLines; ++q) {
      const int64_t depth = count - i - q * kDepth;
      interleave(src, i + q * kDepth, depth > 0 ? depth : 0, line, lines - line, group[q]);
    }
    for (int64_t j = 0; j < 4; ++j) {
      __m256i v[kLines];
#pragma GCC unroll 8
      for (int q = 0; q < kLines; ++q) v[q] = group[q][j];
      transpose(v);
#pragma GCC unroll 8
      for (int l = 0; l < kLines; ++l) {
        const int64_t at = line + kLines * j + l;
        if (at >= lines) continue;
        if (bytes == kSquare) {
          store(out + at * out_row + i, v[l]);
        } else {
          __builtin_memcpy(out + at * out_row + i, &v[l], static_cast<size_t>(bytes));
        }
      }
    }
  }
}

inline __m256i sums_of_four(__m256i codes) {
  return _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), codes), _mm256_set1_epi16(1));
}

}  // namespace

void pack_b_s8(const int8_t* src, int64_t k_stride, int64_t n_stride, int64_t k, int64_t n, int64_t tile, int32_t zero,
               int8_t* panels, int32_t* start) {
  const Source source{reinterpret_cast<const uint8_t*>(src), k_stride, n_stride};
  const int64_t depth = tile == 0 ? k : tile;
  const __m256i minus_zero = _mm256_set1_epi32(-zero);
  for (int64_t first = 0; first < n; first += kPanel) {
    for (int64_t k0 = 0; k0 < k; k0 += depth) {
      const int64_t end = k - k0 < depth ? k : k0 + depth;
      __m256i sum[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()};
      const auto put = [&](int64_t group, int j, __m256i codes) {
        store(panels + (group * kPanel + kLines * j) * kDepth, codes);
        sum[j] = _mm256_add_epi32(sum[j], sums_of_four(codes));
      };
      if (n_stride == 1) {
        for (int64_t i = k0; i < end; i += kDepth) {
          __m256i v[4];
          interleave(source, i, end - i, first, n - first, v);
#pragma GCC unroll 4
          for (int j = 0; j < 4; ++j) put((i - k0) / kDepth, j, v[j]);
        }
      } else {
        squares(source, k0, end, first, n - first, put);
      }
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) store(start + kLines * j, _mm256_mullo_epi32(sum[j], minus_zero));
      panels += (end - k0 + kDepth - 1) / kDepth * kDepth * kPanel;
      start += kPanel;
    }
  }
}

void pack_a_u8(const uint8_t* src, int64_t k_stride, int64_t m_stride, int64_t k, int64_t m, int64_t tile,
               uint8_t* dst) {
  const int64_t depth = tile == 0 || tile % kDepth == 0 ? k : tile;  // whole groups follow each other without padding
  const int64_t row = depth == 0 ? 0 : k / depth * padded(depth) + padded(k % depth);
  for (int64_t k0 = 0; k0 < k; k0 += depth, dst += padded(depth)) {
    const int64_t count = k - k0 < depth ? k - k0 : depth;
    const Source source{src + k0 * k_stride, k_stride, m_stride};
    if (m_stride == 1) {
      for (int64_t j = 0; j < m; j += kPanel) turn_rows(source, count, j, m, dst, row);
      continue;
    }
    for (int64_t j = 0; j < m; ++j) {
      uint8_t* to = dst + j * row;
      if (k_stride == 1) {
        __builtin_memcpy(to, source.at(0, j), static_cast<size_t>(count));
      } else {
        for (int64_t i = 0; i < count; ++i) to[i] = *source.at(i, j);
      }
      for (int64_t i = count; i < padded(count); ++i) to[i] = 0;
    }
  }
}

void pack_b_s8_every_mac(const int8_t* src, int64_t k_stride, int64_t n_stride, int64_t k, int64_t n, int64_t tile,
                         uint8_t mask, int8_t* panels) {
  const Source source{reinterpret_cast<const uint8_t*>(src), k_stride, n_stride};
  const int64_t depth = tile == 0 ? k : tile;
  const __m256i kept = _mm256_set1_epi8(static_cast<char>(mask));
  auto* to = reinterpret_cast<uint8_t*>(panels);
  for (int64_t first = 0; first < n; first += kWidePanel) {
    for (int64_t k0 = 0; k0 < k; k0 += depth) {
      const int64_t end = k - k0 < depth ? k : k0 + depth;
      for (int64_t half = 0; half < kWidePanel; half += kPanel) {
        const int64_t line = first + half;
        const auto put = [&](int64_t group, int j, __m256i codes) {
          store_rows(to + group * kDepth * kWidePanel + half + kLines * j, _mm256_and_si256(codes, kept));
        };
        if (n_stride == 1) {
          for (int64_t i = k0; i < end; i += kDepth) {
            __m256i v[4];
            interleave(source, i, end - i, line, n - line > 0 ? n - line : 0, v);
#pragma GCC unroll 4
            for (int j = 0; j < 4; ++j) put((i - k0) / kDepth, j, v[j]);
          }
        } else {
          squares(source, k0, end, line, n - line, put);
        }
      }
      to += (end - k0 + kDepth - 1) / kDepth * kDepth * kWidePanel;
    }
  }
}

}  // namespace quintil::kernels::avx2
