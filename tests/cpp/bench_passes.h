// Rows of bench_kernels.cpp that pass over elements.
#pragma once

#include <algorithm>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "tests/cpp/bench_rows.h"

namespace quintil::test {

inline void add_quantizers(std::vector<Row>& rows, Data& d) {
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

inline void add_learned_steps(std::vector<Row>& rows, Data& d) {
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

inline void add_levels(std::vector<Row>& rows, Data& d) {
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

inline void add_baselines(std::vector<Row>& rows, Data& d) {
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

inline void add_transforms(std::vector<Row>& rows, Data& d) {
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

inline void add_packing(std::vector<Row>& rows, Data& d) {
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
inline void add_batch_norm(std::vector<Row>& rows, Data& d) {
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

}  // namespace quintil::test
