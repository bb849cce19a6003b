// Half-integer levels, and the sums that their step and length come from [VECQ V3-V9].
#include "csrc/quantizers/vecq.h"

#include <algorithm>

#include "csrc/core/reduce.h"
#include "csrc/kernels/scalar/kernels.h"

namespace quintil::kernels::scalar {

namespace {

template <class Code>
LevelSums steer(const float* x, int64_t n, const LevelGrid& grid, Code* codes) {
  Partials vx, vv, xx;
  auto least = static_cast<int32_t>(grid.hi), most = static_cast<int32_t>(grid.lo);
  for (int64_t i = 0; i < n; ++i) {
    const float level = level_of(x[i], grid);
    const int32_t code = level_code(level);
    const double v = level, number = x[i];
    codes[i] = static_cast<Code>(code);
    vx.add(i, v * number);
    vv.add(i, v * v);
    xx.add(i, number * number);
    least = std::min(least, code);
    most = std::max(most, code);
  }
  return {vx.total(), vv.total(), xx.total(), least, most};
}

}  // namespace

Moments moments_f32(const float* x, int64_t n, float pivot) {
  Partials sum, squares;
  for (int64_t i = 0; i < n; ++i) {
    const double d = static_cast<double>(x[i]) - static_cast<double>(pivot);
    sum.add(i, d);
    squares.add(i, d * d);
  }
  return {sum.total(), squares.total()};
}

LevelSums steer_f32s8(const float* x, int64_t n, const LevelGrid& grid, int8_t* codes) {
  return steer(x, n, grid, codes);
}
LevelSums steer_f32s16(const float* x, int64_t n, const LevelGrid& grid, int16_t* codes) {
  return steer(x, n, grid, codes);
}

void drive_f32f32(const float* x, int64_t n, const LevelGrid& grid, const LevelValue& value, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = level_value(x[i], grid, value);
}

PairSums compare_f32f32(const float* x, const float* y, int64_t n) {
  Partials xy, yy, xx, error;
  for (int64_t i = 0; i < n; ++i) {
    const double a = x[i], b = y[i];
    xy.add(i, a * b);
    yy.add(i, b * b);
    xx.add(i, a * a);
    error.add(i, (a - b) * (a - b));
  }
  return {xy.total(), yy.total(), xx.total(), error.total()};
}

}  // namespace quintil::kernels::scalar
