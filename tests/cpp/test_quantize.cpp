// Ranges and codes of the uniform quantisers [HDQT H1, H2, H7, H8]: every instruction set against the scalar law, on
// special values, ties, odd strides and every seam of the random map (N6). Whether draws are fair: test_quantize_fair.cpp.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "csrc/kernels/dispatch.h"
#include "tests/cpp/catch.h"
#include "tests/cpp/draws.h"
#include "tests/cpp/guarded.h"
#include "tests/cpp/shapes.h"

namespace quintil {
namespace {

using kernels::KernelTable;
using test::Guarded;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kTiny = std::numeric_limits<float>::denorm_min();

struct Range {
  int32_t lo, hi, zero;
};

// Signed, full signed, unsigned codes with and without an offset; zero = 0 keeps negative codes in two's complement.
constexpr Range kRanges[] = {{-7, 7, 8}, {-8, 7, 8},       {0, 15, 0},       {-1, 1, 2},  {-127, 127, 0}, {-7, 7, 0},
                             {0, 3, 0},  {-128, 127, 128}, {-127, 127, 128}, {0, 255, 0}, {0, 0, 8}};

// Powers of two keep ties exact, 1e-32 is the divisor of a zero tensor, NaN that of one that was not finite.
constexpr float kDivisors[] = {0.25f, 1.0f, 512.0f, 0.37f, 3.0f, kStepEpsilon, 1e30f, kTiny, kNan};

CodeGrid random_grid(test::Draws& draws) {
  const Range range = kRanges[draws.next() % std::size(kRanges)];
  return {kDivisors[draws.next() % std::size(kDivisors)], range.lo, range.hi, range.zero};
}

Draw random_draw(test::Draws& draws, int32_t bits) {
  return {static_cast<uint32_t>(draws.next()), static_cast<uint32_t>(draws.next()),
          static_cast<uint32_t>(draws.between(0, 6)), bits};
}

// In equal shares: bell-shaped over the codes or special, on whole and half steps, within two ulps of those, and on 512ths of
// a step, where thresholds meet the draws of 8 bits.
template <class T>
std::vector<T> elements(test::Draws& draws, int64_t n, const CodeGrid& grid) {
  if constexpr (std::is_same_v<T, int16_t>) {
    const int64_t top = draws.between(0, 1) == 0 ? 32767 : 20;
    return draws.integers<int16_t>(n, -top, top);
  } else {
    std::vector<float> values = draws.floats(n, grid.divisor * static_cast<float>(grid.hi), 8);
    for (float& value : values) {
      const int64_t kind = draws.between(0, 3), parts = kind == 3 ? 512 : 2, top = parts * grid.hi + 3;
      if (kind == 0) continue;
      value = static_cast<float>(draws.between(-top, top)) / static_cast<float>(parts) * grid.divisor;
      for (int64_t i = kind == 2 ? draws.between(0, 2) : 0; i > 0; --i) {
        value = std::nextafter(value, draws.between(0, 1) == 0 ? kInfinity : -kInfinity);
      }
    }
    return values;
  }
}

// One call: nearest, or stochastic with a draw.
struct Call {
  int64_t rows, cols, ld, out_ld;
  CodeGrid grid;
  const Draw* draw;
  int64_t row0;

