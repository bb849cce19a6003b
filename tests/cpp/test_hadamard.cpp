// Sylvester transforms [HDQT H5] (N7): integers against dense +-1 matrices, floats bit for bit against the same tree
// evaluated depth first, every instruction set against the scalar law.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "csrc/core/blocks.h"
#include "csrc/kernels/dispatch.h"
#include "tests/cpp/catch.h"
#include "tests/cpp/draws.h"
#include "tests/cpp/guarded.h"
#include "tests/cpp/shapes.h"

namespace quintil {
namespace {

using kernels::KernelTable;
using test::Guarded;

// Entry (i, j) of the Sylvester matrix: -1 to the number of ones that i and j share.
int64_t sylvester(int64_t i, int64_t j) {
  return std::popcount(static_cast<uint64_t>(i & j)) % 2 == 0 ? 1 : -1;
}

// H x for a vector of `order` elements that lie `stride` apart.
template <class T>
std::vector<int64_t> dense(const T* x, int64_t order, int64_t stride) {
  std::vector<int64_t> y(static_cast<size_t>(order));
  for (int64_t i = 0; i < order; ++i) {
    for (int64_t j = 0; j < order; ++j)
      y[static_cast<size_t>(i)] += sylvester(i, j) * static_cast<int64_t>(x[j * stride]);
  }
  return y;
}

// H_2n [a, b] = [H_n a + H_n b, H_n a - H_n b]: the additions of h = 1, 2, 4, ..., one half after the other.
std::vector<float> depth_first(const std::vector<float>& x) {
  if (x.size() == 1) return x;
  const auto middle = x.begin() + static_cast<int64_t>(x.size() / 2);
  const std::vector<float> a = depth_first({x.begin(), middle}), b = depth_first({middle, x.end()});
  std::vector<float> y;
  for (size_t i = 0; i < a.size(); ++i) y.push_back(a[i] + b[i]);
  for (size_t i = 0; i < a.size(); ++i) y.push_back(a[i] - b[i]);
  return y;
}

void transform_cols(const KernelTable& t, float* x, int64_t order, int64_t cols, int64_t ld) {
  t.fwht_f32_cols(x, order, cols, ld);
}
void transform_cols(const KernelTable& t, int16_t* x, int64_t order, int64_t cols, int64_t ld) {
  t.fwht_s16_cols(x, order, cols, ld);
}
void transform_cols(const KernelTable& t, int32_t* x, int64_t order, int64_t cols, int64_t ld) {
  t.fwht_s32_cols(x, order, cols, ld);
}
void transform_rows(const KernelTable& t, float* x, int64_t rows, int64_t ld, int64_t order, int64_t blocks) {
  t.fwht_f32_rows(x, rows, ld, order, blocks);
}
void transform_rows(const KernelTable& t, int32_t* x, int64_t rows, int64_t ld, int64_t order, int64_t blocks) {
  t.fwht_s32_rows(x, rows, ld, order, blocks);
}

// Codes of up to `top` for integers; wild floats, sometimes not finite, for float.
template <class T>
std::vector<T> elements(test::Draws& draws, int64_t n, int64_t top) {
  if constexpr (std::is_same_v<T, float>) {
    return draws.floats(n, 10.0f, draws.between(0, 2) == 0 ? 50 : 0);
  } else {
    return draws.integers<T>(n, -top, top);
  }
}

// Largest magnitude whose transform of this order still fits the type.
template <class T>
int64_t largest_input(int64_t order) {
  return (sizeof(T) == 2 ? 32767 : int64_t{2147483647}) / order;
}

template <class T>
void check_cols(const KernelTable& table) {
  test::Draws draws(1);
  for (int64_t order = 1; order <= 1024; order *= 2) {
    for (int64_t cols : {0, 1, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 97, 128, 129, 200}) {
      if (order > 64 && cols > 65) continue;
      const int64_t gap = test::gaps()[draws.next() % test::gaps().size()], ld = cols + draws.between(0, 4);
      const int64_t size = cols == 0 ? 0 : (order - 1) * ld + cols;
      Guarded<T> got(elements<T>(draws, size, largest_input<T>(order)), gap);
      Guarded<T> expected(std::vector<T>(got.data(), got.data() + size));
      transform_cols(*kernels::table("scalar"), expected.data(), order, cols, ld);
      transform_cols(table, got.data(), order, cols, ld);
      CAPTURE(order, cols, ld, gap, test::first_difference(got, expected));
      CHECK(test::first_difference(got, expected) == -1);
      CHECK(got.intact());
    }
  }
}

template <class T>
void check_rows(const KernelTable& table) {
  test::Draws draws(2);
  for (int64_t order = 1; order <= 2048; order *= 2) {
    for (int64_t blocks : {0, 1, 2, 3, 5, 7, 8, 9, 16, 17, 33}) {
      if (order * blocks > 4096) continue;
      for (int64_t rows : {0, 1, 2, 3, 5, 8}) {
        const int64_t width = order * blocks, ld = width + draws.between(0, 5);
        const int64_t gap = test::gaps()[draws.next() % test::gaps().size()];
        const int64_t size = rows == 0 ? 0 : (rows - 1) * ld + width;
        Guarded<T> got(elements<T>(draws, size, largest_input<T>(order)), gap);
        Guarded<T> expected(std::vector<T>(got.data(), got.data() + size));
        transform_rows(*kernels::table("scalar"), expected.data(), rows, ld, order, blocks);
        transform_rows(table, got.data(), rows, ld, order, blocks);
        CAPTURE(order, blocks, rows, ld, gap, test::first_difference(got, expected));
        CHECK(test::first_difference(got, expected) == -1);
        CHECK(got.intact());
      }
    }
  }
}

TEST_CASE("every instruction set transforms like the scalar law") {
  for (const std::string& isa : test::tested_isas()) {
    const KernelTable& table = *kernels::table(isa);
    DYNAMIC_SECTION(isa << " float columns") {
      check_cols<float>(table);
    }
    DYNAMIC_SECTION(isa << " int16 columns") {
      check_cols<int16_t>(table);
    }
    DYNAMIC_SECTION(isa << " int32 columns") {
      check_cols<int32_t>(table);
    }
    DYNAMIC_SECTION(isa << " float rows") {
      check_rows<float>(table);
    }
    DYNAMIC_SECTION(isa << " int32 rows") {
      check_rows<int32_t>(table);
    }
  }
}

TEST_CASE("H_4 [1, 2, 3, 4] = [10, -2, -4, 0]") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      const KernelTable& table = *kernels::table(isa);
      const std::vector<int32_t> expected = {10, -2, -4, 0};
      std::vector<int32_t> row = {1, 2, 3, 4}, column = row;
      std::vector<float> floats = {1, 2, 3, 4};
      table.fwht_s32_rows(row.data(), 1, 4, 4, 1);
      table.fwht_s32_cols(column.data(), 4, 1, 1);
      table.fwht_f32_rows(floats.data(), 1, 4, 4, 1);
      CHECK(row == expected);
      CHECK(column == expected);
      CHECK(floats == std::vector<float>(expected.begin(), expected.end()));
    }
  }
}

