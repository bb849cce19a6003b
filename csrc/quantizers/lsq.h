// A quantiser that learns its step, and an offset where it has one: LSQ and LSQ+ [DR D10, D11, D13]. Weights at a lower
// width than the stored one are the same with z rounded twice [DR D3, D6, D7].
#pragma once

#include "csrc/core/types.h"
#include "csrc/quantizers/double_rounding.h"

namespace quintil {

inline float scaled_difference(float x, const StepGrid& grid) {
  return (x - grid.offset) / grid.divisor;
}

// [D3, D10, D13]
inline float on_grid(float x, const StepGrid& grid) {
  const float t = rounded_on_grid(scaled_difference(x, grid), grid);
  return clamped(t, grid.lo, grid.top) * grid.step + grid.offset;
}

// What one element adds to the gradients, before the factor that all share. A NaN lies inside: it reaches the step.
struct StepTerms {
  float dx;
  double step;
  double offset;
};

// [D6, D7, D11, D13] u = x in units of the step of y. Inside the grid dx = g and the step receives g (q - u), outside
// it g lo or g hi and the offset g. Straight through the roundings.
inline StepTerms step_terms(float x, float g, const StepGrid& grid) {
  const float z = scaled_difference(x, grid), u = z * grid.shrink, t = rounded_on_grid(z, grid);
  const float tested = grid.mask_on_rounded ? t : u;
  const bool below = tested<grid.lo, above = tested> grid.hi;
  const float q =
      grid.single_residual ? clamped(rounded(u, grid.rounding), grid.lo, grid.hi) : clamped(t, grid.lo, grid.top);
  const float slope = below ? grid.lo : above ? grid.hi : q - u;
  const bool outside = below || above;
  return {outside ? 0.0f : g, static_cast<double>(g) * static_cast<double>(slope),
          outside ? static_cast<double>(g) : 0.0};
}

}  // namespace quintil