  void run(const KernelTable& t, const float* x, uint8_t* out) const {
    if (draw == nullptr) return t.quantize_f32u8(x, rows, cols, ld, grid, out, out_ld);
    t.quantize_f32u8_stochastic(x, rows, cols, ld, grid, *draw, row0, out, out_ld);
  }
  void run(const KernelTable& t, const int16_t* x, uint8_t* out) const {
    if (draw == nullptr) return t.quantize_s16u8(x, rows, cols, ld, grid, out, out_ld);
    t.quantize_s16u8_stochastic(x, rows, cols, ld, grid, *draw, row0, out, out_ld);
  }
};

int64_t size_of(int64_t rows, int64_t cols, int64_t ld) {
  return rows == 0 || cols == 0 ? 0 : (rows - 1) * ld + cols;
}

template <class T>
void check_call(const KernelTable& table, test::Draws& draws, const Call& call, int64_t gap) {
  const Guarded<T> x(elements<T>(draws, size_of(call.rows, call.cols, call.ld), call.grid), gap);
  Guarded<uint8_t> got(size_of(call.rows, call.cols, call.out_ld), gap), expected(got.size());
  call.run(*kernels::table("scalar"), x.data(), expected.data());
  call.run(table, x.data(), got.data());
  CAPTURE(call.rows, call.cols, call.ld, call.out_ld, call.grid.divisor, call.grid.lo, call.grid.hi, call.grid.zero,
          gap);
  CAPTURE(call.row0, call.draw == nullptr ? 0 : call.draw->bits, test::first_difference(got, expected));
  CHECK(test::first_difference(got, expected) == -1);
  CHECK(got.intact());
}

template <class T>
void check_all_shapes(const KernelTable& table) {
  test::Draws draws(1);
  for (const auto& [rows, cols] : test::flattened(test::matrix_groups())) {
    for (int64_t gap : test::gaps()) {
      for (int32_t bits : {0, 16, 8}) {
        for (int64_t space : {int64_t{0}, draws.between(1, 7)}) {
          const Draw draw = random_draw(draws, bits);
          const int64_t row0 = static_cast<int64_t>(draws.next() >> draws.between(1, 63));
          const int64_t out_ld = cols + (space == 0 ? 0 : draws.between(0, 7));
          const Call call{rows, cols, cols + space, out_ld, random_grid(draws), bits == 0 ? nullptr : &draw, row0};
          CAPTURE(draw.key_low, draw.key_high, draw.site);
          check_call<T>(table, draws, call, gap);
        }
      }
    }
  }
}

TEST_CASE("every instruction set gives the codes of the scalar law") {
  for (const std::string& isa : test::tested_isas()) {
    const KernelTable& table = *kernels::table(isa);
    DYNAMIC_SECTION(isa << " float") {
      check_all_shapes<float>(table);
    }
    DYNAMIC_SECTION(isa << " int16") {
      check_all_shapes<int16_t>(table);
    }
  }
}

TEST_CASE("rows at 2^32 and columns at the seams of a span draw the bits of their place") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      test::Draws draws(2);
      const int64_t two32 = int64_t{1} << 32;
      const int64_t rows[] = {0,     two32 - 1, two32 - 2,      two32 - 17,
                              two32, two32 + 5, 7 * two32 - 20, (int64_t{1} << 62) - 3};
      for (int64_t row0 : rows) {
        for (int64_t cols : {1, 15, 16, 17, 127, 128, 129, 143, 145, 255, 256, 257, 300, 513}) {
          for (int32_t bits : {16, 8}) {
            const Draw draw = random_draw(draws, bits);
            const Call call{draws.between(0, 1) == 0 ? 4 : 37, cols, cols + 1, cols + 3, {1.0f, -7, 7, 8}, &draw, row0};
            check_call<float>(*kernels::table(isa), draws, call, 0);
            check_call<int16_t>(*kernels::table(isa), draws, call, 1);
          }
        }
      }
    }
  }
}

// Where a range has few values, a kernel may take a reciprocal that it has tried on each of them; ranges of 512 have ties.
TEST_CASE("integers of every range draw by the law") {
  std::vector<int32_t> ranges = {1, 2, 7, 447, 448, 511, 512, 513, 959, 960, 1024, 1536};
  for (int32_t range = 3; range < 1100; range += 29) ranges.push_back(range);
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      test::Draws draws(4);
      for (const int32_t range : ranges) {
        for (const int32_t hi : {1, 7, 127}) {
          constexpr int64_t kRows = 67, kCols = 401;
          const Draw draw = random_draw(draws, 8);
          const float divisor = static_cast<float>(range) / static_cast<float>(hi) + kStepEpsilon;
          const Call call{kRows, kCols, kCols, kCols, {divisor, -hi, hi, draws.between(0, 1) == 0 ? 0 : 8}, &draw, 5};
          const std::vector<int16_t> x = draws.integers<int16_t>(kRows * kCols, -range - 2, range + 2);
          std::vector<uint8_t> got(x.size()), expected(x.size());
          call.run(*kernels::table("scalar"), x.data(), expected.data());
          call.run(*kernels::table(isa), x.data(), got.data());
          CAPTURE(range, hi);
          CHECK(got == expected);
        }
      }
    }
  }
}

