// Integer products with limited accumulators, and the packing they read.
#include <algorithm>
#include <cstring>

#include "csrc/kernels/scalar/kernels.h"
#include "csrc/quantizers/tiled_accumulation.h"

namespace quintil::kernels::scalar {

namespace {

float scaled(int32_t total, const Epilogue& e) {
  return static_cast<float>(total) * e.scale[0] * e.scale[1] * e.scale[2] * e.inverse;
}

// One row of A times one panel of B: total[j] for the 32 columns of the panel.
void row_times_panel(const Gemm& g, int64_t row, int64_t panel, int32_t* total) {
  const int64_t tiles = g.tile_k4 == 0 ? 0 : (g.k4 + g.tile_k4 - 1) / g.tile_k4;
  std::fill(total, total + kPanel, 0);
  for (int64_t t = 0; t < tiles; ++t) {
    int32_t sum[kPanel];
    std::copy_n(g.start + (panel * tiles + t) * kPanel, kPanel, sum);
    for (int64_t q = t * g.tile_k4; q < std::min(g.k4, (t + 1) * g.tile_k4); ++q) {
      const uint8_t* a = g.a + row * g.a_row + q * kDepth;
      const int8_t* b = g.b + (panel * g.k4 + q) * kPanel * kDepth;
      for (int64_t j = 0; j < kPanel; ++j) {
        sum[j] += a[0] * b[4 * j] + a[1] * b[4 * j + 1] + a[2] * b[4 * j + 2] + a[3] * b[4 * j + 3];
      }
    }
    for (int64_t j = 0; j < kPanel; ++j) total[j] += limited(sum[j], g.overflow, g.limit, g.shift);
  }
}

// Calls put(row, column, total) for every element of C.
template <class Put>
void multiply(const Gemm& g, Put put) {
  int32_t total[kPanel];
  for (int64_t first = 0; first < g.n; first += kPanel) {
    for (int64_t row = 0; row < g.m; ++row) {
      row_times_panel(g, row, first / kPanel, total);
      for (int64_t j = 0; j < std::min(kPanel, g.n - first); ++j) put(row, first + j, total[j]);
    }
  }
}

}  // namespace

void pack_b_s8(const int8_t* src, int64_t k_stride, int64_t n_stride, int64_t k, int64_t n, int64_t tile, int32_t zero,
               int8_t* panels, int32_t* start) {
  const int64_t depth = tile == 0 ? k : tile;
  for (int64_t first = 0; first < n; first += kPanel) {
    for (int64_t k0 = 0; k0 < k; k0 += depth) {
      int32_t sums[kPanel] = {};
      const int64_t end = std::min(k, k0 + depth);
      for (int64_t q = k0; q < end; q += kDepth) {
        for (int64_t j = 0; j < kPanel; ++j) {
          for (int64_t i = q; i < q + kDepth; ++i) {
            const int8_t code = i < end && first + j < n ? src[i * k_stride + (first + j) * n_stride] : int8_t{0};
            *panels++ = code;
            sums[j] += code;
          }
        }
      }
      for (int64_t j = 0; j < kPanel; ++j) *start++ = -zero * sums[j];
    }
  }
}

void pack_a_u8(const uint8_t* src, int64_t k_stride, int64_t m_stride, int64_t k, int64_t m, int64_t tile,
               uint8_t* dst) {
  const int64_t depth = tile == 0 ? k : tile;
  for (int64_t j = 0; j < m; ++j) {
    for (int64_t k0 = 0; k0 < k; k0 += depth) {
      const int64_t end = std::min(k, k0 + depth), groups = (end - k0 + kDepth - 1) / kDepth;
      for (int64_t i = k0; i < k0 + groups * kDepth; ++i) {
        *dst++ = i < end ? src[i * k_stride + j * m_stride] : uint8_t{0};
      }
    }
  }
}

void gemm_u8s8s32(const Gemm& g, int32_t* c, int64_t ld) {
  multiply(g, [&](int64_t row, int64_t column, int32_t total) { c[row * ld + column] = total; });
}

void gemm_u8s8f32(const Gemm& g, const Epilogue& e, float* c, int64_t ld) {
  multiply(g, [&](int64_t row, int64_t column, int32_t total) {
    const float value = scaled(total, e);
    c[row * ld + column] = e.bias == nullptr ? value : value + e.bias[column];
  });
}

void gemm_u8s8f32_sum(const Gemm* g, const Epilogue* e, int64_t count, float* c, int64_t ld) {
  for (int64_t row = 0; row < g->m; ++row) std::fill_n(c + row * ld, g->n, 0.0f);
  for (int64_t i = 0; i < count; ++i) {
    multiply(g[i], [&](int64_t row, int64_t column, int32_t total) { c[row * ld + column] += scaled(total, e[i]); });
  }
}

int64_t gemm_s32s32s32(const WideGemm& g, int32_t* c, int64_t ld) {
  int64_t clamped = 0;
  for (int64_t row = 0; row < g.m; ++row) {
    for (int64_t column = 0; column < g.n; ++column) c[row * ld + column] = tiled_dot(g, row, column, clamped);
  }
  return clamped;
}

void scale_s32f32(const int32_t* x, int64_t n, const Epilogue& e, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = scaled(x[i], e);
}

}  // namespace quintil::kernels::scalar
