// Quantisers with a given step and the gradients of that step [DR D1-D8, D10-D13].
#include "csrc/quantizers/lsq.h"
#include "csrc/core/reduce.h"
#include "csrc/kernels/scalar/kernels.h"

namespace quintil::kernels::scalar {

void lsq_f32f32(const float* x, int64_t n, const StepGrid& grid, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = on_grid(x[i], grid);
}

StepSums lsq_f32f32f32_backward(const float* x, const float* grad, int64_t n, const StepGrid& grid, float* dx) {
  Partials step, offset;
  for (int64_t i = 0; i < n; ++i) {
    const StepTerms terms = step_terms(x[i], grad[i], grid);
    dx[i] = terms.dx;
    step.add(i, terms.step);
    offset.add(i, terms.offset);
  }
  return {step.total(), offset.total()};
}

}  // namespace quintil::kernels::scalar
