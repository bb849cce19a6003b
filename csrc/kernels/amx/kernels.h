// AMX: entries of the kernel table that a matrix unit makes faster. The rest comes from avx512vnni.
#pragma once

#include <cstdint>

#include "csrc/core/types.h"

namespace quintil::kernels::amx {

void gemm_u8s8s32(const Gemm& g, int32_t* c, int64_t ld);
void gemm_u8s8f32(const Gemm& g, const Epilogue& e, float* c, int64_t ld);

}  // namespace quintil::kernels::amx
