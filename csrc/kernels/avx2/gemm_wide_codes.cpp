// Integer products without a limit whose codes are too wide for the int16 sums of gemm.cpp, on vpmaddwd.
//
// Instruction: vpmaddwd multiplies int16 by int16 and adds neighbours into int32: |a b| <= 255 * 128, so a sum of two fits
//   as it is, and the totals are exact by the bound of the op (N2). 16 products and an addition are two instructions, as two
//   nibbles cost with vpmaddubsw, without cutting nibbles and without runs.
// A is widened to int16 for a block of rows once, in chunks of k that stay in L1; B is widened when it is loaded, for all
//   rows of the block.
// Registers, 6 x 8 block: 12 sums, 2 of B, the broadcast and a product.
// Index map: panel[k4][32][4] holds b(4 k4 + i, j) at ((k4 * 32) + j) * 4 + i. 16 bytes of it are 4 columns, so a sum has two
//   lanes for a column (k = 0, 1 and k = 2, 3 of the groups); vphaddd adds them, and vpermq puts the columns in order.
#include <immintrin.h>

#include <cstdint>

#include "csrc/core/types.h"
#include "csrc/kernels/avx2/kernels.h"

namespace quintil::kernels::avx2 {

namespace {

constexpr int64_t kPanelBytes = kPanel * kDepth;  // one k4 of a panel
constexpr int64_t kColumns = 8;                   // of a block
constexpr int kRows = 6;
constexpr int64_t kChunk = 1024;             // k of a chunk: 12 KiB of A
constexpr int64_t kRowLength = kChunk + 32;  // rows that begin in different sets of L1

inline __m256i load(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}

inline void store(void* p, __m256i v) {
  _mm256_storeu_si256(static_cast<__m256i*>(p), v);
}

// -1 in the first `count` < 8 lanes.
inline __m256i first_lanes(int64_t count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

struct WideRows {
  alignas(32) int16_t code[kRows][kRowLength];
};

// `groups` groups of four codes of a row.
inline void widen(const uint8_t* a, int64_t a_k4, int64_t groups, int16_t* out) {
  int64_t g = 0;
  if (a_k4 == kDepth) {
#pragma GCC unroll 4
    for (; g + 4 <= groups; g += 4, a += 16, out += 16) {
      const __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(a));
      _mm256_store_si256(reinterpret_cast<__m256i*>(out), _mm256_cvtepu8_epi16(codes));
    }
  }
  for (; g < groups; ++g, a += a_k4, out += kDepth) {
    int32_t word;
    __builtin_memcpy(&word, a, sizeof word);
    _mm_storel_epi64(reinterpret_cast<__m128i*>(out), _mm_cvtepu8_epi16(_mm_cvtsi32_si128(word)));
  }
}

inline __m256i broadcast4(const int16_t* p) {
  int64_t word;
  __builtin_memcpy(&word, p, sizeof word);
  return _mm256_set1_epi64x(word);
}

// Where a block goes: c[row * ld + column] = base + sum, or += sum, cut to the columns that exist. A masked store costs 20
// plain ones on some CPUs.
struct Sink {
  int32_t* c;
  int64_t ld;
  int64_t columns;
  __m256i base;
  bool adds;

  void put(int64_t row, __m256i sum) const {
    int32_t* to = c + row * ld;
    if (columns >= kColumns) {
      return store(to, _mm256_add_epi32(adds ? load(to) : base, sum));
    }
    const __m256i mask = first_lanes(columns);
    _mm256_maskstore_epi32(to, mask, _mm256_add_epi32(adds ? _mm256_maskload_epi32(to, mask) : base, sum));
  }
};

// `rows` x 8 outputs over a chunk. Not inlined: each block has the registers for itself.
template <int rows>
[[gnu::noinline]] void block(const WideRows& a, const int8_t* b, int64_t groups, const Sink& sink) {
  __m256i sum[rows][2];
#pragma GCC unroll 6
  for (int i = 0; i < rows; ++i) sum[i][0] = sum[i][1] = _mm256_setzero_si256();
  const int16_t* from = a.code[0];
  const int8_t* const end = b + groups * kPanelBytes;
  for (; b < end; b += kPanelBytes, from += kDepth) {
    const auto* columns = reinterpret_cast<const __m128i*>(b);
    const __m256i low = _mm256_cvtepi8_epi16(_mm_loadu_si128(columns)),
                  high = _mm256_cvtepi8_epi16(_mm_loadu_si128(columns + 1));
#pragma GCC unroll 6
    for (int i = 0; i < rows; ++i) {
      const __m256i codes = broadcast4(from + i * kRowLength);
      sum[i][0] = _mm256_add_epi32(sum[i][0], _mm256_madd_epi16(codes, low));
      sum[i][1] = _mm256_add_epi32(sum[i][1], _mm256_madd_epi16(codes, high));
      // In this order: GCC 12 would make all products of a group first, and spill the sums.
      __asm__ volatile("" : "+x"(sum[i][0]), "+x"(sum[i][1]) : : "memory");
    }
  }
#pragma GCC unroll 6
  for (int i = 0; i < rows; ++i) {
    sink.put(i, _mm256_permute4x64_epi64(_mm256_hadd_epi32(sum[i][0], sum[i][1]), 0b11'01'10'00));
  }
}

void block_rows(int64_t rows, const WideRows& a, const int8_t* b, int64_t groups, const Sink& sink) {
  switch (rows) {
    case 6: return block<6>(a, b, groups, sink);
    case 5: return block<5>(a, b, groups, sink);
    case 4: return block<4>(a, b, groups, sink);
    case 3: return block<3>(a, b, groups, sink);
    case 2: return block<2>(a, b, groups, sink);
    default: return block<1>(a, b, groups, sink);
  }
}

// What the totals of columns [first, first + 8) start from.
inline __m256i start_of(const Gemm& g, int64_t first) {
  const int64_t tiles = g.tile_k4 == 0 ? 0 : (g.k4 + g.tile_k4 - 1) / g.tile_k4;
  const int32_t* start = g.start + first / kPanel * tiles * kPanel + first % kPanel;
  __m256i sum = _mm256_setzero_si256();
  for (int64_t t = 0; t < tiles; ++t) sum = _mm256_add_epi32(sum, load(start + t * kPanel));
  return sum;
}

}  // namespace

void gemm_wide_codes(const Gemm& g, int32_t* c, int64_t ld) {
  WideRows a;
  const int64_t chunk = kChunk / kDepth;
  for (int64_t row = 0; row < g.m; row += kRows) {
    const int64_t rows = g.m - row < kRows ? g.m - row : kRows;
    int64_t k4 = 0;
    do {
      const int64_t groups = g.k4 - k4 < chunk ? g.k4 - k4 : chunk;
      for (int64_t i = 0; i < rows; ++i) widen(g.a + (row + i) * g.a_row + k4 * g.a_k4, g.a_k4, groups, a.code[i]);
      for (int64_t first = 0; first < g.n; first += kColumns) {
        const int8_t* b = g.b + (first / kPanel * g.k4 + k4) * kPanelBytes + first % kPanel * kDepth;
        const __m256i base = k4 == 0 ? start_of(g, first) : _mm256_setzero_si256();
        block_rows(rows, a, b, groups, {c + row * ld + first, ld, g.n - first, base, k4 > 0});
      }
      k4 += groups;
    } while (k4 < g.k4);
  }
}

}  // namespace quintil::kernels::avx2
