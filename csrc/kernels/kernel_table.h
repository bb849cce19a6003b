// One function pointer per kernel; each instruction set fills a table in dispatch.cpp.
// A kernel sees raw pointers only: no Tensor, allocation, exception, thread or random state. It reads and writes exactly
// the elements its contract names, whatever their alignment; outputs do not overlap inputs unless it says "in place".
// The scalar table is the definition: every other table returns the same bits (N1). Sizes may be 0.
#pragma once

#include <cstdint>

#include "csrc/core/types.h"

namespace quintil::kernels {

struct KernelTable {
  // --- quantize ---------------------------------------------------------------------------------------------------
  // Absmax of x[0, n) as in AbsMax; the bits of NaN compare above those of Inf.
  AbsMax (*absmax_f32)(const float* x, int64_t n);
  // max|x| of x[0, n); |x| <= 32767.
  int32_t (*absmax_s16)(const int16_t* x, int64_t n);
  // max|x| of the bytes x[0, n), taken as uint8 or as int8.
  int32_t (*absmax_u8)(const uint8_t* x, int64_t n);
  int32_t (*absmax_s8)(const int8_t* x, int64_t n);
  // out[r * out_ld + c] = nearest_code(x[r * ld + c]) for r < rows, c < cols [HDQT H2].
  void (*quantize_f32u8)(const float* x, int64_t rows, int64_t cols, int64_t ld, const CodeGrid& grid, uint8_t* out,
                         int64_t out_ld);
  void (*quantize_s16u8)(const int16_t* x, int64_t rows, int64_t cols, int64_t ld, const CodeGrid& grid, uint8_t* out,
                         int64_t out_ld);
  // The same, stochastic [HDQT H8]: element (r, c) draws the bits of place (row0 + r, c).
  void (*quantize_f32u8_stochastic)(const float* x, int64_t rows, int64_t cols, int64_t ld, const CodeGrid& grid,
                                    const Draw& draw, int64_t row0, uint8_t* out, int64_t out_ld);
  void (*quantize_s16u8_stochastic)(const int16_t* x, int64_t rows, int64_t cols, int64_t ld, const CodeGrid& grid,
                                    const Draw& draw, int64_t row0, uint8_t* out, int64_t out_ld);

  // --- lsq --------------------------------------------------------------------------------------------------------
  // y[i] = x[i] on the grid [DR D3, D10, D13]. NaN stays NaN; x and y may be the same memory.
  void (*lsq_f32f32)(const float* x, int64_t n, const StepGrid& grid, float* y);
  // dx[i] and the sums over i of the terms of step and offset [DR D6, D7, D11, D13] for grad[i] = dL/dy[i];
  // n <= kSumChunk, sums as in Partials (N8). dx may be the memory of x or of grad.
  StepSums (*lsq_f32f32f32_backward)(const float* x, const float* grad, int64_t n, const StepGrid& grid, float* dx);

  // --- vecq: n <= kSumChunk where sums are returned, which run as in Partials (N8) ----------------------------------
  // Sums of d = double(x[i]) - double(pivot) and of d * d.
  Moments (*moments_f32)(const float* x, int64_t n, float pivot);
  // codes[i] = level_code(x[i]), 0 for NaN, and the sums of the levels v = code + 1/2 (NaN for NaN) [VECQ V3, V6, V9].
  // The grid has at most 8 bits, or at most 16.
  LevelSums (*steer_f32s8)(const float* x, int64_t n, const LevelGrid& grid, int8_t* codes);
  LevelSums (*steer_f32s16)(const float* x, int64_t n, const LevelGrid& grid, int16_t* codes);
  // y[i] = level_value(x[i]) [VECQ V6, V8]. NaN stays NaN; x and y may be the same memory.
  void (*drive_f32f32)(const float* x, int64_t n, const LevelGrid& grid, const LevelValue& value, float* y);
  // Sums over pairs of numbers taken as double [VECQ V2].
  PairSums (*compare_f32f32)(const float* x, const float* y, int64_t n);

  // --- hadamard: +-1 Sylvester transforms, in place, butterflies h = 1, 2, 4, ..., order/2, each u+v, u-v (N7) -------
  // Each row holds `blocks` runs of `order` contiguous elements, order a power of two; each run is transformed.
  void (*fwht_f32_rows)(float* x, int64_t rows, int64_t ld, int64_t order, int64_t blocks);
  void (*fwht_s32_rows)(int32_t* x, int64_t rows, int64_t ld, int64_t order, int64_t blocks);
  // `order` rows of `cols` elements; each column is transformed. Integers: order * max|x| must fit the type.
  void (*fwht_f32_cols)(float* x, int64_t order, int64_t cols, int64_t ld);
  void (*fwht_s16_cols)(int16_t* x, int64_t order, int64_t cols, int64_t ld);
  void (*fwht_s32_cols)(int32_t* x, int64_t order, int64_t cols, int64_t ld);

