// Register tiles of AMX (tmm): what a product reads, how it reaches them, where its sums go. For the files of this folder.
//
// A register tile holds 16 rows of 64 bytes. tdpbusd multiplies 16 rows of A (u8, `depth` dwords of four k) by 16 columns of B
//   (s8) into 16 x 16 int32. Two of them side by side, a pair, are either the same 16 rows with 32 columns of a panel, or, where
//   the panel has at most 16 columns ("narrow"), two times 16 rows. tmm0-1 and tmm2-3 are pairs of sums, tmm4-5 rows of A,
//   tmm6-7 columns of B.
// Depth: the largest divisor of a law tile's groups from 16 to 8, 8 for 32 products. Groups that fill no register tile (a last
//   tile cut short, a prime number of groups) are copied into one with zeros.
// Index map: panel[k4][32][4] holds b(4 k4 + i, j) at ((k4 * 32) + j) * 4 + i, so 16 columns are rows of 64 bytes, 128 apart.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "csrc/core/types.h"

namespace quintil::kernels::amx {

namespace {

constexpr int64_t kPanelBytes = kPanel * kDepth;  // one k4 of a panel
constexpr int64_t kRows = 16, kMostDepth = 16;    // of a register tile

// What one block reads: its rows of A, one panel of B.
struct Operands {
  const uint8_t* a;
  int64_t a_row;
  const int8_t* b;
  const int32_t* start;  // [tiles][32]
  int64_t k4, tile_k4, tiles, depth;
  int64_t rows;  // of a register tile
  int32_t limit, shift;
  bool narrow;         // at most 16 columns: a pair of register tiles is two times 16 rows, else two times 16 columns
  int64_t second_row;  // from the rows of a pair's first tile to those of its second

  int64_t start_second() const { return narrow ? 0 : 16; }

  int64_t groups(int64_t tile) const { return k4 - tile * tile_k4 < tile_k4 ? k4 - tile * tile_k4 : tile_k4; }
};

// Sums of a pair of register tiles on their way to vector registers.
struct Sums {
  alignas(64) int32_t half[2][kRows][16];
};

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};

  TileConfig(int64_t m, int64_t depth) {
    for (int i = 0; i < 8; ++i) {
      const bool is_a = i == 4 || i == 5, is_b = i > 5;
      row_bytes[i] = static_cast<uint16_t>(is_a ? depth * kDepth : 64);
      rows[i] = static_cast<uint8_t>(is_b ? depth : m);
    }
  }
};

inline int64_t depth_of(int64_t groups) {
  int64_t depth = groups < kMostDepth ? groups : kMostDepth;
  while (depth > kMostDepth / 2 && groups % depth != 0) --depth;
  return groups % depth == 0 ? depth : kMostDepth;
}

inline __m512 scaled(__m512i total, const Epilogue& e) {
  __m512 value = _mm512_mul_ps(_mm512_cvtepi32_ps(total), _mm512_set1_ps(e.scale[0]));
  value = _mm512_mul_ps(value, _mm512_set1_ps(e.scale[1]));
  value = _mm512_mul_ps(value, _mm512_set1_ps(e.scale[2]));
  return _mm512_mul_ps(value, _mm512_set1_ps(e.inverse));
}

// Where a block goes: int32 as it is, or float32 through the epilogue (N9). Masks cut the columns beyond n. An absent bias
// is -0.0, the one number whose sum with any x is x.
struct IntegerSink {
  int32_t* c;
  int64_t ld;
  __mmask16 mask[2];

  void column(int64_t first, const __mmask16* valid) {
    c += first;
    mask[0] = valid[0];
    mask[1] = valid[1];
  }
  void put(int64_t row, int half, __m512i total) const {
    _mm512_mask_storeu_epi32(c + row * ld + 16 * half, mask[half], total);
  }
};

struct FloatSink {
  float* c;
  int64_t ld;
  Epilogue e;
  __mmask16 mask[2];
  __m512 bias[2];

