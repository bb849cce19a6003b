// The options of lsq_quantize and double_round_quantize: as the op's numbers need them, and as plain integers, the form
// in which they pass through the dispatcher between the public ops, their private halves and autograd.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "csrc/core/types.h"

namespace quintil::ops {

struct StepConfig {
  bool is_weight = false;  // double_round_quantize, else lsq_quantize
  int64_t stored_bits = 8;
  int64_t bits = 8;  // of the result
  bool is_signed = true;
  Rounding rounding = Rounding::kHalfEven;
  bool stored = true;  // the result is rounded from the stored integers, else from the real numbers
  bool mask_on_rounded = false;
  bool single_residual = false;
  bool sum_all = false;     // every channel receives the sum over all of them
  bool chain_pow2 = false;  // the gradient of the stored step, not that of the step of the result

  const char* op() const { return is_weight ? "double_round_quantize" : "lsq_quantize"; }
  std::vector<int64_t> encode() const;
  static StepConfig decode(at::IntArrayRef values);
};

// Shared names of options.
Rounding parse_rounding(const char* op, std::string_view rounding);
bool parse_mask_on(const char* op, std::string_view mask_on);

// Casts to float32, calls _lsq_forward and casts the result back to the type of x.
at::Tensor quantize_with_step(const at::Tensor& x, const at::Tensor& scale, const std::optional<at::Tensor>& offset,
                              const StepConfig& config);

}  // namespace quintil::ops
