// What `recurrent_cells` and `recurrent_scan` share: states as bytes for a product, and a check of sizes.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "csrc/core/reduce.h"
#include "csrc/kernels/dispatch.h"
#include "csrc/quantizers/vecq.h"

namespace quintil::ops {

constexpr int64_t kStateBits = 16;

// The bytes of 16-bit levels, q + 1/2 = 256 (high + 1/2) + (low + 1/2), each `zero` higher, modulo 256 [VECQ V10].
inline void cut_states(const float* h, int64_t n, const LevelGrid& grid, int32_t zero, uint8_t* low, uint8_t* high) {
  int16_t whole[kSumChunk];
  for (int64_t first = 0; first < n; first += kSumChunk) {
    const int64_t count = std::min(kSumChunk, n - first);
    kernels::active().steer_f32s16(h + first, count, grid, whole);
    for (int64_t i = 0; i < count; ++i) {
      low[first + i] = static_cast<uint8_t>((whole[i] ^ 128) + zero);
      high[first + i] = static_cast<uint8_t>((whole[i] >> 8) + zero);
    }
  }
}

// `given` is what the wanted size follows from.
inline void check_size(const char* op, const char* name, const at::Tensor& t, const std::vector<c10::SymInt>& size,
                       const char* given_name, const at::Tensor& given) {
  const c10::SymIntArrayRef wanted(size);
  TORCH_CHECK_VALUE(t.sym_sizes() == wanted, op, ": expected ", name, " to have the size ", wanted, ", got ",
                    t.sym_sizes(), " (", given_name, " is ", given.sym_sizes(), ")");
}

}  // namespace quintil::ops
