// Integer products as the tests know them: the definition with an explicit register of 64 bits, and operands laid out by
// the index formulas of `Gemm`, without any packing kernel.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "csrc/core/types.h"
#include "tests/cpp/draws.h"
#include "tests/cpp/guarded.h"
#include "tests/cpp/shapes.h"

namespace quintil::test {

// What a register of `bits` bits holds after `value` was put into it.
inline int64_t limited_by_definition(int64_t value, Overflow overflow, int64_t bits) {
  const int64_t half = int64_t{1} << (bits - 1);
  if (overflow == Overflow::kSaturate) return std::clamp(value, 1 - half, half - 1);
  if (overflow == Overflow::kWrap) return ((value + half) % (2 * half) + 2 * half) % (2 * half) - half;
  return value;
}

// One product in plain codes, row-major; codes are values, not stored bytes.
struct Problem {
  ProductShape shape;
  int64_t tile;  // 0: one tile
  Overflow overflow;
  int64_t bits;            // of the accumulator
  int32_t zero;            // byte of A = code + zero
  std::vector<int32_t> a;  // [m][k]
  std::vector<int32_t> b;  // [k][n]

  int64_t depth() const { return tile == 0 ? std::max<int64_t>(shape.k, 1) : tile; }
};

struct Expected {
  std::vector<int32_t> c;
  int64_t limited;  // tiles whose register was limited at least once
};

inline Expected product_by_definition(const Problem& p, bool every_mac = false) {
  Expected expected{std::vector<int32_t>(static_cast<size_t>(p.shape.m * p.shape.n)), 0};
  for (int64_t row = 0; row < p.shape.m; ++row) {
    for (int64_t column = 0; column < p.shape.n; ++column) {
      int64_t total = 0, reg = 0;
      bool hit = false;
      for (int64_t k = 0; k < p.shape.k; ++k) {
        const bool closes = (k + 1) % p.depth() == 0 || k + 1 == p.shape.k;
        reg +=
            int64_t{p.a[static_cast<size_t>(row * p.shape.k + k)]} * p.b[static_cast<size_t>(k * p.shape.n + column)];
        if (every_mac || closes) {
          const int64_t kept = limited_by_definition(reg, p.overflow, p.bits);
          hit |= kept != reg;
          reg = kept;
        }
        if (!closes) continue;
        total += reg;
        expected.limited += hit;
        reg = 0;
        hit = false;
      }
      expected.c[static_cast<size_t>(row * p.shape.n + column)] = static_cast<int32_t>(total);
    }
  }
  return expected;
}

inline int64_t in_fours(int64_t products) {
  return (products + kDepth - 1) / kDepth;
}

// Groups of four of all tiles, each tile lengthened to whole groups.
inline int64_t groups_of_four(int64_t k, int64_t depth) {
  return k / depth * in_fours(depth) + in_fours(k % depth);
}

// Where product k lies on the lengthened axis.
inline int64_t place_of(int64_t k, int64_t depth) {
  return k / depth * in_fours(depth) * kDepth + k % depth;
}

inline int64_t tiles_of(int64_t k, int64_t depth) {
  return (k + depth - 1) / depth;
}

inline int64_t panels_of(int64_t n) {
  return (n + kPanel - 1) / kPanel;
}

inline int64_t panel_place(int64_t k, int64_t column, int64_t k4, int64_t depth) {
  const int64_t place = place_of(k, depth);
  return ((column / kPanel * k4 + place / kDepth) * kPanel + column % kPanel) * kDepth + place % kDepth;
}

// The operands of `Gemm`, guarded, with odd space between rows of A. Pad bytes of A keep the guard's pattern: the law says that they do not matter.
class Operands {
 public:
  Operands(const Problem& p, int64_t gap)
      : k4_(groups_of_four(p.shape.k, p.depth())),
        a_row_(k4_ * kDepth + 5),
        a_(p.shape.m == 0 || k4_ == 0 ? 0 : (p.shape.m - 1) * a_row_ + k4_ * kDepth, gap),
        b_(panels_of(p.shape.n) * k4_ * kPanel * kDepth, gap),
        start_(panels_of(p.shape.n) * tiles_of(p.shape.k, p.depth()) * kPanel, gap) {
    const int64_t m = p.shape.m, n = p.shape.n, k = p.shape.k, depth = p.depth();
    std::fill_n(b_.data(), b_.size(), int8_t{0});
    std::fill_n(start_.data(), start_.size(), 0);
    for (int64_t i = 0; i < k; ++i) {
      const int64_t place = place_of(i, depth);
      for (int64_t row = 0; row < m; ++row) {
        a_[row * a_row_ + place] = static_cast<uint8_t>(p.a[static_cast<size_t>(row * k + i)] + p.zero);
      }
      for (int64_t column = 0; column < n; ++column) {
        const int32_t code = p.b[static_cast<size_t>(i * n + column)];
        b_[panel_place(i, column, k4_, depth)] = static_cast<int8_t>(code);
        start_[(column / kPanel * tiles_of(k, depth) + i / depth) * kPanel + column % kPanel] -= p.zero * code;
      }
    }
    for (int32_t code : p.a) max_a_ = std::max(max_a_, code + p.zero);
    for (int32_t code : p.b) max_b_ = std::max(max_b_, std::abs(code));
  }

