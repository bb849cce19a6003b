// double_round_quantize: weights at a lower width than the stored one, rounded twice, with the gradients of weight and
// step [DR D1-D8].
#include <ATen/core/Tensor.h>
#include <torch/library.h>

#include "csrc/ops/check.h"
#include "csrc/ops/lsq.h"

namespace quintil::ops {

namespace {

using at::Tensor;

Tensor double_round_quantize(const Tensor& x, const Tensor& scale, int64_t from_bits, int64_t to_bits,
                             c10::string_view rounding, bool chain_pow2, c10::string_view weight_source,
                             c10::string_view mask_on, c10::string_view scale_residual,
                             c10::string_view scale_grad_sum) {
  StepConfig config;
  config.is_weight = true;
  const char* op = config.op();
  check_range(op, "from_bits", from_bits, 1, 8);
  check_range(op, "to_bits", to_bits, 1, from_bits);
  config.stored_bits = from_bits;
  config.bits = to_bits;
  config.rounding = parse_rounding(op, rounding);
  config.chain_pow2 = chain_pow2;
  config.stored = check_name(op, "weight_source", weight_source, {"stored", "float"}) == 0;
  config.mask_on_rounded = parse_mask_on(op, mask_on);
  config.single_residual = check_name(op, "scale_residual", scale_residual, {"double", "single"}) == 1;
  config.sum_all = check_name(op, "scale_grad_sum", scale_grad_sum, {"channel", "all"}) == 1;
  return quantize_with_step(x, scale, std::nullopt, config);
}

}  // namespace

// Composite: it parses and casts; the casts carry gradients.
TORCH_LIBRARY_IMPL(quintil, CompositeImplicitAutograd, m) {
  m.impl("double_round_quantize", double_round_quantize);
}

}  // namespace quintil::ops
