// Operands into the order of vpdpbusd: four consecutive k of one column of B side by side; rows of A along k.
//
// Rows side by side in memory (n_stride 1): four rows of 32 bytes are interleaved by unpack within 128-bit lanes;
//   two shuffles put the lanes in the order of the columns, 0-15 and 16-31.
// A of rows side by side (m_stride 1): the same interleaving, then a transpose of 16 groups of 16 rows.
// Columns contiguous in k (k_stride 1): a dword already holds its four k, so 16 columns are one gather. A group cut short by
//   the end of a tile is collected byte by byte, since a dword would reach beyond it.
// A lane per column (every_mac): bytes of four columns and four k are transposed within 128-bit lanes, then dwords across them.
// start[]: vpdpbusd by the constant `zero` (u8, at most 128) sums zero * b of a column while its bytes are at hand.
#include <immintrin.h>

#include <cstdint>

#include "csrc/core/types.h"
#include "csrc/kernels/avx512vnni/kernels.h"
#include "csrc/kernels/avx512vnni/lanes.h"

namespace quintil::kernels::avx512vnni {

namespace {

inline int64_t at_most(int64_t value, int64_t most) {
  return value < most ? value : most;
}

inline int64_t padded(int64_t k) {
  return (k + kDepth - 1) / kDepth * kDepth;
}

// Four k of 32 columns: columns 0-15 and 16-31, [column][4].
struct Group {
  __m512i half[2];
};

// `rows` (1..4) rows `stride` bytes apart; the missing ones are zero.
inline Group interleave(const uint8_t* src, int64_t stride, int64_t rows, __mmask32 columns) {
  __m256i r[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    r[i] = i < rows ? _mm256_maskz_loadu_epi8(columns, src + i * stride) : _mm256_setzero_si256();
  }
  const __m256i low01 = _mm256_unpacklo_epi8(r[0], r[1]), high01 = _mm256_unpackhi_epi8(r[0], r[1]);
  const __m256i low23 = _mm256_unpacklo_epi8(r[2], r[3]), high23 = _mm256_unpackhi_epi8(r[2], r[3]);
  // Columns 0-3 | 16-19, 4-7 | 20-23 and 8-11 | 24-27, 12-15 | 28-31.
  const __m512i first = _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_unpacklo_epi16(low01, low23)),
                                           _mm256_unpackhi_epi16(low01, low23), 1);
  const __m512i second = _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_unpacklo_epi16(high01, high23)),
                                            _mm256_unpackhi_epi16(high01, high23), 1);
  return {{_mm512_shuffle_i64x2(first, second, 0x88), _mm512_shuffle_i64x2(first, second, 0xDD)}};
}

// Any strides: `rows` k of `columns` columns.
inline Group collect(const uint8_t* src, int64_t k_stride, int64_t n_stride, int64_t rows, int64_t columns) {
  uint8_t bytes[kPanel * kDepth] = {};
  for (int64_t j = 0; j < columns; ++j) {
    for (int64_t i = 0; i < rows; ++i) bytes[j * kDepth + i] = src[i * k_stride + j * n_stride];
  }
  return {{_mm512_loadu_si512(bytes), _mm512_loadu_si512(bytes + 64)}};
}

