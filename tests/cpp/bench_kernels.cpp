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
#include <utility>
#include <vector>

#include "csrc/kernels/dispatch.h"
#include "tests/cpp/catch.h"
#include "tests/cpp/draws.h"
#include "tests/cpp/shapes.h"

namespace quintil::test {
namespace {

using kernels::KernelTable;
using Clock = std::chrono::steady_clock;

constexpr int64_t kRows = 128, kCols = 1024, kElements = kRows * kCols;
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

struct Row {
  std::string kernel, what;
  double work;  // elements, or operations of a product
  bool product;
  std::function<void(const KernelTable&)> call;
};

// Everything the rows read and write. Transforms work in place on zeros, which stay zeros: none depends on its data.
struct Data {
  Draws draws{1};
  std::vector<float> f32 = draws.floats(kElements, 1.0f);
  std::vector<int16_t> s16 = draws.integers<int16_t>(kElements, -448, 448);
  std::vector<uint8_t> u8 = draws.integers<uint8_t>(kElements, 1, 15);
  std::vector<int8_t> s8 = draws.integers<int8_t>(kElements, -7, 7);
  std::vector<int32_t> s32 = draws.integers<int32_t>(kElements, -2000, 2000);
  std::vector<float> zeros_f32 = std::vector<float>(kElements);
  std::vector<int16_t> zeros_s16 = std::vector<int16_t>(kElements);
  std::vector<int32_t> zeros_s32 = std::vector<int32_t>(kElements), image_s32 = std::vector<int32_t>(kElements);
  std::vector<float> out_f32 = std::vector<float>(kElements);
  std::vector<int16_t> out_s16 = std::vector<int16_t>(kElements);
  std::vector<uint8_t> out_u8 = std::vector<uint8_t>(2 * kElements);
  std::vector<int64_t> moments = std::vector<int64_t>(128);
  std::vector<int8_t> panels = std::vector<int8_t>(2 * kElements);
  std::vector<int32_t> start = std::vector<int32_t>(kElements);
};

constexpr CodeGrid kGrid{0.4f, -7, 7, 8};
constexpr CodeGrid kWideGrid{64.0f, -7, 7, 0};
constexpr StepGrid kStepGrid{0.05f, 0.0f, 1.0f / 16, 0.8f, -8, 7, 7, Rounding::kHalfEven, true, false, false};
constexpr LevelGrid kLevelGrid{0.3352f, -8, 7};
ColumnEpilogue column_epilogue(const float* column_scale) {
  return {column_scale, 0.1f, 0.5f, nullptr, nullptr, 0, false};
}

constexpr Epilogue kEpilogue{{0.1f, 0.2f, 0.3f}, 1.0f / 64, nullptr};
constexpr Draw draw_of(int32_t bits) {
  return {0x12345678u, 0x9ABCDEF0u, 4, bits};
}

void add_quantizers(std::vector<Row>& rows, Data& d) {
  const auto add = [&](const char* kernel, const char* what, std::function<void(const KernelTable&)> call) {
    rows.push_back({kernel, what, kElements, false, std::move(call)});
  };
  add("absmax_f32", "", [&](const KernelTable& k) { k.absmax_f32(d.f32.data(), kElements); });
  add("absmax_s16", "", [&](const KernelTable& k) { k.absmax_s16(d.s16.data(), kElements); });
  add("absmax_u8", "", [&](const KernelTable& k) { k.absmax_u8(d.u8.data(), kElements); });
  add("absmax_s8", "", [&](const KernelTable& k) { k.absmax_s8(d.s8.data(), kElements); });
  add("quantize_f32u8", "nearest", [&](const KernelTable& k) {
    k.quantize_f32u8(d.f32.data(), kRows, kCols, kCols, kGrid, d.out_u8.data(), kCols);
  });
  add("quantize_s16u8", "nearest", [&](const KernelTable& k) {
    k.quantize_s16u8(d.s16.data(), kRows, kCols, kCols, kWideGrid, d.out_u8.data(), kCols);
  });
  for (const int32_t bits : {16, 8}) {
    const char* what = bits == 16 ? "16 random bits" : "8 random bits";
    add("quantize_f32u8_stochastic", what, [&d, bits](const KernelTable& k) {
      k.quantize_f32u8_stochastic(d.f32.data(), kRows, kCols, kCols, kGrid, draw_of(bits), 0, d.out_u8.data(), kCols);
    });
    add("quantize_s16u8_stochastic", what, [&d, bits](const KernelTable& k) {
      k.quantize_s16u8_stochastic(d.s16.data(), kRows, kCols, kCols, kWideGrid, draw_of(bits), 0, d.out_u8.data(),
                                  kCols);
    });
  }
}

void add_learned_steps(std::vector<Row>& rows, Data& d) {
  rows.push_back({"lsq_f32f32", "8 to 4 bits", kElements, false,
                  [&](const KernelTable& k) { k.lsq_f32f32(d.f32.data(), kElements, kStepGrid, d.out_f32.data()); }});
  rows.push_back({"lsq_f32f32f32_backward", "8 to 4 bits", kElements, false, [&](const KernelTable& k) {
                    for (int64_t i = 0; i < kElements; i += kSumChunk) {
                      const float* x = d.f32.data() + i;
                      k.lsq_f32f32f32_backward(x, x, kSumChunk, kStepGrid, d.out_f32.data() + i);
                    }
                  }});
  rows.push_back({"double_round_s8s8", "8 to 4 bits", kElements, false, [&](const KernelTable& k) {
                    k.double_round_s8s8(d.s8.data(), kElements, {4, -8, 7, Rounding::kHalfEven}, d.panels.data());
                  }});
}

void add_levels(std::vector<Row>& rows, Data& d) {
  const auto add = [&](const char* kernel, std::function<void(const KernelTable&, int64_t)> call) {
    rows.push_back({kernel, "4 bits", kElements, false, [call = std::move(call)](const KernelTable& k) {
                      for (int64_t i = 0; i < kElements; i += kSumChunk) call(k, i);
                    }});
  };
  add("moments_f32", [&](const KernelTable& k, int64_t i) { k.moments_f32(d.f32.data() + i, kSumChunk, 0.5f); });
  add("steer_f32s8", [&](const KernelTable& k, int64_t i) {
    k.steer_f32s8(d.f32.data() + i, kSumChunk, kLevelGrid, d.panels.data() + i);
  });
  add("steer_f32s16", [&](const KernelTable& k, int64_t i) {
    k.steer_f32s16(d.f32.data() + i, kSumChunk, kLevelGrid, d.out_s16.data() + i);
  });
  add("drive_f32f32", [&](const KernelTable& k, int64_t i) {
    k.drive_f32f32(d.f32.data() + i, kSumChunk, kLevelGrid, {0.3f, 0.0f, 0.0f, 0.0f}, d.out_f32.data() + i);
  });
  add("compare_f32f32",
      [&](const KernelTable& k, int64_t i) { k.compare_f32f32(d.f32.data() + i, d.zeros_f32.data() + i, kSumChunk); });
}

void add_baselines(std::vector<Row>& rows, Data& d) {
  // FP134 at the scale 1: its twelve steps, and their inverses.
  static constexpr float steps[] = {0x1p-3f, 0x1p-4f, 0x1p-5f, 0x1p-6f, 0x1p-7f, 0x1p-8f,
                                    0x1p-9f, 0x1p-9f, 0x1p-9f, 0x1p-9f, 0x1p-9f, 0x1p-9f};
  static constexpr float inverses[] = {0x1p3f, 0x1p4f, 0x1p5f, 0x1p6f, 0x1p7f, 0x1p8f,
                                       0x1p9f, 0x1p9f, 0x1p9f, 0x1p9f, 0x1p9f, 0x1p9f};
  static constexpr MinifloatGrid grid{steps, inverses, 12, 128, 3.875f};
  const auto add = [&](const char* kernel, const char* what, std::function<void(const KernelTable&)> call) {
    rows.push_back({kernel, what, kElements, false, std::move(call)});
  };
  add("luq_f32f32", "",
      [&](const KernelTable& k) { k.luq_f32f32(d.f32.data(), kRows, kCols, 0.1f, draw_of(16), 0, d.out_f32.data()); });
  add("luq_f32s8", "",
      [&](const KernelTable& k) { k.luq_f32s8(d.f32.data(), kRows, kCols, 0.1f, draw_of(16), 0, d.panels.data()); });
  add("minifloat_f32f32", "FP134",
      [&](const KernelTable& k) { k.minifloat_f32f32(d.f32.data(), kElements, grid, d.out_f32.data()); });
  add("minifloat_f32f32_stochastic", "FP134", [&](const KernelTable& k) {
    k.minifloat_f32f32_stochastic(d.f32.data(), kRows, kCols, grid, draw_of(16), 0, d.out_f32.data());
  });
  constexpr int64_t kHidden = kCols / 4;  // numbers of a product with a state
  add("lstm_cell_f32", "256 hidden", [&](const KernelTable& k) {
    k.lstm_cell_f32(d.zeros_f32.data(), d.zeros_f32.data(), d.f32.data(), kRows, kHidden, d.out_f32.data(),
                    d.out_f32.data() + kRows * kHidden);
  });
  add("gru_cell_f32", "256 hidden", [&](const KernelTable& k) {
    k.gru_cell_f32(d.zeros_f32.data(), d.zeros_f32.data(), d.f32.data(), d.f32.data(), kRows, kHidden,
                   d.zeros_f32.data(), d.out_f32.data());
  });
  add("minifloat_f32f32f32_hysteresis", "FP134", [&](const KernelTable& k) {
    k.minifloat_f32f32f32_hysteresis(d.f32.data(), d.zeros_f32.data(), kElements, grid, d.out_f32.data());
  });
}

void add_transforms(std::vector<Row>& rows, Data& d) {
  for (const int64_t order : {64, 1024}) {
    const std::string what = "order " + std::to_string(order);
    rows.push_back({"fwht_f32_rows", what, kElements, false, [&d, order](const KernelTable& k) {
                      k.fwht_f32_rows(d.zeros_f32.data(), kRows, kCols, order, kCols / order);
                    }});
    rows.push_back({"fwht_s32_rows", what, kElements, false, [&d, order](const KernelTable& k) {
                      k.fwht_s32_rows(d.zeros_s32.data(), kRows, kCols, order, kCols / order);
                    }});
  }
  // Down the rows, in the strips of 128 columns that the ops use. With 1024 columns the rows of a strip share sets of
  // L1.
  const auto strips = [&](const char* kernel, auto entry, auto* x) {
    for (const auto& [order, cols] : {std::pair<int64_t, int64_t>{64, 576}, {64, kCols}, {128, kCols}}) {
      const std::string what = "order " + std::to_string(order) + ", " + std::to_string(cols) + " columns";
      rows.push_back({kernel, what, static_cast<double>(kRows * cols), false, [=](const KernelTable& k) {
                        for (int64_t row = 0; row < kRows; row += order) {
                          for (int64_t c = 0; c < cols; c += 128) {
                            (k.*entry)(x + row * cols + c, order, std::min<int64_t>(128, cols - c), cols);
                          }
                        }
                      }});
    }
  };
  strips("fwht_f32_cols", &KernelTable::fwht_f32_cols, d.zeros_f32.data());
  strips("fwht_s16_cols", &KernelTable::fwht_s16_cols, d.zeros_s16.data());
  strips("fwht_s32_cols", &KernelTable::fwht_s32_cols, d.zeros_s32.data());
}

void add_packing(std::vector<Row>& rows, Data& d) {
  const auto add = [&](const char* kernel, const char* what, double work,
                       std::function<void(const KernelTable&)> call) {
    rows.push_back({kernel, what, work, false, std::move(call)});
  };
  add("pack_b_s8", "k contiguous", kElements, [&](const KernelTable& k) {
    k.pack_b_s8(d.s8.data(), 1, kCols, kCols, kRows, kTile, 8, d.panels.data(), d.start.data());
  });
  add("pack_b_s8", "n contiguous", kElements, [&](const KernelTable& k) {
    k.pack_b_s8(d.s8.data(), kCols, 1, kRows, kCols, kTile, 8, d.panels.data(), d.start.data());
  });
  add("pack_b_s8_every_mac", "k contiguous", kElements, [&](const KernelTable& k) {
    k.pack_b_s8_every_mac(d.s8.data(), 1, kCols, kCols, kRows, kTile, 15, d.panels.data());
  });
  add("pack_b_s8_every_mac", "n contiguous", kElements, [&](const KernelTable& k) {
    k.pack_b_s8_every_mac(d.s8.data(), kCols, 1, kRows, kCols, kTile, 15, d.panels.data());
  });
  add("pack_a_u8", "k contiguous, tile 21", kElements,
      [&](const KernelTable& k) { k.pack_a_u8(d.u8.data(), 1, kCols, kCols, kRows, 21, d.out_u8.data()); });
  add("pack_a_u8", "m contiguous", kElements,
      [&](const KernelTable& k) { k.pack_a_u8(d.u8.data(), kCols, 1, kRows, kCols, kTile, d.out_u8.data()); });
  add("scale_s32f32", "", kElements,
      [&](const KernelTable& k) { k.scale_s32f32(d.s32.data(), kElements, kEpilogue, d.out_f32.data()); });
  add("scale_s32f32_columns", "", kElements, [&](const KernelTable& k) {
    k.scale_s32f32_columns(d.s32.data(), kRows, kCols, kCols, column_epilogue(d.f32.data()), d.out_f32.data(), kCols);
  });
  add("scale_s32u8_columns", "", kElements, [&](const KernelTable& k) {
    k.scale_s32u8_columns(d.s32.data(), kRows, kCols, kCols, column_epilogue(d.f32.data()), {0.1f, 0, 255, 0},
                          d.out_u8.data(), kCols);
  });
  add("quantize_f32u8_columns", "", kElements, [&](const KernelTable& k) {
    k.quantize_f32u8_columns(d.f32.data(), kRows, kCols, kCols, d.f32.data(), d.f32.data(), {0.1f, 0, 255, 0},
                             d.out_u8.data(), kCols);
  });
  add("pack_u8u4", "", kElements, [&](const KernelTable& k) { k.pack_u8u4(d.u8.data(), kElements, d.out_u8.data()); });
  add("unpack_u4u8", "", kElements,
      [&](const KernelTable& k) { k.unpack_u4u8(d.u8.data(), kElements, false, d.out_u8.data()); });
  add("widen_u8s16", "", kElements,
      [&](const KernelTable& k) { k.widen_u8s16(d.u8.data(), kElements, 8, d.out_s16.data()); });
  add("sum_rows_f32", "", kElements,
      [&](const KernelTable& k) { k.sum_rows_f32(d.f32.data(), kRows, kCols, kCols, d.out_f32.data()); });
  for (const bool channels_last : {true, false}) {  // 3 x 3 over 16 x 16 x 32, unfolded 96 positions at a time
    const ConvShape shape{16, 16, 32, 3, 3, 1, 1, 1, 1, 1, 1, 16, 16, channels_last};
    constexpr int64_t depth = 288, strip = 96;
    const char* what = channels_last ? "3x3, 32 channels, khwc" : "3x3, 32 channels, chw";
    add("im2col_u8", what, strip * depth,
        [&d, shape](const KernelTable& k) { k.im2col_u8(d.u8.data(), shape, 32, strip, 0, d.out_u8.data(), depth); });
    add("col2im_s32", what, strip * depth, [&d, shape](const KernelTable& k) {
      k.col2im_s32(d.zeros_s32.data(), depth, shape, 32, strip, d.image_s32.data());
    });
  }
}

// 64 channels, as many elements as the other passes.
void add_batch_norm(std::vector<Row>& rows, Data& d) {
  constexpr int64_t channels = 64, values = kElements / channels;
  const auto add = [&](const char* kernel, std::function<void(const KernelTable&)> call) {
    rows.push_back({kernel, "64 channels", kElements, false, std::move(call)});
  };
  const float* constants = d.f32.data();
  add("narrow_s32s16_moments", [&](const KernelTable& k) {
    k.narrow_s32s16_moments(d.s32.data(), values, channels, d.out_s16.data(), d.moments.data(), d.moments.data() + 64);
  });
  add("batch_norm_s16f32", [&d, constants](const KernelTable& k) {
    k.batch_norm_s16f32(d.s16.data(), values, channels, {constants, constants + 64, d.f32.data(), true},
                        d.out_f32.data(), d.out_u8.data());
  });
  const NormBackward norm{constants, constants + 64, constants + 128, constants + 192, constants + 256};
  add("batch_norm_sums_s16f32", [&d, norm](const KernelTable& k) {
    k.batch_norm_sums_s16f32(d.s16.data(), d.f32.data(), d.u8.data(), values, channels, norm, d.out_f32.data(),
                             d.out_f32.data() + 64);
  });
  add("batch_norm_grad_s16f32", [&d, norm](const KernelTable& k) {
    k.batch_norm_grad_s16f32(d.s16.data(), d.f32.data(), d.u8.data(), values, channels, norm, d.out_f32.data(),
                             nullptr);
  });
}

// Codes of `bits` bits, signed on both sides, packed once by the scalar kernel.
struct Product {
  int64_t m, n, k;
  int32_t zero;
  std::vector<uint8_t> a;
  std::vector<int8_t> b, panels, wide_panels;
  std::vector<int32_t> start, c;
  std::vector<float> real;

