// Products whose accumulator is limited after every multiply-add [HDQT H3], k ascending: a lane is a column, and the register of
// every column lives through the same sums as the law's. Packing is in pack.cpp.
//
// Limits: a lane holds s = r + (top - L), top = 127 or 32767 of its type. The saturating add stops at top, which is r = L; a
//   maximum stops at floor = top - 2 L, which is r = -L. Exact for every L <= top and product that fits the lane: where the
//   add saturates below, at -128 or -32768, the sum was below the floor.
// Codes of 4 bits: vpshufb looks 32 products up, the 16 products of one code of A (`Multiples`) by codes of B; no multiplication.
//   Look-up, add and maximum have three ports, so nothing is gained by a maximum for two products, as in avx512vnni.
// Other codes: vpmullw, vpaddsw and the maximum in int16; |a b| <= 255 * 128 = 32640.
// Registers: 8 sums, of 4 rows x 64 or 4 rows x 32 columns; 2 of B, the table, the product, the floor. Totals of int16 stay in
//   L1: one has room for 32767 / 127 = 258 tiles, then it is added to C; int16 sums are added to C tile by tile.
// Index map: b[k][64], lane j is column j; the look-up takes the low 4 bits. Widening keeps the order of columns.
#include <immintrin.h>

#include <cstdint>

#include "csrc/core/types.h"
#include "csrc/kernels/avx2/kernels.h"
#include "csrc/kernels/avx2/lanes.h"

namespace quintil::kernels::avx2 {

namespace {

constexpr int64_t kTilesPerTotal = 258;

// By byte of A, whatever it is: the byte may be padding, where only the product with the code 0 of B matters.
struct Multiples {
  alignas(16) int8_t products[256][16];  // products with 0..7, -8..-1
};
struct Codes {
  alignas(32) uint32_t pairs[256];  // the code of A in both halves
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

