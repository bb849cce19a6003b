// Kernels that this instruction set improves; contracts stand in kernel_table.h.
#pragma once

#include <cstdint>

#include "csrc/core/types.h"

namespace quintil::kernels::avx512vnni {

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
void scale_s32f32(const int32_t* x, int64_t n, const Epilogue& e, float* out);

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

void sum_rows_f32(const float* x, int64_t rows, int64_t cols, int64_t ld, float* out);

// Of this folder alone.
// The random words of some rows from number `first` on, for one group of 64 words a row: words[r][16 w + l] is output word w of
// lane l. Returns how many rows: at most kDrawRows, none of which carries into the upper half of the number. 64-byte aligned.
constexpr int64_t kDrawRows = 16;
int64_t draw_block(const Draw& draw, uint64_t first, int64_t rows, uint32_t group, uint32_t (*words)[64]);
// quantize_s16u8_stochastic with 8 bits without divisions; false where it cannot, nothing written then.
bool quantize_short_codes(const int16_t* x, int64_t rows, int64_t cols, int64_t ld, const CodeGrid& grid,
                          const Draw& draw, int64_t row0, uint8_t* out, int64_t out_ld);
void lstm_cell_f32(const float* low, const float* high, const float* part, int64_t rows, int64_t hidden, float* cell,
                   float* state);
void gru_cell_f32(const float* low, const float* high, const float* bias, const float* part, int64_t rows,
                  int64_t hidden, const float* state, float* out);

}  // namespace quintil::kernels::avx512vnni
