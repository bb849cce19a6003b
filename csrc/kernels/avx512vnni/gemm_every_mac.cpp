// Products whose accumulator is limited after every multiply-add [HDQT H3], k ascending: a lane is a column, and the register of
// every column lives through the same sums as the law's. Packing is in pack.cpp.
//
// Limits: a lane holds s = r + (top - L), top = 127 or 32767 of its type. The saturating add stops at top, which is r = L; a
//   maximum stops at floor = top - 2 L, which is r = -L. Exact for every L <= top and product that fits the lane: where the
//   add saturates below, at -128 or -32768, the sum was below the floor.
// Codes of 4 bits: vpshufb looks 64 products up, the 16 products of one code of A (`Multiples`) by codes of B; no multiplication.
//   The add and the maximum share a port, so the maximum acts once for two products. The add is monotone, hence
//     max(floor, max(floor, s + p) + q) = max(s + p + q, lowest(q)),   lowest(q) = max(floor, floor + q),  + saturating,
//   and lowest(q) is one more look-up, on the port that is free.
// Other codes: vpmullw, vpaddsw and the maximum in int16; |a b| <= 255 * 128 = 32640.
// Registers, 4 x 128 block, or 8 x 64 for a single panel: 8 sums, 16 totals of int16, 4 rows of B, 3 tables; or 16 sums of
//   int16, 4 rows of B, code, floor, product. A total has room for 32767 / 127 = 258 tiles, then it is added to C; int16 sums are
//   added to C tile by tile.
// Index map: b[k][64], lane j is column j; the look-up takes the low 4 bits. Widening keeps the order of columns.
#include <immintrin.h>

#include <cstdint>

#include "csrc/core/types.h"
#include "csrc/kernels/avx512vnni/kernels.h"

namespace quintil::kernels::avx512vnni {

namespace {

constexpr int64_t kTilesPerTotal = 258;

// By byte of A, whatever it is: the byte may be padding, where only the product with the code 0 of B matters.
struct Multiples {
  alignas(32) int8_t products[256][2][16];  // products with 0..7, -8..-1, and the lowest value after them
};
struct Codes {
  alignas(64) uint32_t pairs[256];  // the code of A in both halves
};

// What one block reads: its rows of A, one panel of B.
struct Operands {
  const uint8_t* a;
  int64_t a_row;
  const uint8_t* b;
  int64_t k4, tile_k4;
  int32_t start;  // top - L
  int32_t floor;  // top - 2 L
};

// Where a block goes, cut to the columns that exist.
struct Sink {
  int32_t* c;
  int64_t ld;
  int64_t columns;

  // C = or += total - excess of 64 columns.
  void put(int64_t row, int64_t column, const __m512i (&total)[2], int32_t excess, bool adds) const {
    int32_t* to = c + row * ld + column;
    const int64_t count = columns - column;
    const uint64_t valid = count < kWidePanel ? (uint64_t{1} << count) - 1 : ~uint64_t{0};
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const auto mask = static_cast<__mmask16>(valid >> (16 * j));
      const __m256i part =
          j % 2 == 0 ? _mm512_castsi512_si256(total[j / 2]) : _mm512_extracti64x4_epi64(total[j / 2], 1);
      __m512i value = _mm512_sub_epi32(_mm512_cvtepi16_epi32(part), _mm512_set1_epi32(excess));
      if (adds) value = _mm512_add_epi32(value, _mm512_maskz_loadu_epi32(mask, to + 16 * j));
      _mm512_mask_storeu_epi32(to + 16 * j, mask, value);
    }
  }
};

inline __m512i widened(const uint8_t* columns) {
  return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(columns)));
}

inline __m512i table_of(const int8_t* multiples) {
  return _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(multiples)));
}

// total[2] of 32 columns each += the sums of a tile.
inline void add_tile(__m512i (&total)[2], __m512i sum) {
  total[0] = _mm512_add_epi16(total[0], _mm512_cvtepi8_epi16(_mm512_castsi512_si256(sum)));
  total[1] = _mm512_add_epi16(total[1], _mm512_cvtepi8_epi16(_mm512_extracti64x4_epi64(sum, 1)));
}