  Product(int64_t m_, int64_t k_, int64_t n_, int bits)
      : m(m_), n(n_), k(k_), zero(1 << (bits - 1)), c(static_cast<size_t>(m * n)), real(c.size()) {
    Draws draws(7);
    a = draws.integers<uint8_t>(m * k, 1, 2 * zero - 1);
    b = draws.integers<int8_t>(k * n, 1 - zero, zero - 1);
    const int64_t columns = (n + kPanel - 1) / kPanel * kPanel;
    panels.resize(static_cast<size_t>(columns * k));
    start.resize(static_cast<size_t>(columns * ((k + kTile - 1) / kTile)));
    kernels::table("scalar")->pack_b_s8(b.data(), 1, k, k, n, kTile, zero, panels.data(), start.data());
    wide_panels.resize(static_cast<size_t>((n + kWidePanel - 1) / kWidePanel * kWidePanel * k));
    kernels::table("scalar")->pack_b_s8_every_mac(b.data(), 1, k, k, n, kTile, bits <= 4 ? 15 : 255,
                                                  wide_panels.data());
  }

  Gemm view(Overflow overflow, int32_t bits) const {
    return {.a = a.data(),
            .a_row = k,
            .b = panels.data(),
            .start = start.data(),
            .m = m,
            .n = n,
            .k4 = k / kDepth,
            .tile_k4 = kTile / kDepth,
            .overflow = overflow,
            .limit = static_cast<int32_t>((int64_t{1} << (bits - 1)) - 1),
            .shift = 32 - bits,
            .max_a = 2 * zero - 1,
            .max_b = zero - 1};
  }

