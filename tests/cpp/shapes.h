// What the kernel tests run over: instruction sets and sizes. Each group of sizes says which bug it hunts.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "csrc/kernels/dispatch.h"
#include "tests/cpp/guarded.h"

namespace quintil::test {

// All that run here; the one that QUINTIL_ISA names where it is set, since ctest then starts one process per name.
inline std::vector<std::string> tested_isas() {
  const char* wanted = std::getenv("QUINTIL_ISA");
  if (wanted != nullptr && *wanted != '\0') return {kernels::active_name()};
  return kernels::runnable();
}

// Flush with the forbidden page behind, shifted by one and by three elements, flush with the page in front.
inline const std::vector<int64_t>& gaps() {
  static const std::vector<int64_t> values = {0, 1, 3, kFront};
  return values;
}

struct Lengths {
  const char* hunts;
  std::vector<int64_t> values;
};

inline const std::vector<Lengths>& length_groups() {
  static const std::vector<Lengths> groups = {
      {"a pointer used before the size is looked at", {0}},
      {"loops that believe in at least one whole vector", {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}},
      {"a tail that runs although nothing is left", {16, 32, 64, 96, 128, 256, 512}},
      {"a lane too many or too few where the main loop hands over to the tail",
       {15, 17, 31, 33, 47, 63, 65, 95, 97, 127, 129, 191, 255, 257, 511, 513}},
      {"steps of unrolled loops that no multiple hides", {11, 13, 23, 37, 61, 101, 211, 409}},
      {"state carried from step to step: counters of several random blocks, partial maxima", {1000, 2048, 4099}},
  };
  return groups;
}

struct Matrix {
  int64_t rows, cols;
};

struct Matrices {
  const char* hunts;
  std::vector<Matrix> values;
};

inline const std::vector<Matrices>& matrix_groups() {
  static const std::vector<Matrices> groups = {
      {"an empty side that is divided by or read", {{0, 0}, {0, 7}, {7, 0}}},
      {"rows and columns swapped, less than one vector", {{1, 1}, {2, 3}, {3, 2}, {5, 9}, {9, 5}, {10, 10}}},
      {"a tail that runs although nothing is left", {{4, 16}, {2, 32}, {3, 64}, {2, 128}, {1, 256}}},
      {"a lane of the next row read or written by the tail", {{3, 15}, {3, 17}, {2, 31}, {2, 33}, {3, 63}, {3, 65}}},
      {"the seam between two random blocks", {{2, 127}, {2, 129}, {3, 255}, {3, 257}, {1, 385}}},
      {"steps that no multiple hides", {{7, 11}, {5, 101}, {3, 211}, {2, 405}}},
      {"narrow: more rows than columns, one vector spanning rows", {{300, 1}, {129, 3}, {67, 8}}},
      {"wide: state carried along a row", {{1, 1000}, {2, 2049}}},
  };
  return groups;
}

struct ProductShape {
  int64_t m, n, k;
};

struct ProductShapes {
  const char* hunts;
  std::vector<ProductShape> values;
};

inline const std::vector<ProductShapes>& product_groups() {
  static const std::vector<ProductShapes> groups = {
      {"an empty side; an empty sum that must be 0", {{0, 5, 7}, {5, 0, 7}, {5, 7, 0}, {0, 0, 0}}},
      {"less than a register block in every direction",
       {{1, 1, 1},
        {2, 1, 3},
        {1, 2, 4},
        {3, 4, 5},
        {4, 3, 2},
        {5, 6, 6},
        {6, 5, 7},
        {7, 8, 8},
        {8, 9, 10},
        {10, 10, 9}}},
      {"tails that run although nothing is left", {{6, 32, 32}, {12, 64, 64}, {18, 32, 96}, {3, 96, 128}}},
      {"a row, column or product too many where a block ends",
       {{5, 31, 31}, {7, 33, 33}, {11, 15, 63}, {13, 17, 65}, {5, 63, 35}, {7, 65, 29}, {1, 47, 36}, {6, 49, 68}}},
      {"steps that no multiple hides", {{11, 13, 37}, {13, 37, 101}, {17, 41, 61}, {3, 67, 127}}},
      {"deep: totals carried over many tiles", {{2, 3, 1000}, {1, 33, 1601}, {7, 16, 576}, {6, 19, 405}}},
      {"shallow: fewer products than one instruction adds", {{40, 70, 1}, {23, 45, 2}, {37, 33, 3}}},
      {"narrow: one row or one column", {{1, 200, 40}, {130, 1, 40}, {61, 2, 33}}},
  };
  return groups;
}

// The groups of a list, one value after the other.
template <class Groups>
auto flattened(const Groups& groups) {
  auto values = groups.front().values;
  values.clear();
  for (const auto& group : groups) values.insert(values.end(), group.values.begin(), group.values.end());
  return values;
}

}  // namespace quintil::test