  // --- gemm -------------------------------------------------------------------------------------------------------
  // Packs b(k, n) = src[k * k_stride + n * n_stride] into the panels of Gemm, with `tile` products per tile (0: one tile),
  // and fills start[]. n beyond the last column of the last panel and k beyond the end of a tile are zero.
  void (*pack_b_s8)(const int8_t* src, int64_t k_stride, int64_t n_stride, int64_t k, int64_t n, int64_t tile,
                    int32_t zero, int8_t* panels, int32_t* start);
  // Packs a(m, k) = src[k * k_stride + m * m_stride] into dst[m][4 k4], tiles padded like pack_b_s8 does. Pad bytes are 0.
  void (*pack_a_u8)(const uint8_t* src, int64_t k_stride, int64_t m_stride, int64_t k, int64_t m, int64_t tile,
                    uint8_t* dst);
  // C = A B with the tile law of Gemm; c[r * ld + j], r < m, j < n. Sums must be exact in int32 (checked by the op).
  void (*gemm_u8s8s32)(const Gemm& g, int32_t* c, int64_t ld);
  void (*gemm_u8s8f32)(const Gemm& g, const Epilogue& e, float* c, int64_t ld);
  // c = (0 + product 0) + product 1 + ..., each the float32 of gemm_u8s8f32 for g[i] and e[i], which have no bias; count >= 1
  // products of equal m, n and overflow (N8).
  void (*gemm_u8s8f32_sum)(const Gemm* g, const Epilogue* e, int64_t count, float* c, int64_t ld);
  // Packs b(k, n) = src[k * k_stride + n * n_stride] into the panels of EveryMacGemm, tiles padded like pack_b_s8 does. A byte
  // is the code & mask, mask 15 or 255; n beyond the last column and k beyond the end of a tile are zero.
  void (*pack_b_s8_every_mac)(const int8_t* src, int64_t k_stride, int64_t n_stride, int64_t k, int64_t n, int64_t tile,
                              uint8_t mask, int8_t* panels);
  // C = A B with the law of EveryMacGemm. The low 4 bits of a byte of B are its code -8..7 in two's complement; limit <= 127
  // and every product max|a| |b| <= 127.
  void (*gemm_u8s4s32_every_mac)(const EveryMacGemm& g, int32_t* c, int64_t ld);
  // The same; a byte of B is its code, limit <= 32767.
  void (*gemm_u8s8s32_every_mac)(const EveryMacGemm& g, int32_t* c, int64_t ld);
  // The reference product, any mode, slow; returns the number of tiles whose sum was limited.
  int64_t (*gemm_s32s32s32)(const WideGemm& g, int32_t* c, int64_t ld);
  // out[i] = epilogue of x[i] without bias; x and out may be the same memory.
  void (*scale_s32f32)(const int32_t* x, int64_t n, const Epilogue& e, float* out);
  // out[r * out_ld + c] = column epilogue of x[r * ld + c].
  void (*scale_s32f32_columns)(const int32_t* x, int64_t rows, int64_t cols, int64_t ld, const ColumnEpilogue& e,
                               float* out, int64_t out_ld);
  // out[r * out_ld + c] = nearest_code(column epilogue of x[r * ld + c]).
  void (*scale_s32u8_columns)(const int32_t* x, int64_t rows, int64_t cols, int64_t ld, const ColumnEpilogue& e,
                              const CodeGrid& grid, uint8_t* out, int64_t out_ld);
  // out[r * out_ld + c] = nearest_code(x[r * ld + c] * gain[c] + shift[c]), two roundings.
  void (*quantize_f32u8_columns)(const float* x, int64_t rows, int64_t cols, int64_t ld, const float* gain,
                                 const float* shift, const CodeGrid& grid, uint8_t* out, int64_t out_ld);

  // --- conv -------------------------------------------------------------------------------------------------------
  // Rows `first` .. first+count-1 (output positions, row-major) of the unfolded image: out[i * ld + k], k in the order
  // of shape.channels_last_taps. Padding positions hold the byte `zero` (the code 0).
  void (*im2col_u8)(const uint8_t* image, const ConvShape& shape, int64_t first, int64_t count, uint8_t zero,
                    uint8_t* out, int64_t ld);
  // The adjoint: adds cols[i * ld + k] onto the image; taps that fall on padding are dropped.
  void (*col2im_s32)(const int32_t* cols, int64_t ld, const ConvShape& shape, int64_t first, int64_t count,
                     int32_t* image);

