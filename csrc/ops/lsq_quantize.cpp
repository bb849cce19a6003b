// lsq_quantize: a uniform quantiser with a learned step, and a learned offset where one is given [DR D10, D11, D13].
#include <ATen/core/Tensor.h>
#include <torch/library.h>

#include "csrc/ops/check.h"
#include "csrc/ops/lsq.h"

namespace quintil::ops {

namespace {

using at::Tensor;

Tensor lsq_quantize(const Tensor& x, const Tensor& scale, int64_t bits, bool is_signed,
                    const std::optional<Tensor>& offset, c10::string_view mask_on) {
  StepConfig config;
  check_range(config.op(), "bits", bits, 1, 8);
  config.stored_bits = config.bits = bits;
  config.is_signed = is_signed;
  config.mask_on_rounded = parse_mask_on(config.op(), mask_on);
  return quantize_with_step(x, scale, offset, config);
}

}  // namespace

// Composite: it parses and casts; the casts carry gradients.
TORCH_LIBRARY_IMPL(quintil, CompositeImplicitAutograd, m) {
  m.impl("lsq_quantize", lsq_quantize);
}

}  // namespace quintil::ops
