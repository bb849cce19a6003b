// main() of every C++ test. QUINTIL_ISA names the instruction set of this run: one that the CPU lacks ends the run with
// the exit code that ctest shows as skipped, or as failed if QUINTIL_REQUIRE_ISA names it; one that runs must be obeyed.
#define CATCH_CONFIG_RUNNER
#include "tests/cpp/catch.h"

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "csrc/kernels/dispatch.h"

namespace {

constexpr int kSkipped = 77;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string isa = environment("QUINTIL_ISA");
  const std::vector<std::string> runnable = quintil::kernels::runnable();
  if (!isa.empty()) {
    if (std::find(runnable.begin(), runnable.end(), isa) == runnable.end()) {
      const bool required = environment("QUINTIL_REQUIRE_ISA") == isa;
      std::cout << (required ? "failed" : "skipped") << ": this CPU lacks the instruction set " << isa << '\n';
      return required ? EXIT_FAILURE : kSkipped;
    }
    if (quintil::kernels::active_name() != isa) {
      std::cout << "QUINTIL_ISA: expected " << isa << " to be active, got " << quintil::kernels::active_name() << '\n';
      return EXIT_FAILURE;
    }
  }
  return Catch::Session().run(argc, argv) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
