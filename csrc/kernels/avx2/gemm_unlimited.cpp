// Integer products without a limit whose codes are too wide for the int16 sums of gemm.cpp, on vpmaddwd.
//
// Instruction: vpmaddwd multiplies int16 by int16 and adds neighbours into int32: |a b| <= 255 * 128, so a sum of two fits
//   as it is, and the totals are exact by the bound of the op (N2). 16 products and an addition are two instructions, as two
//   nibbles cost with vpmaddubsw, without cutting nibbles and without runs.
// Both operands are widened to int16 in chunks of k that stay in L1 together: 16 columns of B for all rows, then a block of
//   rows of A.
// Registers, 6 x 16 block: 12 sums, 2 of B, the broadcast and a product.
// Index map: panel[k4][32][4] holds b(4 k4 + i, j) at ((k4 * 32) + j) * 4 + i. Widened, pairs[k / 2][16][2] holds b(k, j) and
//   b(k + 1, j) side by side: a lane of 32 bits is a column.
#include <immintrin.h>

#include <cstdint>

#include "csrc/core/types.h"
#include "csrc/kernels/avx2/kernels.h"
#include "csrc/kernels/avx2/lanes.h"

namespace quintil::kernels::avx2 {

namespace {

constexpr int64_t kPanelBytes = kPanel * kDepth;  // one k4 of a panel
constexpr int64_t kColumns = 16;                  // of a block
constexpr int kRows = 6;
constexpr int64_t kChunk = 576;              // k of a chunk: 18 KiB of B and 7 KiB of A
constexpr int64_t kRowLength = kChunk + 32;  // rows that begin in different sets of L1

struct WideRows {
  alignas(32) int16_t code[kRows][kRowLength];
};
struct WideColumns {
  alignas(32) int16_t code[kChunk / 2][kColumns][2];
};

// `groups` groups of four codes of a row.
inline void widen_row(const uint8_t* a, int64_t groups, int16_t* out) {
  int64_t g = 0;
#pragma GCC unroll 4
  for (; g + 4 <= groups; g += 4, a += 16, out += 16) {
    store(out, _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(a))));
  }
  for (; g < groups; ++g, a += kDepth, out += kDepth) {
    int32_t word;
    __builtin_memcpy(&word, a, sizeof word);
    _mm_storel_epi64(reinterpret_cast<__m128i*>(out), _mm_cvtepu8_epi16(_mm_cvtsi32_si128(word)));
  }
}