// Two products, of a group of four, for all rows and panels of a block.
template <int rows, int panels>
[[gnu::always_inline]] inline void add_two(__m512i (&sum)[rows][panels], const Multiples& table, const uint8_t* a,
                                           int64_t a_row, const uint8_t* b, int64_t b_panel) {
  __m512i first[panels], second[panels];
#pragma GCC unroll 2
  for (int j = 0; j < panels; ++j) {
    first[j] = _mm512_loadu_si512(b + j * b_panel);
    second[j] = _mm512_loadu_si512(b + j * b_panel + kWidePanel);
  }
#pragma GCC unroll 8
  for (int i = 0; i < rows; ++i) {
    const auto &one = table.products[a[i * a_row]], &other = table.products[a[i * a_row + 1]];
    const __m512i table1 = table_of(one[0]), table2 = table_of(other[0]), lowest = table_of(other[1]);
#pragma GCC unroll 2
    for (int j = 0; j < panels; ++j) {
      sum[i][j] = _mm512_adds_epi8(sum[i][j], _mm512_shuffle_epi8(table1, first[j]));
      sum[i][j] = _mm512_adds_epi8(sum[i][j], _mm512_shuffle_epi8(table2, second[j]));
      sum[i][j] = _mm512_max_epi8(sum[i][j], _mm512_shuffle_epi8(lowest, second[j]));
    }
  }
}

// `rows` x 64 * `panels` outputs over all of k, from 4-bit codes.
template <int rows, int panels>
[[gnu::noinline]] void block(const Operands& o, const Multiples& table, int64_t row, const Sink& sink) {
  __m512i total[rows][panels][2], sum[rows][panels];
  const int64_t a_row = o.a_row, b_panel = o.k4 * kDepth * kWidePanel;
  const uint8_t *a = o.a + row * a_row, *b = o.b;
  int64_t left = o.k4;
  do {
    const bool adds = left < o.k4;
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 2
      for (int j = 0; j < panels; ++j) total[i][j][0] = total[i][j][1] = _mm512_setzero_si512();
    }
    int64_t tiles = 0;
    do {
#pragma GCC unroll 8
      for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 2
        for (int j = 0; j < panels; ++j) sum[i][j] = _mm512_set1_epi8(static_cast<int8_t>(o.start));
      }
      const int64_t groups = left < o.tile_k4 ? left : o.tile_k4;
      for (int64_t q = 0; q < groups; ++q, a += kDepth, b += kDepth * kWidePanel) {
        add_two(sum, table, a, a_row, b, b_panel);
        add_two(sum, table, a + 2, a_row, b + 2 * kWidePanel, b_panel);
      }
      left -= groups;
#pragma GCC unroll 8
      for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 2
        for (int j = 0; j < panels; ++j) add_tile(total[i][j], sum[i][j]);
      }
    } while (++tiles < kTilesPerTotal && left > 0);
    const int32_t excess = static_cast<int32_t>(tiles) * o.start;
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 2
      for (int j = 0; j < panels; ++j) sink.put(row + i, j * kWidePanel, total[i][j], excess, adds);
    }
  } while (left > 0);
}