TEST_CASE("integer transforms equal the dense matrix, and twice gives n x") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      const KernelTable& table = *kernels::table(isa);
      test::Draws draws(3);
      for (int64_t order = 1; order <= 512; order *= 2) {
        CAPTURE(order);
        const std::vector<int32_t> x = draws.integers<int32_t>(3 * order, -1000, 1000);
        std::vector<int32_t> rows = x, cols = x;
        std::vector<int16_t> narrow(x.size());
        for (size_t i = 0; i < x.size(); ++i) narrow[i] = static_cast<int16_t>(x[i] % (32767 / order + 1));
        const std::vector<int16_t> narrow_before = narrow;
        table.fwht_s32_rows(rows.data(), 3, order, order, 1);
        table.fwht_s32_cols(cols.data(), order, 3, 3);
        table.fwht_s16_cols(narrow.data(), order, 3, 3);
        for (int64_t i = 0; i < 3; ++i) {
          const std::vector<int64_t> of_row = dense(x.data() + i * order, order, 1),
                                     of_column = dense(x.data() + i, order, 3);
          const std::vector<int64_t> of_narrow = dense(narrow_before.data() + i, order, 3);
          bool right = true;
          for (int64_t j = 0; j < order; ++j) {
            const size_t at = static_cast<size_t>(j);
            right &= rows[static_cast<size_t>(i * order + j)] == of_row[at] &&
                     cols[static_cast<size_t>(j * 3 + i)] == of_column[at] &&
                     narrow[static_cast<size_t>(j * 3 + i)] == of_narrow[at];
          }
          CHECK(right);
        }
        table.fwht_s32_rows(rows.data(), 3, order, order, 1);
        bool returned = true;
        for (size_t i = 0; i < x.size(); ++i) returned &= rows[i] == order * x[i];
        CHECK(returned);
      }
    }
  }
}