  const Guarded<int8_t>& panels() const { return b_; }
  const Guarded<int32_t>& start() const { return start_; }

  // `max_a`, `max_b`: at least the largest byte and the largest |b|; 0 takes the ones that occur.
  Gemm view(const Problem& p, int32_t max_a = 0, int32_t max_b = 0) const {
    return {.a = a_.data(),
            .a_row = a_row_,
            .b = b_.data(),
            .start = start_.data(),
            .m = p.shape.m,
            .n = p.shape.n,
            .k4 = k4_,
            .tile_k4 = p.tile == 0 ? k4_ : in_fours(p.tile),
            .overflow = p.overflow,
            .limit = static_cast<int32_t>((int64_t{1} << (p.bits - 1)) - 1),
            .shift = static_cast<int32_t>(32 - p.bits),
            .max_a = std::max(max_a, max_a_),
            .max_b = std::max(max_b, max_b_)};
  }

 private:
  int64_t k4_, a_row_;
  Guarded<uint8_t> a_;
  Guarded<int8_t> b_;
  Guarded<int32_t> start_;
  int32_t max_a_ = 0, max_b_ = 0;
};

// A stored matrix of rows x cols with `space` elements between its rows, the last one flush with the guard.
template <class T>
Guarded<T> stored(const std::vector<int32_t>& codes, int64_t rows, int64_t cols, int64_t space, bool transposed,
                  int32_t zero) {
  const int64_t height = transposed ? cols : rows, width = transposed ? rows : cols;
  Guarded<T> matrix(height == 0 || width == 0 ? 0 : (height - 1) * (width + space) + width);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      const int64_t at = transposed ? c * (width + space) + r : r * (width + space) + c;
      matrix[at] = static_cast<T>(codes[static_cast<size_t>(r * cols + c)] + zero);
    }
  }
  return matrix;
}

// B as `EveryMacGemm` reads it, guarded.
inline Guarded<int8_t> wide_panels(const Problem& p, uint8_t mask, int64_t gap) {
  const int64_t n = p.shape.n, k = p.shape.k, depth = groups_of_four(k, p.depth()) * kDepth;
  Guarded<int8_t> panels((n + kWidePanel - 1) / kWidePanel * depth * kWidePanel, gap);
  std::fill_n(panels.data(), panels.size(), int8_t{0});
  for (int64_t i = 0; i < k; ++i) {
    for (int64_t column = 0; column < n; ++column) {
      const int64_t at = column / kWidePanel * depth + place_of(i, p.depth());
      panels[at * kWidePanel + column % kWidePanel] =
          static_cast<int8_t>(p.b[static_cast<size_t>(i * n + column)] & mask);
    }
  }
  return panels;
}

// C [m, n] with space between its rows and guards around it.
class Output {
 public:
  Output(int64_t m, int64_t n, int64_t gap)
      : n_(n), ld_(n + 3), c_(m == 0 ? 0 : (m - 1) * ld_ + n, gap), before_(c_.size(), gap) {}

  int32_t* data() { return c_.data(); }
  int64_t ld() const { return ld_; }

  // The elements of C; one too many if the space or the guard changed.
  std::vector<int32_t> values() const {
    std::vector<int32_t> result;
    bool clean = c_.intact();
    for (int64_t i = 0; i < c_.size(); ++i) {
      if (i % ld_ < n_) {
        result.push_back(c_[i]);
      } else {
        clean &= c_[i] == before_[i];
      }
    }
    if (!clean) result.push_back(0);
    return result;
  }

 private:
  int64_t n_, ld_;
  Guarded<int32_t> c_;
  Guarded<int32_t> before_;
};

// Codes of A are `bits` wide, signed ones from -2^(bits-1); those of B are signed. Extreme codes dominate in one problem
// of three, so that every limit is met.
inline Problem random_problem(Draws& draws, ProductShape shape, int bits, bool a_signed, int64_t tile,
                              Overflow overflow, int64_t accumulator_bits) {
  const int32_t half = 1 << (bits - 1);
  const int32_t a_lo = a_signed ? -half : 0, a_hi = a_signed ? half - 1 : 2 * half - 1;
  Problem p{shape,
            tile,
            overflow,
            accumulator_bits,
            a_signed ? half : 0,
            draws.integers<int32_t>(shape.m * shape.k, a_lo, a_hi),
            draws.integers<int32_t>(shape.k * shape.n, -half, half - 1)};
  if (draws.between(0, 2) == 0) {
    for (int32_t& code : p.a) code = draws.between(0, 7) == 0 ? code : a_hi;
    for (int64_t i = 0; i < shape.k * shape.n; ++i) {  // a sign per column
      if (draws.between(0, 7) != 0) p.b[static_cast<size_t>(i)] = i % shape.n % 2 == 0 ? half - 1 : -half;
    }
  }
  return p;
}

}  // namespace quintil::test
