// Kernels that this instruction set improves; contracts stand in kernel_table.h.
#pragma once

#include <cstdint>

#include "csrc/core/types.h"

namespace quintil::kernels::avx2 {

AbsMax absmax_f32(const float* x, int64_t n);
int32_t absmax_s16(const int16_t* x, int64_t n);
int32_t absmax_u8(const uint8_t* x, int64_t n);
int32_t absmax_s8(const int8_t* x, int64_t n);
void quantize_f32u8(const float* x, int64_t rows, int64_t cols, int64_t ld, const CodeGrid& grid, uint8_t* out,
                    int64_t out_ld);
void quantize_s16u8(const int16_t* x, int64_t rows, int64_t cols, int64_t ld, const CodeGrid& grid, uint8_t* out,
                    int64_t out_ld);
void quantize_f32u8_stochastic(const float* x, int64_t rows, int64_t cols, int64_t ld, const CodeGrid& grid,
                               const Draw& draw, int64_t row0, uint8_t* out, int64_t out_ld);
void quantize_s16u8_stochastic(const int16_t* x, int64_t rows, int64_t cols, int64_t ld, const CodeGrid& grid,
                               const Draw& draw, int64_t row0, uint8_t* out, int64_t out_ld);

void lsq_f32f32(const float* x, int64_t n, const StepGrid& grid, float* y);
StepSums lsq_f32f32f32_backward(const float* x, const float* grad, int64_t n, const StepGrid& grid, float* dx);

Moments moments_f32(const float* x, int64_t n, float pivot);
LevelSums steer_f32s8(const float* x, int64_t n, const LevelGrid& grid, int8_t* codes);
LevelSums steer_f32s16(const float* x, int64_t n, const LevelGrid& grid, int16_t* codes);
void drive_f32f32(const float* x, int64_t n, const LevelGrid& grid, const LevelValue& value, float* y);
PairSums compare_f32f32(const float* x, const float* y, int64_t n);

void luq_f32f32(const float* x, int64_t rows, int64_t cols, float alpha, const Draw& draw, int64_t row0, float* sums);
void luq_f32s8(const float* x, int64_t rows, int64_t cols, float alpha, const Draw& draw, int64_t row0, int8_t* codes);

void minifloat_f32f32(const float* x, int64_t n, const MinifloatGrid& grid, float* y);
void minifloat_f32f32_stochastic(const float* x, int64_t rows, int64_t cols, const MinifloatGrid& grid,
                                 const Draw& draw, int64_t row0, float* y);
void minifloat_f32f32f32_hysteresis(const float* x, const float* previous, int64_t n, const MinifloatGrid& grid,
                                    float* y);

void fwht_f32_rows(float* x, int64_t rows, int64_t ld, int64_t order, int64_t blocks);
void fwht_s32_rows(int32_t* x, int64_t rows, int64_t ld, int64_t order, int64_t blocks);
void fwht_f32_cols(float* x, int64_t order, int64_t cols, int64_t ld);
void fwht_s16_cols(int16_t* x, int64_t order, int64_t cols, int64_t ld);
void fwht_s32_cols(int32_t* x, int64_t order, int64_t cols, int64_t ld);

void pack_b_s8(const int8_t* src, int64_t k_stride, int64_t n_stride, int64_t k, int64_t n, int64_t tile, int32_t zero,
               int8_t* panels, int32_t* start);
void pack_a_u8(const uint8_t* src, int64_t k_stride, int64_t m_stride, int64_t k, int64_t m, int64_t tile,
               uint8_t* dst);
void gemm_u8s8s32(const Gemm& g, int32_t* c, int64_t ld);
void gemm_u8s8f32(const Gemm& g, const Epilogue& e, float* c, int64_t ld);
void gemm_u8s8f32_sum(const Gemm* g, const Epilogue* e, int64_t count, float* c, int64_t ld);
void pack_b_s8_every_mac(const int8_t* src, int64_t k_stride, int64_t n_stride, int64_t k, int64_t n, int64_t tile,
                         uint8_t mask, int8_t* panels);
void gemm_u8s4s32_every_mac(const EveryMacGemm& g, int32_t* c, int64_t ld);
void gemm_u8s8s32_every_mac(const EveryMacGemm& g, int32_t* c, int64_t ld);
int64_t gemm_s32s32s32(const WideGemm& g, int32_t* c, int64_t ld);
// gemm_u8s8s32 without a limit, for codes of any width.
void gemm_u8s8s32_unlimited(const Gemm& g, int32_t* c, int64_t ld);
void scale_s32f32_columns(const int32_t* x, int64_t rows, int64_t cols, int64_t ld, const ColumnEpilogue& e, float* out,
                          int64_t out_ld);
void quantize_f32u8_columns(const float* x, int64_t rows, int64_t cols, int64_t ld, const float* gain,
                            const float* shift, const CodeGrid& grid, uint8_t* out, int64_t out_ld);
void scale_s32u8_columns(const int32_t* x, int64_t rows, int64_t cols, int64_t ld, const ColumnEpilogue& e,
                         const CodeGrid& grid, uint8_t* out, int64_t out_ld);
void scale_s32f32(const int32_t* x, int64_t n, const Epilogue& e, float* out);

void im2col_u8(const uint8_t* image, const ConvShape& shape, int64_t first, int64_t count, uint8_t zero, uint8_t* out,
               int64_t ld);
void col2im_s32(const int32_t* cols, int64_t ld, const ConvShape& shape, int64_t first, int64_t count, int32_t* image);

void narrow_s32s16_moments(const int32_t* x, int64_t rows, int64_t cols, int16_t* out, int64_t* sums, int64_t* squares);
void batch_norm_s16f32(const int16_t* x, int64_t rows, int64_t cols, const NormForward& norm, float* y,
                       uint8_t* positive);
void batch_norm_sums_s16f32(const int16_t* x, const float* grad, const uint8_t* positive, int64_t rows, int64_t cols,
                            const NormBackward& norm, float* grad_sum, float* product_sum);
void batch_norm_grad_s16f32(const int16_t* x, const float* grad, const uint8_t* positive, int64_t rows, int64_t cols,
                            const NormBackward& norm, float* dx, float* masked_grad);

void pack_u8u4(const uint8_t* codes, int64_t n, uint8_t* out);
void unpack_u4u8(const uint8_t* packed, int64_t n, bool sign_extend, uint8_t* out);
void widen_u8s16(const uint8_t* codes, int64_t n, int32_t zero, int16_t* out);
void double_round_s8s8(const int8_t* codes, int64_t n, const Narrowing& to, int8_t* out);

void sum_rows_f32(const float* x, int64_t rows, int64_t cols, int64_t ld, float* out);
void lstm_cell_f32(const float* low, const float* high, const float* part, int64_t rows, int64_t hidden, float* cell,
                   float* state);
void gru_cell_f32(const float* low, const float* high, const float* bias, const float* part, int64_t rows,
                  int64_t hidden, const float* state, float* out);

}  // namespace quintil::kernels::avx2
