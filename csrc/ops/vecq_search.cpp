// Magnitudes are sorted once. A level i - 1/2 becomes i + 1/2 where a magnitude reaches i steps, so that with N_i of them
// there, of sum S_i,  <v,x> = S_0 / 2 + SUM S_i  and  <v,v> = N_0 / 4 + SUM 2 i N_i,  i = 1 .. 2^(bits-1)-1:
// a binary search for every level instead of a pass over the data for every step. All in double and in one order.
#include "csrc/ops/vecq_search.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <vector>

namespace quintil::ops {

namespace {

constexpr double kLeast = 0.3, kMost = 2.5, kSpacing = 0.05;  // in units of the given step
// uL2Q's factors of the deviation over those of the table, 2 to 8 bits [VECQ V14, V5].
constexpr double kPredecessor[] = {0.9952900854 / 0.9957, 0.5872211504 / 0.5860, 0.3358904980 / 0.3352,
                                   0.1894424409 / 0.1881, 0.1057087704 / 0.1041, 0.0570827360 / 0.0569,
                                   0.0304821810 / 0.0308};
constexpr double kGolden = 0.6180339887498949;
constexpr int kSections = 40;

// Ascending. Floats that are not negative have the order of their bits; three rounds of 11 bits.
std::vector<float> sorted_magnitudes(const float* x, int64_t n) {
  std::vector<uint32_t> from(static_cast<size_t>(n)), to(from.size());
  for (size_t i = 0; i < from.size(); ++i) from[i] = std::bit_cast<uint32_t>(std::fabs(x[i]));
  for (int shift = 0; shift < 33; shift += 11) {
    std::array<size_t, 2049> start{};
    for (const uint32_t bits : from) ++start[(bits >> shift & 2047u) + 1];
    for (size_t i = 1; i < start.size(); ++i) start[i] += start[i - 1];
    for (const uint32_t bits : from) to[start[bits >> shift & 2047u]++] = bits;
    std::swap(from, to);
  }
  std::vector<float> sorted(from.size());
  std::transform(from.begin(), from.end(), sorted.begin(), [](uint32_t bits) { return std::bit_cast<float>(bits); });
  return sorted;
}

class Orientation {
 public:
  Orientation(const float* x, int64_t n, int64_t bits)
      : sorted_(sorted_magnitudes(x, n)), sums_(sorted_.size() + 1), levels_(int64_t{1} << (bits - 1)) {
    for (size_t i = sorted_.size(); i > 0; --i) sums_[i - 1] = sums_[i] + static_cast<double>(sorted_[i - 1]);
  }

  // 2^bits levels from the smallest to the largest of magnitudes of both signs.
  double step_to_largest() const { return static_cast<double>(sorted_.back()) / (static_cast<double>(levels_) - 0.5); }

  // Where LSQ starts [DR D12].
  double step_of_mean() const {
    return 2 * sums_[0] / static_cast<double>(sorted_.size()) / std::sqrt(static_cast<double>(levels_ - 1));
  }

  // <v,x>^2 / <v,v>, which grows with the cosine.
  double score(float step) const {
    double vx = sums_[0] / 2, vv = static_cast<double>(sorted_.size()) / 4;
    auto reached = sorted_.begin();
    for (int64_t i = 1; i < levels_; ++i) {
      const double threshold = static_cast<double>(i) * static_cast<double>(step);
      reached = std::lower_bound(reached, sorted_.end(), threshold);
      if (reached == sorted_.end()) break;
      vx += sums_[static_cast<size_t>(reached - sorted_.begin())];
      vv += 2 * static_cast<double>(i) * static_cast<double>(sorted_.end() - reached);
    }
    return vx * vx / vv;
  }

 private:
  std::vector<float> sorted_;
  std::vector<double> sums_;  // of the magnitudes from here on
  int64_t levels_;            // magnitudes of levels
};

struct Candidate {
  float step;
  double score;
};

}  // namespace

float searched_step(const float* x, int64_t n, int64_t bits, float step) {
  if (n == 0 || bits == 1 || !std::isfinite(step)) return step;
  const Orientation orientation(x, n, bits);
  Candidate best{step, orientation.score(step)};
  const auto tried = [&](double factor) {
    const auto candidate = static_cast<float>(factor * static_cast<double>(step));
    const double score = orientation.score(candidate);
    if (score > best.score) best = {candidate, score};
    return score;
  };
  // The closed forms of others: no step of theirs is better. The first two are far from the grid where a few numbers are
  // far out.
  for (const double other : {orientation.step_to_largest(), orientation.step_of_mean()}) {
    if (other > 0) tried(other / static_cast<double>(step));
  }
  if (bits <= 8) tried(kPredecessor[bits - 2]);
  for (int i = 0; kLeast + i * kSpacing < kMost + kSpacing / 2; ++i) tried(kLeast + i * kSpacing);
  const double centre = static_cast<double>(best.step) / static_cast<double>(step);
  double low = centre - kSpacing, high = centre + kSpacing;
  double left = high - kGolden * (high - low), right = low + kGolden * (high - low);
  double left_score = tried(left), right_score = tried(right);
  for (int i = 0; i < kSections; ++i) {
    if (left_score >= right_score) {
      high = right, right = left, right_score = left_score;
      left_score = tried(left = high - kGolden * (high - low));
    } else {
      low = left, left = right, left_score = right_score;
      right_score = tried(right = low + kGolden * (high - low));
    }
  }
  return best.step;
}

}  // namespace quintil::ops
