// Time steps of recurrent layers, once their products are made [VECQ V10].
#include "csrc/quantizers/recurrent.h"

#include "csrc/kernels/scalar/kernels.h"

namespace quintil::kernels::scalar {

void lstm_cell_f32(const float* low, const float* high, const float* part, int64_t rows, int64_t hidden, float* cell,
                   float* state) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t j = 0; j < hidden; ++j) {
      const auto gate = [&](int64_t which) {
        const int64_t i = (4 * r + which) * hidden + j;
        return (low[i] + high[i] * 256.0f) + part[i];
      };
      const int64_t i = r * hidden + j;
      const float kept = logistic(gate(1)) * cell[i], added = logistic(gate(0)) * hyperbolic_tangent(gate(2));
      cell[i] = kept + added;
      state[i] = logistic(gate(3)) * hyperbolic_tangent(cell[i]);
    }
  }
}

void gru_cell_f32(const float* low, const float* high, const float* bias, const float* part, int64_t rows,
                  int64_t hidden, const float* state, float* out) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t j = 0; j < hidden; ++j) {
      const auto of_input = [&](int64_t which) { return part[(3 * r + which) * hidden + j]; };
      const auto of_state = [&](int64_t which) {
        const int64_t i = (3 * r + which) * hidden + j;
        return (low[i] + high[i] * 256.0f) + bias[which * hidden + j];
      };
      const float reset = logistic(of_input(0) + of_state(0)), update = logistic(of_input(1) + of_state(1));
      const float fresh = hyperbolic_tangent(of_input(2) + reset * of_state(2));
      const int64_t i = r * hidden + j;
      out[i] = fresh + update * (state[i] - fresh);
    }
  }
}

}  // namespace quintil::kernels::scalar