  // --- batch_norm: of the integer sums of a convolution, contiguous [rows, cols], |x| <= 32767 -----------------------
  // out = x; sums[c] and squares[c] += the sums over the rows of x and of x^2, exact.
  void (*narrow_s32s16_moments)(const int32_t* x, int64_t rows, int64_t cols, int16_t* out, int64_t* sums,
                                int64_t* squares);
  // y [rows, cols] as in NormForward; positive: !(y <= 0) before the ReLU, pad bits 0; null without a ReLU.
  void (*batch_norm_s16f32)(const int16_t* x, int64_t rows, int64_t cols, const NormForward& norm, float* y,
                            uint8_t* positive);
  // With g = grad where `positive`, else 0 (null: grad), rows ascending, float32 (N8):
  // grad_sum[c] += g and product_sum[c] += g * normalised. Reads scale and shift of norm alone.
  void (*batch_norm_sums_s16f32)(const int16_t* x, const float* grad, const uint8_t* positive, int64_t rows,
                                 int64_t cols, const NormBackward& norm, float* grad_sum, float* product_sum);
  // dx [rows, cols] as in NormBackward for the same g, which is also written to masked_grad unless that is null.
  void (*batch_norm_grad_s16f32)(const int16_t* x, const float* grad, const uint8_t* positive, int64_t rows,
                                 int64_t cols, const NormBackward& norm, float* dx, float* masked_grad);

  // --- bits -------------------------------------------------------------------------------------------------------
  // Two codes per byte, even index in the low nibble; (n + 1) / 2 bytes, the last pad nibble 0. Keeps the low 4 bits.
  void (*pack_u8u4)(const uint8_t* codes, int64_t n, uint8_t* out);
  // The inverse: n bytes 0..15, or with `sign_extend` the two's complement bytes of -8..7.
  void (*unpack_u4u8)(const uint8_t* packed, int64_t n, bool sign_extend, uint8_t* out);
  // out[i] = codes[i] - zero.
  void (*widen_u8s16)(const uint8_t* codes, int64_t n, int32_t zero, int16_t* out);
  // out[i] = codes[i] at a lower width [DR D2]; 0 <= shift <= 7, lo and hi are bytes. codes and out may be the same
  // memory.
  void (*double_round_s8s8)(const int8_t* codes, int64_t n, const Narrowing& to, int8_t* out);

  // --- reduce -----------------------------------------------------------------------------------------------------
  // out[c] = x[0][c] + x[1][c] + ... rows ascending, float32; out = 0 where rows = 0 (N8).
  void (*sum_rows_f32)(const float* x, int64_t rows, int64_t cols, int64_t ld, float* out);

  // --- luq: x [rows, cols] is contiguous and finite, alpha a positive normal number; element (r, c) draws the bits of
  // place (row0 + r, c) -----------------------------------------------------------------------------------------------
  // sums[i] += luq_signed_level(x[i]) [HDQT H15, H16].
  void (*luq_f32f32)(const float* x, int64_t rows, int64_t cols, float alpha, const Draw& draw, int64_t row0,
                     float* sums);
  // codes[i] = luq_signed_level(x[i]); max|x| / alpha <= 64.
  void (*luq_f32s8)(const float* x, int64_t rows, int64_t cols, float alpha, const Draw& draw, int64_t row0,
                    int8_t* codes);

  // --- minifloat: NaN stays NaN; x and y may be the same memory ------------------------------------------------------
  // y[i] = minifloat_nearest(x[i]) [HDQT H19].
  void (*minifloat_f32f32)(const float* x, int64_t n, const MinifloatGrid& grid, float* y);
  // y[i] = minifloat_stochastic(x[i]) for contiguous [rows, cols]; element (r, c) draws the bits of place
  // (row0 + r, c).
  void (*minifloat_f32f32_stochastic)(const float* x, int64_t rows, int64_t cols, const MinifloatGrid& grid,
                                      const Draw& draw, int64_t row0, float* y);
  // y[i] = minifloat_hysteresis(x[i], previous[i]) [HDQT H22]; previous may be the memory of y.
  void (*minifloat_f32f32f32_hysteresis)(const float* x, const float* previous, int64_t n, const MinifloatGrid& grid,
                                         float* y);

  // --- recurrent: rows are contiguous; s = logistic, t = hyperbolic_tangent; (low + 256 high) is a product with both bytes
  // of a state [VECQ V10] ---------------------------------------------------------------------------------------------
  // Gates (low + 256 high) + part, [rows, 4 hidden]: input, forget, new, output. In place cell = s(forget) cell +
  // s(input) t(new); state = s(output) t(cell).
  void (*lstm_cell_f32)(const float* low, const float* high, const float* part, int64_t rows, int64_t hidden,
                        float* cell, float* state);
  // With h = (low + 256 high) + bias and part, [rows, 3 hidden] each: reset, update, new. reset = s(part + h), update alike,
  // n = t(part + reset h); out = n + update (state - n). out may be the memory of state.
  void (*gru_cell_f32)(const float* low, const float* high, const float* bias, const float* part, int64_t rows,
                       int64_t hidden, const float* state, float* out);
};

}  // namespace quintil::kernels
