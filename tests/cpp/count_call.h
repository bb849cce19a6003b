// What every case of count_kernels.cpp has: the call that is counted, shapes and data. For count_kernels.cpp alone.
#pragma once

#include "csrc/kernels/dispatch.h"
#include "tests/cpp/draws.h"
#include "tests/cpp/guarded.h"

// A jump in the place of the call would leave the function, and collection with it, before the kernel has begun.
extern "C" [[gnu::noinline]] void measured_call(void (*call)(void*), void* data) {
  call(data);
  __asm__ volatile("" ::: "memory");
}

namespace quintil::test {
namespace {

using kernels::KernelTable;

constexpr int64_t kRows = 40, kCols = 1000, kElements = kRows * kCols;
constexpr CodeGrid kGrid{0.4f, -7, 7, 8};
constexpr CodeGrid kWideGrid{64.0f, -7, 7, 0};
constexpr StepGrid kStepGrid{0.05f, 0.0f, 1.0f / 16, 0.8f, -8, 7, 7, Rounding::kHalfEven, true, false, false};
constexpr LevelGrid kLevelGrid{0.3352f, -8, 7};

template <class Call>
void measured(Call call) {
  measured_call([](void* f) { (*static_cast<Call*>(f))(); }, &call);
}

Guarded<float> floats(int64_t n) {
  return {Draws(1).floats(n, 1.0f), kFront};
}

template <class T>
Guarded<T> integers(int64_t n, int64_t lo, int64_t hi) {
  return {Draws(2).integers<T>(n, lo, hi), kFront};
}

template <class T>
Guarded<T> room(int64_t n) {
  return Guarded<T>(n, kFront);
}

constexpr Draw draw_of(int32_t bits) {
  return {0x12345678u, 0x9ABCDEF0u, 4, bits};
}

}  // namespace
}  // namespace quintil::test
