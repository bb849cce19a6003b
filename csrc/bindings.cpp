// The Python module _bindings: facts about the build and the machine that need no Tensor (D8). Everything that
// computes goes through torch.ops.quintil; libquintil.so, which this module reads from, has no Python in it.
#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/version.h>

#include "csrc/core/philox.h"
#include "csrc/kernels/cpu_features.h"
#include "csrc/kernels/dispatch.h"

namespace {

std::map<std::string, bool> cpu_features() {
  const quintil::kernels::Features& f = quintil::kernels::cpu_features();
  return {{"avx2", f.avx2}, {"avx512", f.avx512}, {"avx512vnni", f.avx512vnni}, {"amx", f.amx}};
}

std::map<std::string, std::string> build_flags() {
  return {{"version", QUINTIL_VERSION},
          {"torch", TORCH_VERSION},
          {"isas", QUINTIL_ISAS},
          {"compiler", QUINTIL_COMPILER},
          {"build_type", QUINTIL_BUILD_TYPE}};
}

}  // namespace

PYBIND11_MODULE(_bindings, m) {
  m.doc() = "Facts about this build of quintil and about this machine.";
  m.attr("torch_version") = TORCH_VERSION;
  m.def("runnable_isas", &quintil::kernels::runnable,
        "Instruction sets that this build holds and this machine runs, slowest first; 'scalar' is always there.");
  m.def("cpu_features", &cpu_features, "What the CPU offers and the operating system allows, by name.");
  m.def("build_flags", &build_flags,
        "Version, torch, instruction sets, compiler and build type of this build, as text.");
  m.def(
      "philox4x32_10",
      [](std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) { return quintil::philox4x32_10(counter, key); },
      pybind11::arg("counter"), pybind11::arg("key"),
      "One block of the random stream: four 32-bit words for a counter of four and a key of two 32-bit words.");
}
