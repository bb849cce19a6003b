// Autocast on the CPU, one rule for every op that takes real numbers: its tensors are cast to float32, so that a region of
// bfloat16 or float16 quantises the same numbers as one without. Integer tensors and undefined ones pass unchanged.
#include <ATen/ATen.h>
#include <torch/library.h>

namespace quintil::autograd {

namespace {

void in_float32(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::DispatchKey::AutocastCPU);
  const size_t count = op.schema().arguments().size();
  for (size_t i = stack->size() - count; i < stack->size(); ++i) {
    c10::IValue& value = (*stack)[i];
    if (!value.isTensor()) continue;
    const at::Tensor& tensor = value.toTensor();
    if (tensor.defined() && tensor.is_floating_point()) value = tensor.to(at::kFloat);
  }
  op.callBoxed(stack);
}

}  // namespace

TORCH_LIBRARY_IMPL(quintil, AutocastCPU, m) {
  for (const char* op :
       {"quantize", "hadamard_transform", "hadamard_linear", "hadamard_conv2d", "hadamard_conv2d_batch_norm",
        "lsq_quantize", "double_round_quantize", "vecq_step", "vecq_quantize", "vecq_codes", "vecq_activation",
        "vecq_losses", "luq_quantize", "luq_codes", "sawb_clip", "minifloat_quantize"}) {
    m.impl(op, torch::CppFunction::makeFromBoxedFunction<in_float32>());
  }
}

}  // namespace quintil::autograd
