#include "csrc/ops/operand_range.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <vector>

#include "csrc/kernels/dispatch.h"
#include "csrc/ops/code_matrix.h"
#include "csrc/ops/groups.h"
#include "csrc/quantizers/uniform.h"

namespace quintil::ops {

double sum_of_squares(const float* x, int64_t n) {
  const Groups whole(n, 1);
  std::vector<double> parts(static_cast<size_t>(whole.chunks));
  whole.for_each_chunk([&](int64_t, int64_t first, int64_t count, int64_t chunk) {
    parts[static_cast<size_t>(chunk)] = kernels::active().moments_f32(x + first, count, 0.0f).squares;
  });
  return whole.total(parts, 0, 0.0, [](double& total, double part) { total += part; });
}

double sum_of_squares(const int16_t* x, int64_t n) {
  const int64_t total = at::parallel_reduce(
      0, n, int64_t{1} << 15, int64_t{0},
      [&](int64_t begin, int64_t end, int64_t sum) {
        for (int64_t i = begin; i < end; ++i) sum += int32_t{x[i]} * int32_t{x[i]};
        return sum;
      },
      std::plus<>());
  return static_cast<double>(total);
}

AbsMax bounded_range(AbsMax range, double squares, int64_t n, double rms) {
  if (rms == 0 || n == 0 || range.bits >= kInfinityBits) return range;
  const auto most = static_cast<float>(rms * std::sqrt(squares / static_cast<double>(n)));
  return {std::bit_cast<uint32_t>(std::min(std::bit_cast<float>(range.bits), most)), range.negative};
}

AbsMax operand_range(const float* x, int64_t n, RangeRule rule) {
  AbsMax range = absmax(x, n);
  if (range.bits >= kInfinityBits) return range;
  range.bits = std::bit_cast<uint32_t>(rule.fraction * std::bit_cast<float>(range.bits));
  return rule.rms == 0 ? range : bounded_range(range, sum_of_squares(x, n), n, rule.rms);
}

}  // namespace quintil::ops
