// Masks of the first few lanes of a register. For .cpp files of this folder alone: everything here is local to them.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace quintil::kernels::avx512vnni {

namespace {

// The first `count` of 16 lanes; any count.
inline __mmask16 first_lanes(int64_t count) {
  return static_cast<__mmask16>(count >= 16 ? 0xFFFF : count <= 0 ? 0 : (1u << count) - 1);
}

// The first `count` of 32 lanes, count >= 0.
inline __mmask32 first_of_32(int64_t count) {
  return count >= 32 ? ~__mmask32{0} : (__mmask32{1} << count) - 1;
}

}  // namespace

}  // namespace quintil::kernels::avx512vnni
