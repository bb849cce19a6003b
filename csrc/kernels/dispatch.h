// Chooses the kernel table once per process: the best runnable instruction set, or the one QUINTIL_ISA names.
#pragma once

#include <string>
#include <vector>

#include "csrc/kernels/kernel_table.h"

namespace quintil::kernels {

// Names of the instruction sets this build holds and this machine can run, slowest first; "scalar" is always there.
std::vector<std::string> runnable();

// The table of a runnable instruction set, or nullptr.
const KernelTable* table(const std::string& isa);

// The table in use. Throws std::invalid_argument, every time, if QUINTIL_ISA names something that cannot run here.
const KernelTable& active();
const std::string& active_name();

}  // namespace quintil::kernels
