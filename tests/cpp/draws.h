// Test data that is the same on every machine, and the binomial judgement of a random rounding.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace quintil::test {

// splitmix64: unlike std::uniform_*_distribution it gives the same numbers with every standard library.
class Draws {
 public:
  explicit Draws(uint64_t seed) : state_(seed) {}

  uint64_t next() {
    uint64_t z = state_ += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
  }

  int64_t between(int64_t lo, int64_t hi) {  // both ends included
    return lo + static_cast<int64_t>(next() % static_cast<uint64_t>(hi - lo + 1));
  }

  float uniform() { return static_cast<float>(next() >> 40) * 0x1p-24f; }  // [0, 1)

  // Bell-shaped, about unit variance, with tails to +-6.
  float bell() {
    float sum = -6.0f;
    for (int i = 0; i < 12; ++i) sum += uniform();
    return sum;
  }

  template <class T>
  std::vector<T> integers(int64_t n, int64_t lo, int64_t hi) {
    std::vector<T> values(static_cast<size_t>(n));
    for (T& value : values) value = static_cast<T>(between(lo, hi));
    return values;
  }

  // Bell-shaped floats of the given size; one in `rarity` is a special value (0: none).
  std::vector<float> floats(int64_t n, float size, int64_t rarity = 0) {
    using limits = std::numeric_limits<float>;
    const float specials[] = {0.0f,
                              -0.0f,
                              limits::infinity(),
                              -limits::infinity(),
                              limits::quiet_NaN(),
                              limits::denorm_min(),
                              -limits::denorm_min(),
                              limits::max(),
                              limits::lowest(),
                              limits::min(),
                              0x1p-126f * 0.75f};
    std::vector<float> values(static_cast<size_t>(n));
    for (float& value : values) {
      const bool special = rarity > 0 && between(1, rarity) == 1;
      value = special ? specials[between(0, std::size(specials) - 1)] : size * bell();
    }
    return values;
  }

 private:
  uint64_t state_;
};

// Whether `ups` of n draws fit the probability p within 5 standard deviations and the stated bias.
inline bool within_five_sigma(int64_t ups, int64_t n, double p, double bias) {
  const double observed = static_cast<double>(ups) / static_cast<double>(n);
  return std::fabs(observed - p) <= 5 * std::sqrt(p * (1 - p) / static_cast<double>(n)) + bias;
}

}  // namespace quintil::test
