// Sums of integer products that are finished one by one as float32: the weight gradient of a convolution, a product per image.
//
// Instruction: vpdpbusd as in gemm.cpp, and the same panels. Products are short, down to four codes a number, so what costs is
//   finishing a number and adding it: the float32 sums of a block stay in registers while all products pass.
// Registers, 4 x 32 block: 8 tile sums, 8 totals of a product, 8 float32 sums, 2 rows of B, the two limits, the broadcast.
// Order: a float32 sum starts from 0 and takes the products in theirs (N8); each scale is its own rounding (N9).
// Overflow: as in gemm.cpp.
// Every loop over the accumulators is unrolled by pragma: GCC 12 keeps an array in registers only then.
#include <immintrin.h>

#include <cstdint>

#include "csrc/core/types.h"
#include "csrc/kernels/avx512vnni/kernels.h"
#include "csrc/kernels/avx512vnni/products.h"

namespace quintil::kernels::avx512vnni {

namespace {

constexpr int64_t kRows = 4;

// total = rows [row, row + rows) of one product, in the panel whose first column is `first`.
template <int rows, Overflow kOverflow>
[[gnu::always_inline]] inline void product(const Gemm& g, int64_t row, int64_t first, __m512i (&total)[rows][2]) {
  const int64_t tiles = g.tile_k4 == 0 ? 0 : (g.k4 + g.tile_k4 - 1) / g.tile_k4, a_row = g.a_row;
  const uint8_t* a = g.a + row * a_row;
  const int8_t* b = g.b + first / kPanel * g.k4 * kPanelBytes;
  const int32_t* start = g.start + first * tiles;
#pragma GCC unroll 4
  for (int i = 0; i < rows; ++i) total[i][0] = total[i][1] = _mm512_setzero_si512();
  for (int64_t left = tiles == 0 ? 0 : g.k4; left > 0; left -= g.tile_k4, start += kPanel) {
    __m512i sum[rows][2];
#pragma GCC unroll 4
    for (int i = 0; i < rows; ++i) {
      sum[i][0] = _mm512_loadu_si512(start);
      sum[i][1] = _mm512_loadu_si512(start + 16);
    }
    for (int64_t q = left < g.tile_k4 ? left : g.tile_k4; q > 0; --q, a += kDepth, b += kPanelBytes) {
      const __m512i column[2] = {_mm512_loadu_si512(b), _mm512_loadu_si512(b + 64)};
#pragma GCC unroll 4
      for (int i = 0; i < rows; ++i) {
        const __m512i codes = broadcast4(a + i * a_row);
        add_products(sum[i][0], codes, column[0]);
        add_products(sum[i][1], codes, column[1]);
      }
    }
#pragma GCC unroll 4
    for (int i = 0; i < rows; ++i) {
      total[i][0] = _mm512_add_epi32(total[i][0], limited<kOverflow>(sum[i][0], g.limit, g.shift));
      total[i][1] = _mm512_add_epi32(total[i][1], limited<kOverflow>(sum[i][1], g.limit, g.shift));
    }
  }
}

// Not inlined: each block has the registers for itself.
template <int rows, Overflow kOverflow>
[[gnu::noinline]] void block(const Gemm* g, const Epilogue* e, int64_t count, int64_t row, int64_t first, float* c,
                             int64_t ld) {
  __m512 sum[rows][2];
#pragma GCC unroll 4
  for (int i = 0; i < rows; ++i) sum[i][0] = sum[i][1] = _mm512_setzero_ps();
  for (int64_t p = 0; p < count; ++p) {
    __m512i total[rows][2];
    product<rows, kOverflow>(g[p], row, first, total);
#pragma GCC unroll 4
    for (int i = 0; i < rows; ++i) {
      sum[i][0] = _mm512_add_ps(sum[i][0], scaled(total[i][0], e[p]));
      sum[i][1] = _mm512_add_ps(sum[i][1], scaled(total[i][1], e[p]));
    }
  }
  const int64_t columns = g->n - first < kPanel ? g->n - first : kPanel;
  const uint32_t valid = columns == kPanel ? ~0u : (1u << columns) - 1;
#pragma GCC unroll 4
  for (int i = 0; i < rows; ++i) {
    float* to = c + (row + i) * ld + first;
    _mm512_mask_storeu_ps(to, static_cast<__mmask16>(valid), sum[i][0]);
    _mm512_mask_storeu_ps(to + 16, static_cast<__mmask16>(valid >> 16), sum[i][1]);
  }
}

template <Overflow kOverflow>
void sum_products(const Gemm* g, const Epilogue* e, int64_t count, float* c, int64_t ld) {
  for (int64_t first = 0; first < g->n; first += kPanel) {
    int64_t row = 0;
    for (; g->m - row >= kRows; row += kRows) block<kRows, kOverflow>(g, e, count, row, first, c, ld);
    switch (g->m - row) {
      case 3: block<3, kOverflow>(g, e, count, row, first, c, ld); break;
      case 2: block<2, kOverflow>(g, e, count, row, first, c, ld); break;
      case 1: block<1, kOverflow>(g, e, count, row, first, c, ld); break;
      default: break;
    }
  }
}

}  // namespace

void gemm_u8s8f32_sum(const Gemm* g, const Epilogue* e, int64_t count, float* c, int64_t ld) {
  switch (g->overflow) {
    case Overflow::kSaturate: return sum_products<Overflow::kSaturate>(g, e, count, c, ld);
    case Overflow::kWrap: return sum_products<Overflow::kWrap>(g, e, count, c, ld);
    case Overflow::kNone: return sum_products<Overflow::kNone>(g, e, count, c, ld);
  }
}

}  // namespace quintil::kernels::avx512vnni