// The same from any bytes.
template <int rows, int panels>
[[gnu::noinline]] void block(const Operands& o, const Codes& table, int64_t row, const Sink& sink) {
  __m512i sum[rows][panels][2];
  const int64_t a_row = o.a_row, b_panel = o.k4 * kDepth * kWidePanel;
  const uint8_t *a = o.a + row * a_row, *b = o.b;
  const __m512i floor = _mm512_set1_epi16(static_cast<int16_t>(o.floor));
  int64_t left = o.k4;
  do {
    const bool adds = left < o.k4;
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 2
      for (int j = 0; j < panels; ++j) sum[i][j][0] = sum[i][j][1] = _mm512_set1_epi16(static_cast<int16_t>(o.start));
    }
    const int64_t groups = left < o.tile_k4 ? left : o.tile_k4;
    left -= groups;
    for (int64_t q = 0; q < groups; ++q, a += kDepth) {
      for (int64_t k = 0; k < kDepth; ++k, b += kWidePanel) {
        __m512i column[panels][2];
#pragma GCC unroll 2
        for (int j = 0; j < panels; ++j) {
          column[j][0] = widened(b + j * b_panel);
          column[j][1] = widened(b + j * b_panel + kWidePanel / 2);
        }
#pragma GCC unroll 8
        for (int i = 0; i < rows; ++i) {
          const __m512i code = _mm512_set1_epi32(static_cast<int32_t>(table.pairs[a[i * a_row + k]]));
#pragma GCC unroll 4
          for (int j = 0; j < 2 * panels; ++j) {
            __m512i& s = sum[i][j / 2][j % 2];
            s = _mm512_max_epi16(_mm512_adds_epi16(s, _mm512_mullo_epi16(code, column[j / 2][j % 2])), floor);
          }
        }
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 2
      for (int j = 0; j < panels; ++j) sink.put(row + i, j * kWidePanel, sum[i][j], o.start, adds);
    }
  } while (left > 0);
}

// All rows of the panels; a single one has the registers for 8 of them.
template <int panels, class Table>
void panel_rows(const Operands& o, const Table& table, int64_t m, const Sink& sink) {
  constexpr int kRows = 8 / panels;
  int64_t row = 0;
  for (; m - row >= kRows; row += kRows) block<kRows, panels>(o, table, row, sink);
  for (; m - row >= 4; row += 4) block<4, panels>(o, table, row, sink);
  switch (m - row) {
    case 3: block<3, panels>(o, table, row, sink); break;
    case 2: block<2, panels>(o, table, row, sink); break;
    case 1: block<1, panels>(o, table, row, sink); break;
    default: break;
  }
}

template <class Table>
void multiply(const EveryMacGemm& g, const Table& table, int32_t top, int32_t* c, int64_t ld) {
  Operands o{g.a, g.a_row, nullptr, g.k4, g.tile_k4, top - g.limit, top - 2 * g.limit};
  for (int64_t first = 0; first < g.n; first += 2 * kWidePanel) {
    o.b = reinterpret_cast<const uint8_t*>(g.b) + first * g.k4 * kDepth;
    const Sink sink{c + first, ld, g.n - first};
    if (sink.columns > kWidePanel) {
      panel_rows<2>(o, table, g.m, sink);
    } else {
      panel_rows<1>(o, table, g.m, sink);
    }
  }
}

}  // namespace

void gemm_u8s4s32_every_mac(const EveryMacGemm& g, int32_t* c, int64_t ld) {
  Multiples table;
  const __m128i codes = _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1);
  const __m128i floor = _mm_set1_epi8(static_cast<int8_t>(127 - 2 * g.limit));
  __m128i products = _mm_setzero_si128();  // of code 0, then round the circle of 256 bytes
  for (int32_t i = 0; i < 256; ++i) {
    auto* to = reinterpret_cast<__m128i*>(table.products[(g.zero + i) % 256]);
    _mm_store_si128(to, products);
    _mm_store_si128(to + 1, _mm_max_epi8(floor, _mm_adds_epi8(floor, products)));
    products = _mm_add_epi8(products, codes);
  }
  multiply(g, table, INT8_MAX, c, ld);
}

void gemm_u8s8s32_every_mac(const EveryMacGemm& g, int32_t* c, int64_t ld) {
  Codes table;
  for (int32_t i = 0; i < 256; ++i) table.pairs[i] = static_cast<uint32_t>((i - g.zero) & 0xFFFF) * 0x10001u;
  multiply(g, table, INT16_MAX, c, ld);
}

}  // namespace quintil::kernels::avx512vnni