// Row q of the result holds dword q of every row.
inline void transpose(__m512i (&v)[16]) {
  __m512i t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {  // rows 2 i and 2 i + 1
    t[2 * i] = _mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {  // rows 4 i .. 4 i + 3; v[4 i + c] holds dwords c, c + 4, c + 8, c + 12 of them
    v[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    v[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    v[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    v[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    const __m512i even[2] = {_mm512_shuffle_i32x4(v[c], v[4 + c], 0x88),
                             _mm512_shuffle_i32x4(v[8 + c], v[12 + c], 0x88)};
    const __m512i odd[2] = {_mm512_shuffle_i32x4(v[c], v[4 + c], 0xDD),
                            _mm512_shuffle_i32x4(v[8 + c], v[12 + c], 0xDD)};
    t[c] = _mm512_shuffle_i32x4(even[0], even[1], 0x88);
    t[4 + c] = _mm512_shuffle_i32x4(odd[0], odd[1], 0x88);
    t[8 + c] = _mm512_shuffle_i32x4(even[0], even[1], 0xDD);
    t[12 + c] = _mm512_shuffle_i32x4(odd[0], odd[1], 0xDD);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) v[i] = t[i];
}

// `count` rows of up to 32 bytes, `stride` apart, become `lines` rows of padded(count) bytes, `out_row` apart.
inline void turn_rows(const uint8_t* src, int64_t stride, int64_t count, int64_t lines, uint8_t* out, int64_t out_row) {
  const __mmask32 columns = first_of_32(lines);
  for (int64_t i = 0; i < count; i += 64) {
    const int64_t groups = at_most((count - i + kDepth - 1) / kDepth, 16);
    const auto stored = static_cast<__mmask16>((1u << groups) - 1);
    Group part[16];
    for (int64_t q = 0; q < groups; ++q) {
      part[q] = interleave(src + (i + q * kDepth) * stride, stride, at_most(count - i - q * kDepth, kDepth), columns);
    }
    for (int64_t half = 0; half < 2 && 16 * half < lines; ++half) {
      __m512i v[16];
#pragma GCC unroll 16
      for (int q = 0; q < 16; ++q) v[q] = q < groups ? part[q].half[half] : _mm512_setzero_si512();
      transpose(v);
#pragma GCC unroll 16
      for (int l = 0; l < 16; ++l) {
        if (16 * half + l < lines) _mm512_mask_storeu_epi32(out + (16 * half + l) * out_row + i, stored, v[l]);
      }
    }
  }
}

// Whole groups of columns that are contiguous in k.
inline Group gather(const uint8_t* src, __m512i index, int64_t n_stride, __mmask32 columns) {
  const __m512i none = _mm512_setzero_si512();
  return {{_mm512_mask_i32gather_epi32(none, static_cast<__mmask16>(columns), index, src, 1),
           _mm512_mask_i32gather_epi32(none, static_cast<__mmask16>(columns >> 16), index, src + 16 * n_stride, 1)}};
}

// 16 columns of four k, [column][4], into rows of one k each, `kWidePanel` bytes apart.
inline void store_rows(uint8_t* to, __m512i group) {
  const __m512i bytes = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  const __m512i dwords = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m512i rows = _mm512_permutexvar_epi32(dwords, _mm512_shuffle_epi8(group, bytes));
  const __m128i row[4] = {_mm512_castsi512_si128(rows), _mm512_extracti32x4_epi32(rows, 1),
                          _mm512_extracti32x4_epi32(rows, 2), _mm512_extracti32x4_epi32(rows, 3)};
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) _mm_storeu_si128(reinterpret_cast<__m128i*>(to + kWidePanel * i), row[i]);
}

// One panel: all k of at most 32 columns.
struct PanelSource {
  const uint8_t* src;
  int64_t k_stride, n_stride;
  int64_t columns;
  __mmask32 mask;
  __m512i index;  // of 16 columns, where they are contiguous in k
  bool gathers;

  PanelSource(const uint8_t* first, int64_t k_step, int64_t n_step, int64_t count)
      : src(first), k_stride(k_step), n_stride(n_step), columns(at_most(count, kPanel)), mask(first_of_32(count)) {
    gathers = k_stride == 1 && n_stride < (int64_t{1} << 27);
    index = _mm512_mullo_epi32(_mm512_set1_epi32(static_cast<int32_t>(n_stride)),
                               _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
  }

  Group group(int64_t k, int64_t rows) const {
    const uint8_t* first = src + k * k_stride;
    if (n_stride == 1) return interleave(first, k_stride, rows, mask);
    if (gathers && rows == kDepth) return gather(first, index, n_stride, mask);
    return collect(first, k_stride, n_stride, rows, columns);
  }
};

}  // namespace

void pack_b_s8(const int8_t* src, int64_t k_stride, int64_t n_stride, int64_t k, int64_t n, int64_t tile, int32_t zero,
               int8_t* panels, int32_t* start) {
  const int64_t depth = tile == 0 ? k : tile;
  const __m512i zeros = _mm512_set1_epi8(static_cast<char>(zero));
  for (int64_t first = 0; first < n; first += kPanel) {
    const PanelSource panel(reinterpret_cast<const uint8_t*>(src) + first * n_stride, k_stride, n_stride, n - first);
    for (int64_t k0 = 0; k0 < k; k0 += depth) {
      __m512i sum[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
      const int64_t end = at_most(k, k0 + depth);
      for (int64_t q = k0; q < end; q += kDepth, panels += kPanel * kDepth) {
        const Group group = panel.group(q, at_most(end - q, kDepth));
#pragma GCC unroll 2
        for (int i = 0; i < 2; ++i) {
          _mm512_storeu_si512(panels + 64 * i, group.half[i]);
          sum[i] = _mm512_dpbusd_epi32(sum[i], zeros, group.half[i]);
        }
      }
#pragma GCC unroll 2
      for (int i = 0; i < 2; ++i, start += 16)
        _mm512_storeu_si512(start, _mm512_sub_epi32(_mm512_setzero_si512(), sum[i]));
    }
  }
}

void pack_a_u8(const uint8_t* src, int64_t k_stride, int64_t m_stride, int64_t k, int64_t m, int64_t tile,
               uint8_t* dst) {
  const int64_t depth = tile == 0 || tile % kDepth == 0 ? k : tile;  // whole groups follow each other without padding
  const int64_t row = depth == 0 ? 0 : k / depth * padded(depth) + padded(k % depth);
  for (int64_t k0 = 0; k0 < k; k0 += depth, dst += padded(depth)) {
    const int64_t count = at_most(k - k0, depth);
    const uint8_t* from = src + k0 * k_stride;
    if (m_stride == 1) {
      for (int64_t j = 0; j < m; j += kPanel) turn_rows(from + j, k_stride, count, m - j, dst + j * row, row);
      continue;
    }
    for (int64_t j = 0; j < m; ++j) {
      uint8_t* to = dst + j * row;
      if (k_stride == 1) {
        __builtin_memcpy(to, from + j * m_stride, static_cast<size_t>(count));
      } else {
        for (int64_t i = 0; i < count; ++i) to[i] = from[i * k_stride + j * m_stride];
      }
      for (int64_t i = count; i < padded(count); ++i) to[i] = 0;
    }
  }
}

void pack_b_s8_every_mac(const int8_t* src, int64_t k_stride, int64_t n_stride, int64_t k, int64_t n, int64_t tile,
                         uint8_t mask, int8_t* panels) {
  const int64_t depth = tile == 0 ? k : tile;
  const __m512i kept = _mm512_set1_epi8(static_cast<char>(mask));
  const auto* codes = reinterpret_cast<const uint8_t*>(src);
  auto* to = reinterpret_cast<uint8_t*>(panels);
  for (int64_t first = 0; first < n; first += kWidePanel) {
    const int64_t others = n - first - kPanel;  // columns of the second half
    const PanelSource halves[2] = {{codes + first * n_stride, k_stride, n_stride, n - first},
                                   {codes + (first + kPanel) * n_stride, k_stride, n_stride, others > 0 ? others : 0}};
    for (int64_t k0 = 0; k0 < k; k0 += depth) {
      const int64_t end = at_most(k, k0 + depth);
      for (int64_t q = k0; q < end; q += kDepth, to += kWidePanel * kDepth) {
#pragma GCC unroll 2
        for (int i = 0; i < 2; ++i) {
          const Group group = halves[i].group(q, at_most(end - q, kDepth));
          store_rows(to + kPanel * i, _mm512_and_si512(group.half[0], kept));
          store_rows(to + kPanel * i + 16, _mm512_and_si512(group.half[1], kept));
        }
      }
    }
  }
}

}  // namespace quintil::kernels::avx512vnni