  // C = or += total - excess of 16 columns.
  void put(int64_t row, int64_t column, __m256i total, int32_t excess, bool adds) const {
    const __m128i halves[2] = {_mm256_castsi256_si128(total), _mm256_extracti128_si256(total, 1)};
    for (int j = 0; j < 2; ++j) {
      const int64_t at = column + 8 * j;
      const __m256i mask = first_lanes(columns - at);
      __m256i value = _mm256_sub_epi32(_mm256_cvtepi16_epi32(halves[j]), _mm256_set1_epi32(excess));
      if (adds) value = _mm256_add_epi32(value, _mm256_maskload_epi32(c + row * ld + at, mask));
      _mm256_maskstore_epi32(c + row * ld + at, mask, value);
    }
  }
};

// total[4] of 16 columns each += sums of 64 columns.
inline void add_tile(__m256i (&total)[4], const __m256i (&sum)[2]) {
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const __m128i part = j % 2 == 0 ? _mm256_castsi256_si128(sum[j / 2]) : _mm256_extracti128_si256(sum[j / 2], 1);
    total[j] = _mm256_add_epi16(total[j], _mm256_cvtepi8_epi16(part));
  }
}

// `rows` x 64 outputs over all of k, from 4-bit codes.
template <int rows>
[[gnu::noinline]] void block(const Operands& o, const Multiples& table, int64_t row, const Sink& sink) {
  __m256i total[rows][4], sum[rows][2];
  const int64_t a_row = o.a_row;
  const uint8_t *a = o.a + row * a_row, *b = o.b;
  const __m256i floor = _mm256_set1_epi8(static_cast<int8_t>(o.floor));
  int64_t left = o.k4;
  do {
    const bool adds = left < o.k4;
    for (int i = 0; i < rows; ++i) {
      for (int j = 0; j < 4; ++j) total[i][j] = _mm256_setzero_si256();
    }
    int64_t tiles = 0;
    do {
#pragma GCC unroll 4
      for (int i = 0; i < rows; ++i) sum[i][0] = sum[i][1] = _mm256_set1_epi8(static_cast<int8_t>(o.start));
      const int64_t groups = left < o.tile_k4 ? left : o.tile_k4;
      for (int64_t q = 0; q < groups; ++q, a += kDepth) {
        for (int64_t k = 0; k < kDepth; ++k, b += kWidePanel) {
          const __m256i column[2] = {load(b), load(b + 32)};
#pragma GCC unroll 4
          for (int i = 0; i < rows; ++i) {
            const auto* multiples = reinterpret_cast<const __m128i*>(table.products[a[i * a_row + k]]);
            const __m256i products = _mm256_broadcastsi128_si256(_mm_load_si128(multiples));
#pragma GCC unroll 2
            for (int j = 0; j < 2; ++j) {
              sum[i][j] = _mm256_adds_epi8(sum[i][j], _mm256_shuffle_epi8(products, column[j]));
              sum[i][j] = _mm256_max_epi8(sum[i][j], floor);
            }
          }
        }
      }
      left -= groups;
#pragma GCC unroll 4
      for (int i = 0; i < rows; ++i) add_tile(total[i], sum[i]);
    } while (++tiles < kTilesPerTotal && left > 0);
    const int32_t excess = static_cast<int32_t>(tiles) * o.start;
    for (int i = 0; i < rows; ++i) {
      for (int j = 0; j < 4; ++j) sink.put(row + i, 16 * j, total[i][j], excess, adds);
    }
  } while (left > 0);
}

// 32 columns of the panel, the first or the second half, from any bytes.
template <int rows>
[[gnu::noinline]] void half_block(const Operands& o, const Codes& table, int64_t row, int64_t half, const Sink& sink) {
  __m256i sum[rows][2];
  const int64_t a_row = o.a_row;
  const uint8_t *a = o.a + row * a_row, *b = o.b + 32 * half;
  const __m256i floor = _mm256_set1_epi16(static_cast<int16_t>(o.floor));
  int64_t left = o.k4;
  do {
    const bool adds = left < o.k4;
#pragma GCC unroll 4
    for (int i = 0; i < rows; ++i) sum[i][0] = sum[i][1] = _mm256_set1_epi16(static_cast<int16_t>(o.start));
    const int64_t groups = left < o.tile_k4 ? left : o.tile_k4;
    left -= groups;
    for (int64_t q = 0; q < groups; ++q, a += kDepth) {
      for (int64_t k = 0; k < kDepth; ++k, b += kWidePanel) {
        const auto* columns = reinterpret_cast<const __m128i*>(b);
        const __m256i column[2] = {_mm256_cvtepi8_epi16(_mm_loadu_si128(columns)),
                                   _mm256_cvtepi8_epi16(_mm_loadu_si128(columns + 1))};
#pragma GCC unroll 4
        for (int i = 0; i < rows; ++i) {
          const __m256i code = _mm256_set1_epi32(static_cast<int32_t>(table.pairs[a[i * a_row + k]]));
#pragma GCC unroll 2
          for (int j = 0; j < 2; ++j) {
            sum[i][j] = _mm256_adds_epi16(sum[i][j], _mm256_mullo_epi16(code, column[j]));
            sum[i][j] = _mm256_max_epi16(sum[i][j], floor);
          }
        }
      }
    }
    for (int i = 0; i < rows; ++i) {
      for (int j = 0; j < 2; ++j) sink.put(row + i, 32 * half + 16 * j, sum[i][j], o.start, adds);
    }
  } while (left > 0);
}

template <int rows>
void block(const Operands& o, const Codes& table, int64_t row, const Sink& sink) {
  half_block<rows>(o, table, row, 0, sink);
  if (sink.columns > 32) half_block<rows>(o, table, row, 1, sink);
}

template <class Table>
void multiply(const EveryMacGemm& g, const Table& table, int32_t top, int32_t* c, int64_t ld) {
  const auto* b = reinterpret_cast<const uint8_t*>(g.b);
  for (int64_t first = 0; first < g.n; first += kWidePanel, b += g.k4 * kDepth * kWidePanel) {
    const Operands o{g.a, g.a_row, b, g.k4, g.tile_k4, top - g.limit, top - 2 * g.limit};
    const Sink sink{c + first, ld, g.n - first};
    int64_t row = 0;
    for (; g.m - row >= 4; row += 4) block<4>(o, table, row, sink);
    switch (g.m - row) {
      case 3: block<3>(o, table, row, sink); break;
      case 2: block<2>(o, table, row, sink); break;
      case 1: block<1>(o, table, row, sink); break;
      default: break;
    }
  }
}

}  // namespace

void gemm_u8s4s32_every_mac(const EveryMacGemm& g, int32_t* c, int64_t ld) {
  Multiples table;
  const __m128i codes = _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1);
  __m128i products = _mm_setzero_si128();  // of code 0, then round the circle of 256 bytes
  for (int32_t i = 0; i < 256; ++i) {
    _mm_store_si128(reinterpret_cast<__m128i*>(table.products[(g.zero + i) % 256]), products);
    products = _mm_add_epi8(products, codes);
  }
  multiply(g, table, INT8_MAX, c, ld);
}

void gemm_u8s8s32_every_mac(const EveryMacGemm& g, int32_t* c, int64_t ld) {
  Codes table;
  for (int32_t i = 0; i < 256; ++i) table.pairs[i] = static_cast<uint32_t>((i - g.zero) & 0xFFFF) * 0x10001u;
  multiply(g, table, INT16_MAX, c, ld);
}

}  // namespace quintil::kernels::avx2
