// The choice of an instruction set: complete tables, QUINTIL_ISA obeyed, a name that cannot run refused with the list.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include "csrc/kernels/cpu_features.h"
#include "csrc/kernels/dispatch.h"
#include "tests/cpp/catch.h"

namespace quintil::kernels {
namespace {

constexpr const char* kReportTo = "QUINTIL_TEST_DISPATCH_PIPE";

// What active() answers: the name, or the kind and text of its exception.
std::string answer() {
  try {
    const KernelTable& chosen = active();
    return (&chosen == table(active_name()) ? "" : "another table than that of ") + active_name();
  } catch (const std::invalid_argument& error) {
    return std::string("invalid_argument ") + error.what();
  }
}

// The choice is made once per process, so each environment is asked in a process of its own: this program again, which
// finds the name of a pipe in its environment, writes two answers into it and ends before main().
const bool kIsParent = [] {
  const char* pipe = std::getenv(kReportTo);
  if (pipe == nullptr) return true;
  const std::string text = answer() + "\n" + answer() + "\n";
  const bool written = write(std::atoi(pipe), text.data(), text.size()) == static_cast<ssize_t>(text.size());
  _exit(written ? 0 : 1);
}();

// Both answers of a fresh process under QUINTIL_ISA = isa, or without it (nullptr).
std::vector<std::string> answers_under(const char* isa) {
  int ends[2];
  if (pipe(ends) != 0) return {};
  const pid_t child = fork();
  if (child == 0) {
    close(ends[0]);
    setenv(kReportTo, std::to_string(ends[1]).c_str(), 1);
    if (isa == nullptr) {
      unsetenv("QUINTIL_ISA");
    } else {
      setenv("QUINTIL_ISA", isa, 1);
    }
    execl("/proc/self/exe", "test_dispatch", static_cast<char*>(nullptr));
    _exit(1);
  }
  close(ends[1]);
  std::string text;
  std::array<char, 512> part;
  for (ssize_t n; (n = read(ends[0], part.data(), part.size())) > 0;) text.append(part.data(), static_cast<size_t>(n));
  close(ends[0]);
  int status = 1;
  waitpid(child, &status, 0);
  std::vector<std::string> lines;
  for (size_t from = 0, to; (to = text.find('\n', from)) != std::string::npos; from = to + 1) {
    lines.push_back(text.substr(from, to - from));
  }
  return status == 0 ? lines : std::vector<std::string>{};
}

TEST_CASE("scalar always runs and every runnable table is complete") {
  const std::vector<std::string> names = runnable();
  CHECK(kIsParent);
  CHECK(names.front() == "scalar");
  for (const std::string& name : names) {
    CAPTURE(name);
    CHECK(table(name) != nullptr);
    CHECK(std::count(names.begin(), names.end(), name) == 1);
    const auto entries = std::bit_cast<std::array<uintptr_t, sizeof(KernelTable) / sizeof(uintptr_t)>>(*table(name));
    CHECK(std::count(entries.begin(), entries.end(), uintptr_t{0}) == 0);
  }
}

TEST_CASE("an instruction set is runnable exactly where the CPU has it") {
  const std::vector<std::string> names = runnable();
  const auto runs = [&](const char* name) { return std::count(names.begin(), names.end(), name) == 1; };
  const Features& features = cpu_features();
  CHECK((!runs("avx2") || features.avx2));
  CHECK((!runs("avx512vnni") || features.avx512vnni));
  CHECK((!runs("amx") || features.amx));
  CHECK((!features.amx || features.avx512vnni));
  CHECK((!features.avx512vnni || features.avx512));
  CHECK((!features.avx512 || features.avx2));
#if defined(__x86_64__)
  CHECK((!features.avx2 || __builtin_cpu_supports("avx2")));
  CHECK((!features.avx512vnni || __builtin_cpu_supports("avx512vnni")));
#endif
}

TEST_CASE("there is no table for a name that is not runnable") {
  for (const char* name : {"", "nonsense", "AVX2", "scalar ", "avx", "amx2"}) {
    CAPTURE(name);
    CHECK(table(name) == nullptr);
  }
}

TEST_CASE("QUINTIL_ISA of this process was obeyed") {
  const char* wanted = std::getenv("QUINTIL_ISA");
  const std::string expected = wanted == nullptr || *wanted == '\0' ? runnable().back() : wanted;
  CHECK(active_name() == expected);
  CHECK(&active() == table(expected));
}

TEST_CASE("QUINTIL_ISA chooses any runnable instruction set; without it the best one runs") {
  for (const std::string& name : runnable()) {
    CAPTURE(name);
    CHECK(answers_under(name.c_str()) == std::vector<std::string>{name, name});
  }
  const std::string best = runnable().back();
  CHECK(answers_under(nullptr) == std::vector<std::string>{best, best});
  CHECK(answers_under("") == std::vector<std::string>{best, best});
}

TEST_CASE("a name that cannot run is refused with the list, every time") {
  std::string list;
  for (const std::string& name : runnable()) list += (list.empty() ? "" : ", ") + name;
  for (const std::string name : {"nonsense", "AVX2", "scalar ", "avx512vnni,avx2"}) {
    CAPTURE(name);
    const std::string refusal =
        "invalid_argument QUINTIL_ISA: expected one of " + list + " on this machine, got " + name;
    CHECK(answers_under(name.c_str()) == std::vector<std::string>{refusal, refusal});
  }
}

TEST_CASE("every instruction set that QUINTIL_REQUIRE_ISA names runs here") {
  const char* required = std::getenv("QUINTIL_REQUIRE_ISA");
  CHECK((required == nullptr || *required == '\0' || table(required) != nullptr));
}

}  // namespace
}  // namespace quintil::kernels