// `groups` groups of four k of 16 columns.
inline void widen_columns(const int8_t* b, int64_t groups, WideColumns& out) {
  for (int64_t g = 0; g < groups; ++g, b += kPanelBytes) {
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {  // eight columns; words c0k01 c0k23 c1k01 c1k23 ...
      const auto* columns = reinterpret_cast<const __m128i*>(b + 32 * j);
      const __m256 low = _mm256_castsi256_ps(_mm256_cvtepi8_epi16(_mm_loadu_si128(columns))),
                   high = _mm256_castsi256_ps(_mm256_cvtepi8_epi16(_mm_loadu_si128(columns + 1)));
      const __m256i first = _mm256_castps_si256(_mm256_shuffle_ps(low, high, 0b10'00'10'00)),
                    second = _mm256_castps_si256(_mm256_shuffle_ps(low, high, 0b11'01'11'01));
      store(out.code[2 * g][8 * j], _mm256_permute4x64_epi64(first, 0b11'01'10'00));
      store(out.code[2 * g + 1][8 * j], _mm256_permute4x64_epi64(second, 0b11'01'10'00));
    }
  }
}

inline __m256i broadcast2(const int16_t* p) {
  int32_t word;
  __builtin_memcpy(&word, p, sizeof word);
  return _mm256_set1_epi32(word);
}

// sum += x, in its register and in this order: GCC 12 would make all products of a pair first, spill sums and move the rest.
inline void add_to(__m256i& sum, __m256i x) {
  __asm__ volatile("vpaddd %1, %0, %0" : "+x"(sum) : "x"(x) : "memory");
}

// Where a block goes: c[row * ld + column] = base + sum, or += sum, cut to the columns that exist. A masked store costs 20
// plain ones on some CPUs.
struct Sink {
  int32_t* c;
  int64_t ld;
  int64_t columns;
  __m256i base[2];
  bool adds;

  void put(int64_t row, int j, __m256i sum) const {
    int32_t* to = c + row * ld + 8 * j;
    if (columns >= kColumns) return store(to, _mm256_add_epi32(adds ? load(to) : base[j], sum));
    const __m256i mask = first_lanes(columns - 8 * j);
    _mm256_maskstore_epi32(to, mask, _mm256_add_epi32(adds ? _mm256_maskload_epi32(to, mask) : base[j], sum));
  }
};

// `rows` x 16 outputs over a chunk. Not inlined: each block has the registers for itself.
template <int rows>
[[gnu::noinline]] void block(const WideRows& a, const WideColumns& b, int64_t pairs, int64_t row, const Sink& sink) {
  __m256i sum[rows][2];
#pragma GCC unroll 6
  for (int i = 0; i < rows; ++i) sum[i][0] = sum[i][1] = _mm256_setzero_si256();
  const int16_t* from = a.code[0];
  const int16_t* columns = b.code[0][0];
  const int16_t* const end = columns + pairs * 2 * kColumns;
  for (; columns < end; columns += 2 * kColumns, from += 2) {
    const __m256i left = load(columns), right = load(columns + kColumns);
#pragma GCC unroll 6
    for (int i = 0; i < rows; ++i) {
      const __m256i codes = broadcast2(from + i * kRowLength);
      add_to(sum[i][0], _mm256_madd_epi16(codes, left));
      add_to(sum[i][1], _mm256_madd_epi16(codes, right));
    }
  }
#pragma GCC unroll 6
  for (int i = 0; i < rows; ++i) {
    sink.put(row + i, 0, sum[i][0]);
    sink.put(row + i, 1, sum[i][1]);
  }
}

void block_rows(int64_t rows, const WideRows& a, const WideColumns& b, int64_t pairs, int64_t row, const Sink& sink) {
  switch (rows) {
    case 6: return block<6>(a, b, pairs, row, sink);
    case 5: return block<5>(a, b, pairs, row, sink);
    case 4: return block<4>(a, b, pairs, row, sink);
    case 3: return block<3>(a, b, pairs, row, sink);
    case 2: return block<2>(a, b, pairs, row, sink);
    default: return block<1>(a, b, pairs, row, sink);
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

void gemm_u8s8s32_unlimited(const Gemm& g, int32_t* c, int64_t ld) {
  WideRows a;
  WideColumns b;
  const int64_t chunk = kChunk / kDepth;
  for (int64_t first = 0; first < g.n; first += kColumns) {
    Sink sink{c + first, ld, g.n - first, {start_of(g, first), start_of(g, first + 8)}, false};
    int64_t k4 = 0;
    do {
      const int64_t groups = g.k4 - k4 < chunk ? g.k4 - k4 : chunk;
      widen_columns(g.b + (first / kPanel * g.k4 + k4) * kPanelBytes + first % kPanel * kDepth, groups, b);
      for (int64_t row = 0; row < g.m; row += kRows) {
        const int64_t rows = g.m - row < kRows ? g.m - row : kRows;
        for (int64_t i = 0; i < rows; ++i) {
          widen_row(g.a + (row + i) * g.a_row + k4 * kDepth, groups, a.code[i]);
        }
        block_rows(rows, a, b, 2 * groups, row, sink);
      }
      k4 += groups;
      sink.adds = true;
    } while (k4 < g.k4);
  }
}

}  // namespace quintil::kernels::avx2
