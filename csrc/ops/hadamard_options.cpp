#include "csrc/ops/hadamard_options.h"

#include <array>
#include <string>

#include "csrc/ops/check.h"

namespace quintil::ops {

namespace {

constexpr std::array<std::string_view, 7> kSiteNames = {"", "fw", "fa", "b1w", "b1g", "b2a", "b2g"};

int64_t parse_sites(const char* op, std::string_view list) {
  int64_t sites = 0;
  for (size_t first = 0; first < list.size();) {
    const size_t comma = std::min(list.find(',', first), list.size());
    const std::string_view name = list.substr(first, comma - first);
    int64_t site = 0;
    for (size_t s = 1; s < kSiteNames.size(); ++s) {
      if (kSiteNames[s] == name) site = static_cast<int64_t>(s);
    }
    TORCH_CHECK_VALUE(site != 0, op, ": expected stochastic to list sites of fw, fa, b1w, b1g, b2a, b2g, got '", list,
                      "'");
    sites |= int64_t{1} << site;
    first = comma + 1;
  }
  return sites;
}

// The registers of B1 and B2: the forward's, but for tile and width.
void parse_backward(const char* op, const HadamardArguments& a, HadamardConfig& c) {
  const auto width = [op](const char* name, const std::optional<int64_t>& bits, int64_t otherwise) {
    if (bits) check_range(op, name, *bits, 4, 32);
    return bits.value_or(otherwise);
  };
  check_tile(op, "backward_tile_size", a.backward_tile_size);
  c.input_gradient = c.forward;
  c.input_gradient.tile = a.backward_tile_size;
  c.input_gradient.bits = width("backward_accumulator_bits", a.backward_accumulator_bits, c.forward.bits);
  c.weight_gradient = c.input_gradient;
  c.weight_gradient.bits =
      width("weight_gradient_accumulator_bits", a.weight_gradient_accumulator_bits, c.input_gradient.bits);
}

}  // namespace

bool HadamardConfig::backward_is_stochastic() const {
  return rounds_stochastically(Site::kInputGradWeight) || rounds_stochastically(Site::kInputGradGrad) ||
         rounds_stochastically(Site::kWeightGradInput) || rounds_stochastically(Site::kWeightGradGrad);
}

std::vector<int64_t> HadamardConfig::encode() const {
  return {bits,
          forward.tile,
          forward.bits,
          input_gradient.tile,
          input_gradient.bits,
          forward.every_mac,
          forward.wraps,
          static_cast<int64_t>(blocks.mode),
          blocks.block,
          requantize,
          stochastic,
          per_sample,
          channels_last_taps,
          static_cast<int64_t>(ste),
          weight_gradient.bits,
          dc_row_apart};
}

HadamardConfig HadamardConfig::decode(at::IntArrayRef v) {
  TORCH_CHECK_VALUE(v.size() == 16, "quintil: expected options to hold 16 integers, got ", v.size());
  HadamardConfig c;
  c.bits = v[0];
  c.forward = {v[1], v[2], v[5] != 0, v[6] != 0};
  c.input_gradient = {v[3], v[4], v[5] != 0, v[6] != 0};
  c.weight_gradient = {v[3], v[14], v[5] != 0, v[6] != 0};
  c.blocks = {static_cast<BlockMode>(v[7]), v[8]};
  c.requantize = v[9] != 0;
  c.stochastic = v[10];
  c.per_sample = v[11] != 0;
  c.channels_last_taps = v[12] != 0;
  c.ste = static_cast<Ste>(v[13]);
  c.dc_row_apart = v[15] != 0;
  return c;
}

Accumulator parse_accumulator(const char* op, int64_t tile_size, int64_t accumulator_bits, std::string_view accumulate,
                              std::string_view overflow) {
  check_tile(op, "tile_size", tile_size);
  check_range(op, "accumulator_bits", accumulator_bits, 4, 32);
  return {tile_size, accumulator_bits, check_name(op, "accumulate", accumulate, {"tile_end", "every_mac"}) == 1,
          check_name(op, "overflow", overflow, {"saturate", "wrap"}) == 1};
}

Blocks parse_blocks(const char* op, std::string_view hadamard, int64_t block, const char* block_name) {
  const auto mode = static_cast<BlockMode>(
      check_name(op, "hadamard", hadamard, {"divisor", "binary", "padded", "none", "none_scaled"}));
  TORCH_CHECK_VALUE(block >= 1 && (block & (block - 1)) == 0, op, ": expected ", block_name,
                    " to be a power of two, got ", block);
  return {mode, block};
}

HadamardConfig parse(const char* op, const HadamardArguments& a) {
  HadamardConfig c;
  check_range(op, "bits", a.bits, 2, 8);
  c.bits = a.bits;
  c.forward = parse_accumulator(op, a.tile_size, a.accumulator_bits, a.accumulate, a.overflow);
  parse_backward(op, a, c);
  c.blocks = parse_blocks(op, a.hadamard, a.hadamard_block, "hadamard_block");
  c.requantize = a.requantize;
  TORCH_CHECK_NOT_IMPLEMENTED(a.requantize || c.blocks.mode != BlockMode::kBinary, op,
                              ": expected requantize=True with hadamard='binary', got requantize=False (its unequal "
                              "blocks are scaled before they are quantised again)");
  c.dc_row_apart = check_name(op, "dc_row", a.dc_row, {"together", "separate"}) == 1;
  TORCH_CHECK_VALUE(!c.dc_row_apart || c.blocks.mode == BlockMode::kPadded || c.blocks.mode == BlockMode::kDivisor, op,
                    ": expected hadamard to be 'padded' or 'divisor' with dc_row='separate', got '", a.hadamard,
                    "' (the first rows of blocks share one step, so blocks must be equal)");
  c.ste = static_cast<Ste>(check_name(op, "ste", a.ste, {"identity", "clip", "raw"}));
  c.stochastic = parse_sites(op, a.stochastic);
  TORCH_CHECK_VALUE(a.range_fraction > 0 && a.range_fraction <= 1, op, ": expected range_fraction in (0, 1], got ",
                    a.range_fraction);
  c.per_sample = check_name(op, "conv_backward", a.conv_backward, {"per_sample", "batch"}) == 0;
  c.channels_last_taps = check_name(op, "tile_order", a.tile_order, {"khwc", "chw"}) == 0;
  return c;
}

}  // namespace quintil::ops