TEST_CASE("a matrix rounded in parts of its rows is the matrix rounded at once") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      test::Draws draws(3);
      constexpr int64_t kRows = 40, kCols = 150, kFirst = (int64_t{1} << 32) - 11;
      const std::vector<float> x = draws.floats(kRows * kCols, 3.0f);
      const Draw draw = random_draw(draws, 16);
      std::vector<uint8_t> whole(x.size()), parts(x.size());
      Call call{kRows, kCols, kCols, kCols, {1.0f, -7, 7, 8}, &draw, kFirst};
      call.run(*kernels::table(isa), x.data(), whole.data());
      for (int64_t first = 0; first < kRows; first += call.rows) {
        call.rows = std::min(draws.between(1, 9), kRows - first);
        call.row0 = kFirst + first;
        call.run(*kernels::table(isa), x.data() + first * kCols, parts.data() + first * kCols);
      }
      CHECK(parts == whole);
      Draw other = draw;
      other.key_high ^= 1;
      call = {kRows, kCols, kCols, kCols, {1.0f, -7, 7, 8}, &other, kFirst};
      call.run(*kernels::table(isa), x.data(), parts.data());
      CHECK(parts != whole);
    }
  }
}

TEST_CASE("codes of special values, each in every lane of a row") {
  struct Row {
    float x;
    int nearest;  // of {1.0, -7, 7}
  };
  const Row rows[] = {{kNan, 0},   {-kNan, 0},  {kInfinity, 7}, {-kInfinity, -7}, {0.0f, 0},        {-0.0f, 0},
                      {kTiny, 0},  {-kTiny, 0}, {0.5f, 0},      {1.5f, 2},        {2.5f, 2},        {-0.5f, 0},
                      {-1.5f, -2}, {-2.5f, -2}, {6.5f, 6},      {7.5f, 7},        {-7.5f, -7},      {3e9f, 7},
                      {-3e9f, -7}, {3e38f, 7},  {255.5f, 7},    {-256.0f, -7},    {0.49999997f, 0}, {-0.50000006f, -1}};
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      const KernelTable& table = *kernels::table(isa);
      const Draw draw{1, 2, 3, 16};
      constexpr int64_t kCols = 43;
      for (const Row& row : rows) {
        Guarded<float> x(kCols);
        Guarded<uint8_t> nearest(kCols), drawn(kCols);
        for (int64_t at = 0; at < kCols; ++at) {
          for (int64_t c = 0; c < kCols; ++c) x[c] = c == at ? row.x : 3.0f;
          table.quantize_f32u8(x.data(), 1, kCols, kCols, {1.0f, -7, 7, 8}, nearest.data(), kCols);
          table.quantize_f32u8_stochastic(x.data(), 1, kCols, kCols, {1.0f, -7, 7, 8}, draw, 0, drawn.data(), kCols);
          bool right = true, close = true;
          for (int64_t c = 0; c < kCols; ++c) {
            right &= nearest[c] == 8 + (c == at ? row.nearest : 3);
            close &= std::abs(drawn[c] - nearest[c]) <= (c == at ? 1 : 0);
          }
          CAPTURE(row.x, at);
          CHECK(right);
          CHECK(close);
        }
      }
    }
  }
}

