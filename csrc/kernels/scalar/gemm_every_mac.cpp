// Integer products limited after every multiply-add, and the packing they read.
#include <algorithm>

#include "csrc/core/saturate.h"
#include "csrc/kernels/scalar/kernels.h"

namespace quintil::kernels::scalar {

namespace {

int32_t low_nibble(int8_t byte) {
  return static_cast<int8_t>(byte << 4) >> 4;
}

// The sum over all tiles of one row and column, b(k) = code(b[k * 64]).
template <class Code>
int32_t dot(const EveryMacGemm& g, const uint8_t* a, const int8_t* b, Code code) {
  int32_t total = 0, sum = 0;
  for (int64_t q = 0; q < g.k4; ++q, a += kDepth) {
    for (int64_t i = 0; i < kDepth; ++i, b += kWidePanel) sum = saturate(sum + (a[i] - g.zero) * code(*b), g.limit);
    if ((q + 1) % g.tile_k4 == 0 || q + 1 == g.k4) {
      total += sum;
      sum = 0;
    }
  }
  return total;
}

template <class Code>
void multiply(const EveryMacGemm& g, int32_t* c, int64_t ld, Code code) {
  for (int64_t row = 0; row < g.m; ++row) {
    for (int64_t n = 0; n < g.n; ++n) {
      const int8_t* column = g.b + n / kWidePanel * g.k4 * kDepth * kWidePanel + n % kWidePanel;
      c[row * ld + n] = dot(g, g.a + row * g.a_row, column, code);
    }
  }
}

}  // namespace

void pack_b_s8_every_mac(const int8_t* src, int64_t k_stride, int64_t n_stride, int64_t k, int64_t n, int64_t tile,
                         uint8_t mask, int8_t* panels) {
  const int64_t depth = tile == 0 ? k : tile;
  for (int64_t first = 0; first < n; first += kWidePanel) {
    for (int64_t k0 = 0; k0 < k; k0 += depth) {
      const int64_t end = std::min(k, k0 + depth), padded = (end - k0 + kDepth - 1) / kDepth * kDepth;
      for (int64_t i = k0; i < k0 + padded; ++i) {
        for (int64_t j = first; j < first + kWidePanel; ++j) {
          *panels++ = i < end && j < n ? static_cast<int8_t>(src[i * k_stride + j * n_stride] & mask) : int8_t{0};
        }
      }
    }
  }
}

void gemm_u8s4s32_every_mac(const EveryMacGemm& g, int32_t* c, int64_t ld) {
  multiply(g, c, ld, low_nibble);
}

void gemm_u8s8s32_every_mac(const EveryMacGemm& g, int32_t* c, int64_t ld) {
  multiply(g, c, ld, [](int8_t byte) { return int32_t{byte}; });
}

}  // namespace quintil::kernels::scalar
