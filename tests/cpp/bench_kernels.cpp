// Speed of every kernel of kernel_table.h on one core, for every instruction set that runs here (QUINTIL_ISA: that
// one).
//
//   cmake --build build/cmake --target benchmarks && build/cmake/tests/cpp/bench_kernels '[!benchmark]'
//
// Passes over elements: ns per element, and in brackets how many times the copy of as many float32 values takes.
// Products: Gop/s, two operations per multiply-add. A number is the fastest of the repeats that fit its share of time.
// Operands are those of a batch of 128 rows and 1024 columns, or of one ResNet image; they stay in L2.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "csrc/kernels/dispatch.h"
#include "tests/cpp/bench_passes.h"
#include "tests/cpp/bench_products.h"
#include "tests/cpp/bench_rows.h"
#include "tests/cpp/catch.h"
#include "tests/cpp/shapes.h"

namespace quintil::test {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kShare = 0.1;  // seconds for one number

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Fastest call in nanoseconds: one to warm up, then at least two and as many as fit.
double fastest(const std::function<void()>& call) {
  call();
  double best = 1e30;
  const auto begin = Clock::now();
  for (int repeat = 0; repeat < 2 || seconds_since(begin) < kShare; ++repeat) {
    const auto start = Clock::now();
    call();
    best = std::min(best, 1e9 * seconds_since(start));
  }
  return best;
}

TEST_CASE("kernels", "[!benchmark]") {
  Data data;
  std::vector<Product> products;
  std::vector<Row> rows;
  add_quantizers(rows, data);
  add_learned_steps(rows, data);
  add_levels(rows, data);
  add_baselines(rows, data);
  add_transforms(rows, data);
  add_packing(rows, data);
  add_batch_norm(rows, data);
  add_products(rows, data, products);

  std::set<std::string> measured;
  for (const Row& row : rows) measured.insert(row.kernel);
  CHECK(measured.size() == sizeof(KernelTable) / sizeof(void (*)()));  // every kernel has a row

  const std::vector<std::string> isas = tested_isas();
  const double copy = fastest([&] { std::memcpy(data.out_f32.data(), data.f32.data(), kElements * sizeof(float)); }) /
                      static_cast<double>(kElements);
  std::printf("copy of float32, %lld values: %.3f ns per element\n\n", static_cast<long long>(kElements), copy);
  std::printf("%-26s %-32s", "kernel", "");
  for (const std::string& isa : isas) std::printf(" %18s", isa.c_str());
  std::printf("\n");
  for (const Row& row : rows) {
    std::printf("%-26s %-32s", row.kernel.c_str(), row.what.c_str());
    for (const std::string& isa : isas) {
      const KernelTable& table = *kernels::table(isa);
      const double ns = fastest([&] { row.call(table); });
      if (row.product) {
        std::printf(" %12.1f Gop/s", row.work / ns);
      } else {
        std::printf(" %8.3f (%7.2f)", ns / row.work, ns / row.work / copy);
      }
      std::fflush(stdout);
    }
    std::printf("\n");
  }
}

}  // namespace
}  // namespace quintil::test