TEST_CASE("absmax_f32 takes the largest bit pattern and sees any x < 0") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      test::Draws draws(4);
      for (int64_t n : test::flattened(test::length_groups())) {
        for (int64_t gap : test::gaps()) {
          for (int64_t rarity : {0, 3, 200}) {
            Guarded<float> x(draws.floats(n, 2.0f, rarity), gap);
            if (draws.between(0, 1) == 0) {
              for (int64_t i = 0; i < n; ++i) x[i] = std::fabs(x[i]);
            }
            const AbsMax expected = kernels::table("scalar")->absmax_f32(x.data(), n);
            const AbsMax got = kernels::table(isa)->absmax_f32(x.data(), n);
            CAPTURE(n, gap, rarity);
            CHECK(got.bits == expected.bits);
            CHECK(got.negative == expected.negative);
          }
        }
      }
    }
  }
}

TEST_CASE("absmax_f32 finds one value wherever it stands; NaN > Inf > finite, -0.0 is not negative") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      for (float value : {kNan, -kNan, kInfinity, -kInfinity, -0.0f, -kTiny, kTiny, -3.0f, 3e38f}) {
        for (int64_t n : {1, 7, 8, 19, 33, 70, 150}) {
          for (int64_t at = 0; at < n; ++at) {
            Guarded<float> x(std::vector<float>(static_cast<size_t>(n), 0.0f));
            x[at] = value;
            const AbsMax alone = kernels::table(isa)->absmax_f32(x.data(), n);
            CAPTURE(value, n, at);
            CHECK(alone.bits == std::bit_cast<uint32_t>(std::fabs(value)));
            CHECK(alone.negative == (value < 0 ? 1u : 0u));
            x[(at + 1) % n] = kNan;
            CHECK(kernels::table(isa)->absmax_f32(x.data(), n).bits >= std::bit_cast<uint32_t>(kNan));
          }
        }
      }
    }
  }
}

TEST_CASE("absmax_s16 takes the largest magnitude") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      test::Draws draws(5);
      for (int64_t n : test::flattened(test::length_groups())) {
        for (int64_t gap : test::gaps()) {
          const int64_t top = draws.between(0, 1) == 0 ? 32767 : 100;
          Guarded<int16_t> x(draws.integers<int16_t>(n, -top, top), gap);
          CAPTURE(n, gap, top);
          CHECK(kernels::table(isa)->absmax_s16(x.data(), n) == kernels::table("scalar")->absmax_s16(x.data(), n));
          if (n == 0) continue;
          x[draws.between(0, n - 1)] = draws.between(0, 1) == 0 ? 32767 : -32767;
          CHECK(kernels::table(isa)->absmax_s16(x.data(), n) == 32767);
        }
      }
      CHECK(kernels::table(isa)->absmax_s16(nullptr, 0) == 0);
    }
  }
}

TEST_CASE("absmax_u8 and absmax_s8 take the largest magnitude of bytes") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      test::Draws draws(6);
      const kernels::KernelTable& kernels = *kernels::table(isa);
      for (int64_t n : test::flattened(test::length_groups())) {
        for (int64_t gap : test::gaps()) {
          Guarded<uint8_t> u(draws.integers<uint8_t>(n, 0, 100), gap);
          Guarded<int8_t> s(draws.integers<int8_t>(n, -100, 100), gap);
          CAPTURE(n, gap);
          CHECK(kernels.absmax_u8(u.data(), n) == kernels::table("scalar")->absmax_u8(u.data(), n));
          CHECK(kernels.absmax_s8(s.data(), n) == kernels::table("scalar")->absmax_s8(s.data(), n));
          if (n == 0) continue;
          u[draws.between(0, n - 1)] = 255;
          s[draws.between(0, n - 1)] = -128;
          CHECK(kernels.absmax_u8(u.data(), n) == 255);
          CHECK(kernels.absmax_s8(s.data(), n) == 128);
        }
      }
    }
  }
}

}  // namespace
}  // namespace quintil
