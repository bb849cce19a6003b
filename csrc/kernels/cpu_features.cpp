// CPUID says what the core can do, XCR0 what the operating system saves on a context switch: both must agree.
#include "csrc/kernels/cpu_features.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#endif

namespace quintil::kernels {

namespace {

#if defined(__x86_64__)
struct Registers {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers cpuid(unsigned leaf, unsigned subleaf) {
  Registers r;
  __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);
  return r;
}

uint64_t xcr0() {
  unsigned low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t{high} << 32 | low;
}

// Linux gives the 8 KiB of tile registers to a process that asks, once for all its threads. It refuses where a thread has an
// alternate signal stack too small for them, and old kernels do not know the request.
bool may_use_tiles() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

Features detect() {
  Features f;
  const bool osxsave = cpuid(1, 0).ecx >> 27 & 1;
  if (!osxsave) return f;
  const uint64_t saved = xcr0();
  const bool ymm = (saved & 0x06) == 0x06, zmm = (saved & 0xE6) == 0xE6;
  const Registers leaf7 = cpuid(7, 0);
  const auto ebx = [&](int bit) { return (leaf7.ebx >> bit & 1) != 0; };
  f.avx2 = ymm && ebx(5);
  f.avx512 = zmm && f.avx2 && ebx(16) && ebx(17) && ebx(30) && ebx(31);  // F, DQ, BW, VL
  f.avx512vnni = f.avx512 && (leaf7.ecx >> 11 & 1);
  const bool tiles = (leaf7.edx >> 24 & 1) && (leaf7.edx >> 25 & 1) && (saved >> 17 & 3) == 3;
  f.amx = f.avx512vnni && tiles && may_use_tiles();
  return f;
}
#else
Features detect() {
  return {};
}
#endif

}  // namespace

const Features& cpu_features() {
  static const Features features = detect();
  return features;
}

}  // namespace quintil::kernels
