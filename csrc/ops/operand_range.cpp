#include "csrc/ops/operand_range.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

#include "csrc/kernels/dispatch.h"
#include "csrc/ops/code_matrix.h"
#include "csrc/ops/groups.h"
#include "csrc/quantizers/uniform.h"

namespace quintil::ops {

namespace {

double sum_of_squares(const float* x, int64_t n) {
  const Groups whole(n, 1);
  std::vector<double> parts(static_cast<size_t>(whole.chunks));
  whole.for_each_chunk([&](int64_t, int64_t first, int64_t count, int64_t chunk) {
    parts[static_cast<size_t>(chunk)] = kernels::active().moments_f32(x + first, count, 0.0f).squares;
  });
  return whole.total(parts, 0, 0.0, [](double& total, double part) { total += part; });
}

}  // namespace

AbsMax operand_range(const float* x, int64_t n, RangeRule rule) {
  AbsMax range = absmax(x, n);
  if (range.bits >= kInfinityBits) return range;
  float most = rule.fraction * std::bit_cast<float>(range.bits);
  if (rule.rms > 0 && n > 0) {
    most = std::min(most, static_cast<float>(rule.rms * std::sqrt(sum_of_squares(x, n) / static_cast<double>(n))));
  }
  range.bits = std::bit_cast<uint32_t>(most);
  return range;
}

}  // namespace quintil::ops