  void column(int64_t first, const __mmask16* valid) {
    c += first;
    for (int half = 0; half < 2; ++half) {
      mask[half] = valid[half];
      bias[half] = _mm512_set1_ps(-0.0f);
      if (e.bias != nullptr) bias[half] = _mm512_maskz_loadu_ps(valid[half], e.bias + first + 16 * half);
    }
  }
  void put(int64_t row, int half, __m512i total) const {
    _mm512_mask_storeu_ps(c + row * ld + 16 * half, mask[half], _mm512_add_ps(scaled(total, e), bias[half]));
  }
};

// Groups that fill no register tile, padded with zeros.
struct Tail {
  alignas(64) uint8_t a[2][kRows][64];
  alignas(64) int8_t b[kMostDepth][kPanelBytes];

  void copy(const Operands& o, const uint8_t* from_a, const int8_t* from_b, int64_t groups) {
    const auto whole = static_cast<__mmask16>((1u << groups) - 1);
    for (int64_t part = 0; part < (o.second_row == 0 ? 1 : 2); ++part) {
      const uint8_t* row = from_a + part * o.second_row * o.a_row;
      for (int64_t i = 0; i < o.rows; ++i, row += o.a_row) {
        _mm512_store_si512(a[part][i], _mm512_maskz_loadu_epi32(whole, row));
      }
    }
    for (int64_t q = 0; q < o.depth; ++q, from_b += kPanelBytes) {
      for (int half = 0; half < 2; ++half) {
        _mm512_store_si512(b[q] + 64 * half,
                           q < groups ? _mm512_loadu_si512(from_b + 64 * half) : _mm512_setzero_si512());
      }
    }
  }
};

// Sums of a pair += 16 rows at `a` (and at `second` if narrow) times columns at `b`. Numbers of register tiles are part of the
// instruction, so each pair has its text.
template <int pair>
[[gnu::always_inline]] inline void multiply_chunk(bool narrow, const uint8_t* a, const uint8_t* second, int64_t a_row,
                                                  const int8_t* b) {
  _tile_loadd(6, b, kPanelBytes);
  _tile_loadd(4, a, a_row);
  if (narrow) {
    _tile_loadd(5, second, a_row);
  } else {
    _tile_loadd(7, b + 64, kPanelBytes);
  }
  if constexpr (pair == 0) {
    _tile_dpbusd(0, 4, 6);
    if (narrow) {
      _tile_dpbusd(1, 5, 6);
    } else {
      _tile_dpbusd(1, 4, 7);
    }
  } else {
    _tile_dpbusd(2, 4, 6);
    if (narrow) {
      _tile_dpbusd(3, 5, 6);
    } else {
      _tile_dpbusd(3, 4, 7);
    }
  }
}

// The sums of law tile t for the rows that begin at `a`.
template <int pair>
[[gnu::always_inline]] inline void multiply_tile(const Operands& o, const uint8_t* a, int64_t t, Tail& tail) {
  if constexpr (pair == 0) {
    _tile_zero(0);
    _tile_zero(1);
  } else {
    _tile_zero(2);
    _tile_zero(3);
  }
  a += t * o.tile_k4 * kDepth;
  const int8_t* b = o.b + t * o.tile_k4 * kPanelBytes;
  int64_t groups = o.groups(t);
  for (; groups >= o.depth; groups -= o.depth, a += o.depth * kDepth, b += o.depth * kPanelBytes) {
    multiply_chunk<pair>(o.narrow, a, a + o.second_row * o.a_row, o.a_row, b);
  }
  if (groups == 0) return;
  tail.copy(o, a, b, groups);
  multiply_chunk<pair>(o.narrow, tail.a[0][0], tail.a[o.second_row == 0 ? 0 : 1][0], 64, tail.b[0]);
}

template <int pair>
inline void store_pair(Sums& sums) {
  if constexpr (pair == 0) {
    _tile_stored(0, sums.half[0], 64);
    _tile_stored(1, sums.half[1], 64);
  } else {
    _tile_stored(2, sums.half[0], 64);
    _tile_stored(3, sums.half[1], 64);
  }
}

}  // namespace

}  // namespace quintil::kernels::amx