  EveryMacGemm every_mac(int32_t bits) const {
    return {.a = a.data(),
            .a_row = k,
            .b = wide_panels.data(),
            .m = m,
            .n = n,
            .k4 = k / kDepth,
            .tile_k4 = kTile / kDepth,
            .zero = zero,
            .limit = (1 << (bits - 1)) - 1};
  }
};

std::string shape_of(const Product& p) {
  return std::to_string(p.m) + "x" + std::to_string(p.k) + "x" + std::to_string(p.n);
}

void add_products(std::vector<Row>& rows, Data& d, std::vector<Product>& products) {
  const auto integer = [&](Product& p, const char* what, Overflow overflow, int32_t bits) {
    rows.push_back(
        {"gemm_u8s8s32", shape_of(p) + ", " + what, 2.0 * p.m * p.n * p.k, true,
         [&p, overflow, bits](const KernelTable& k) { k.gemm_u8s8s32(p.view(overflow, bits), p.c.data(), p.n); }});
  };
  products.reserve(6);  // rows point at them
  products.emplace_back(960, 1024, 1024, 4);
  products.emplace_back(960, 1024, 1024, 8);
  integer(products[0], "4 bit, no limit", Overflow::kNone, 32);
  integer(products[0], "4 bit, A = 8", Overflow::kSaturate, 8);
  integer(products[0], "4 bit, A = 8, wraps", Overflow::kWrap, 8);
  integer(products[1], "8 bit, A = 16", Overflow::kSaturate, 16);
  const int64_t convs[][2] = {{144, 16}, {288, 32}, {576, 64}};
  for (const auto& [k, n] : convs) {
    products.emplace_back(1024, k, n, 4);
    integer(products.back(), "4 bit, A = 8", Overflow::kSaturate, 8);
  }
  for (Product& p : products) {
    if (p.zero != 8) continue;
    rows.push_back(
        {"gemm_u8s8f32", shape_of(p) + ", 4 bit, A = 8", 2.0 * p.m * p.n * p.k, true, [&p](const KernelTable& k) {
           k.gemm_u8s8f32(p.view(Overflow::kSaturate, 8), kEpilogue, p.real.data(), p.n);
         }});
  }
  products.emplace_back(512, 16, 1152, 4);
  Product& image = products.back();
  rows.push_back({"gemm_u8s8f32_sum", "8 x " + shape_of(image) + ", 4 bit, A = 8", 16.0 * image.m * image.n * image.k,
                  true, [&image](const KernelTable& k) {
                    const std::vector<Gemm> gemms(8, image.view(Overflow::kSaturate, 8));
                    const std::vector<Epilogue> epilogues(8, kEpilogue);
                    k.gemm_u8s8f32_sum(gemms.data(), epilogues.data(), 8, image.real.data(), image.n);
                  }});
  for (Product* p : {&products[0], &products[2], &products[4]}) {
    rows.push_back({"gemm_u8s4s32_every_mac", shape_of(*p) + ", A = 8", 2.0 * p->m * p->n * p->k, true,
                    [p](const KernelTable& k) { k.gemm_u8s4s32_every_mac(p->every_mac(8), p->c.data(), p->n); }});
  }
  Product& bytes = products[1];
  rows.push_back(
      {"gemm_u8s8s32_every_mac", shape_of(bytes) + ", A = 16", 2.0 * bytes.m * bytes.n * bytes.k, true,
       [&bytes](const KernelTable& k) { k.gemm_u8s8s32_every_mac(bytes.every_mac(16), bytes.c.data(), bytes.n); }});
  rows.push_back(
      {"gemm_s32s32s32", "64x256x64, every_mac, A = 8", 2.0 * 64 * 256 * 64, true, [&d](const KernelTable& k) {
         k.gemm_s32s32s32(
             {d.s32.data(), 256, 1, d.s32.data(), 64, 64, 64, 256, kTile, true, Overflow::kSaturate, 127, 24},
             d.image_s32.data(), 64);
       }});
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
