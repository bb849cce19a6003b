// Kernels that this instruction set improves; contracts stand in kernel_table.h.
#pragma once

#include <cstdint>

#include "csrc/core/types.h"

namespace quintil::kernels::avx2 {

void gemm_u8s8s32(const Gemm& g, int32_t* c, int64_t ld);
void gemm_u8s8f32(const Gemm& g, const Epilogue& e, float* c, int64_t ld);
void scale_s32f32(const int32_t* x, int64_t n, const Epilogue& e, float* out);

}  // namespace quintil::kernels::avx2
