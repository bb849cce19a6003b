#include "csrc/ops/vecq.h"

#include <ATen/ATen.h>

#include "csrc/kernels/dispatch.h"
#include "csrc/ops/check.h"
#include "csrc/quantizers/vecq.h"

namespace quintil::ops {

using at::Tensor;

void check_levels(const char* op, const char* name, const Tensor& x, const Tensor& steps) {
  const bool by_channel = steps.dim() >= 1 && x.dim() >= 1 && steps.sym_size(0) == x.sym_size(0);
  TORCH_CHECK_VALUE(steps.dim() == 0 || (by_channel && steps.dim() <= 2), op, ": expected ", name,
                    " to be 0-dim or to hold one value, or a row of values, per x.size(0), got ", steps.sym_sizes(),
                    " (x is ", x.sym_sizes(), ")");
  if (steps.dim() < 2) return;
  const c10::SymInt elements = x.sym_numel(), runs = steps.sym_numel();
  TORCH_CHECK_VALUE(runs == 0 ? elements == 0 : elements % runs == 0, op, ": expected ", name,
                    ".size(1) to divide the elements of x[0], got ", steps.sym_size(1), " (x is ", x.sym_sizes(), ")");
}

at::MemoryFormat level_format(const Tensor& x, const Tensor& steps) {
  return steps.dim() == 2 ? at::MemoryFormat::Contiguous : x.suggest_memory_format();
}

at::ScalarType code_type(int64_t bits) {
  return bits <= 8 ? at::kChar : at::kShort;
}

std::vector<LevelSums> steer(const float* data, const Groups& groups, const float* steps, int64_t bits, Tensor& codes) {
  std::vector<LevelSums> parts(static_cast<size_t>(groups.count * groups.chunks));
  void* out = codes.mutable_data_ptr();
  groups.for_each_chunk([&](int64_t group, int64_t first, int64_t n, int64_t chunk) {
    const LevelGrid grid = level_grid(steps[group], bits);
    const kernels::KernelTable& k = kernels::active();
    parts[static_cast<size_t>(chunk)] = bits <= 8
                                            ? k.steer_f32s8(data + first, n, grid, static_cast<int8_t*>(out) + first)
                                            : k.steer_f32s16(data + first, n, grid, static_cast<int16_t*>(out) + first);
  });
  return parts;
}

}  // namespace quintil::ops
