// The options of HDQT: as the schemas spell them, as the ops use them, and as plain integers, the form in which they
// pass through the dispatcher between the public ops, their private halves and autograd.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "csrc/ops/code_transforms.h"
#include "csrc/ops/matmul_plan.h"

namespace quintil::ops {

enum class Ste : int64_t { kIdentity = 0, kClip = 1, kRaw = 2 };

struct HadamardConfig {
  int64_t bits = 4;
  Accumulator forward;
  Accumulator input_gradient;   // B1
  Accumulator weight_gradient;  // B2
  Blocks blocks;
  bool requantize = true;
  bool dc_row_apart = false;  // B2: the first rows of blocks have codes of their own [HDQT H23]
  int64_t stochastic = 0;     // bit s: the site with number s rounds stochastically
  bool per_sample = true;
  bool channels_last_taps = true;
  Ste ste = Ste::kIdentity;

  bool rounds_stochastically(Site site) const { return (stochastic >> static_cast<int64_t>(site) & 1) != 0; }
  bool backward_is_stochastic() const;

  std::vector<int64_t> encode() const;
  static HadamardConfig decode(at::IntArrayRef values);
};

// The arguments of the schemas in their order. Throws ValueError or NotImplementedError naming `op` and the argument.
struct HadamardArguments {
  int64_t bits;
  int64_t accumulator_bits;
  int64_t tile_size;
  std::optional<int64_t> backward_accumulator_bits;
  std::optional<int64_t> weight_gradient_accumulator_bits;
  int64_t backward_tile_size;
  std::string_view accumulate;
  std::string_view overflow;
  std::string_view hadamard;
  int64_t hadamard_block;
  bool requantize;
  std::string_view dc_row;
  std::string_view ste;
  std::string_view stochastic;
  double range_fraction;
  std::string_view conv_backward = "per_sample";
  std::string_view tile_order = "khwc";
};
HadamardConfig parse(const char* op, const HadamardArguments& arguments);

// Names of the accumulator options, shared with tiled_int_mm.
Accumulator parse_accumulator(const char* op, int64_t tile_size, int64_t accumulator_bits, std::string_view accumulate,
                              std::string_view overflow);
Blocks parse_blocks(const char* op, std::string_view hadamard, int64_t block, const char* block_name);

}  // namespace quintil::ops
