// What this CPU and its operating system allow. Compiled without any ISA flag.
#pragma once

namespace quintil::kernels {

struct Features {
  bool avx2 = false;
  bool avx512 = false;  // F, BW, VL, DQ, and the OS saves ZMM and mask registers
  bool avx512vnni = false;
  bool amx = false;  // avx512vnni, int8 tiles, and the OS lets this process use them
};

const Features& cpu_features();

}  // namespace quintil::kernels