TEST_CASE("int16 columns stay exact at extreme codes: 7 x 4096, 15 x 2048, 127 x 256, 255 x 128") {
  struct Extreme {
    int64_t order;
    int16_t top, bottom;
  };
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      for (const Extreme& e :
           {Extreme{4096, 7, -7}, Extreme{2048, 15, 0}, Extreme{256, 127, -127}, Extreme{128, 255, 0}}) {
        constexpr int64_t kCols = 40;
        std::vector<int16_t> narrow;
        for (int64_t i = 0; i < e.order * kCols; ++i) {  // column c follows row c of H: the sums reach order * top
          narrow.push_back(sylvester(i / kCols, i % kCols * 37 % e.order) > 0 ? e.top : e.bottom);
        }
        std::vector<int32_t> wide(narrow.begin(), narrow.end());
        kernels::table(isa)->fwht_s16_cols(narrow.data(), e.order, kCols, kCols);
        kernels::table("scalar")->fwht_s32_cols(wide.data(), e.order, kCols, kCols);
        CAPTURE(e.order, e.top);
        CHECK(int64_t{narrow[0]} == e.order * e.top);
        CHECK(std::vector<int32_t>(narrow.begin(), narrow.end()) == wide);
      }
    }
  }
}

TEST_CASE("the float tree is h = 1, 2, 4, ...: the same bits as depth first") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      test::Draws draws(4);
      for (int64_t order = 1; order <= 1024; order *= 2) {
        const std::vector<float> x = draws.floats(order, 3.0f);
        std::vector<float> row = x, column = x;
        kernels::table(isa)->fwht_f32_rows(row.data(), 1, order, order, 1);
        kernels::table(isa)->fwht_f32_cols(column.data(), order, 1, 1);
        CAPTURE(order);
        CHECK(row == depth_first(x));
        CHECK(column == depth_first(x));
      }
      // Another tree of the same sums does not give the same bits: the comparison can fail.
      const std::vector<float> x = {1e8f, 1.0f, -1e8f, 1.0f};
      std::vector<float> row = x;
      kernels::table(isa)->fwht_f32_rows(row.data(), 1, 4, 4, 1);
      CHECK(row[0] != (x[0] + x[2]) + (x[1] + x[3]));
    }
  }
}

TEST_CASE("the float error stays below 2e-6 of the largest sum") {
  test::Draws draws(5);
  for (int64_t order : {64, 256, 1024}) {
    std::vector<float> x;
    for (int64_t i = 0; i < order; ++i) x.push_back(draws.uniform() - 0.5f);
    std::vector<float> y = x;
    kernels::table("scalar")->fwht_f32_rows(y.data(), 1, order, order, 1);
    double largest = 0, error = 0;
    for (int64_t i = 0; i < order; ++i) {
      double exact = 0;
      for (int64_t j = 0; j < order; ++j) exact += static_cast<double>(sylvester(i, j)) * x[static_cast<size_t>(j)];
      largest = std::max(largest, std::fabs(exact));
      error = std::max(error, std::fabs(exact - y[static_cast<size_t>(i)]));
    }
    CAPTURE(order, error, largest);
    CHECK(error <= 2e-6 * largest);
  }
}

TEST_CASE("every block layout is the block-diagonal matrix") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      test::Draws draws(6);
      for (int64_t n : {1, 10, 49, 100, 243, 405, 561, 768}) {
        for (BlockMode mode : {BlockMode::kDivisor, BlockMode::kBinary, BlockMode::kPadded, BlockMode::kNone}) {
          std::vector<int32_t> x = draws.integers<int32_t>(n, -7, 7);
          x.resize(static_cast<size_t>(padded_length(mode, n, 64)));
          std::vector<int64_t> expected(x.begin(), x.end());
          std::vector<int32_t> got = x;
          for_each_block(mode, n, 64, [&](int64_t first, int64_t order) {
            const std::vector<int64_t> block = dense(x.data() + first, order, 1);
            std::copy(block.begin(), block.end(), expected.begin() + first);
            kernels::table(isa)->fwht_s32_rows(got.data() + first, 1, order, order, 1);
          });
          CAPTURE(n, static_cast<int>(mode));
          CHECK(std::vector<int64_t>(got.begin(), got.end()) == expected);
        }
      }
    }
  }
}

}  // namespace
}  // namespace quintil
