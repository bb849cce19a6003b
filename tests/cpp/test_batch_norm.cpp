// Batch normalisation of integer sums: every instruction set gives the bits of the definition written here once more,
// element by element in double where one float operation rounds once.
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "csrc/kernels/dispatch.h"
#include "tests/cpp/catch.h"
#include "tests/cpp/draws.h"
#include "tests/cpp/guarded.h"
#include "tests/cpp/shapes.h"

namespace quintil {
namespace {

using test::Guarded;

float plus(float a, float b) {
  return static_cast<float>(static_cast<double>(a) + static_cast<double>(b));
}
float times(float a, float b) {
  return static_cast<float>(static_cast<double>(a) * static_cast<double>(b));
}

// The data of one case; `gap` as in Guarded.
struct Case {
  int64_t rows, cols, mask_bytes;
  std::vector<int16_t> x;
  std::vector<float> grad, residual, scale, shift, mean_grad, mean_product, gain;
  std::vector<uint8_t> positive;

  Case(test::Draws& draws, int64_t r, int64_t c) : rows(r), cols(c), mask_bytes((c + 7) / 8) {
    for (int64_t i = 0; i < r * c; ++i) x.push_back(static_cast<int16_t>(draws.between(-32767, 32767)));
    grad = draws.floats(r * c, 4.0f, 30);
    residual = draws.floats(r * c, 100.0f, 30);
    for (auto* v : {&scale, &shift, &mean_grad, &mean_product, &gain}) *v = draws.floats(c, 1.0f, 0);
    for (int64_t i = 0; i < r * mask_bytes; ++i) positive.push_back(static_cast<uint8_t>(draws.between(0, 255)));
  }
  bool passes(int64_t r, int64_t c) const {
    return (positive[static_cast<size_t>(r * mask_bytes + c / 8)] >> c % 8 & 1) != 0;
  }
  float normalised(int64_t i) const {
    const auto c = static_cast<size_t>(i % cols);
    return plus(times(static_cast<float>(x[static_cast<size_t>(i)]), scale[c]), shift[c]);
  }
  NormBackward backward() const {
    return {scale.data(), shift.data(), mean_grad.data(), mean_product.data(), gain.data()};
  }
};

// Calls f(kernels, case, gap) for every instruction set and size.
template <class F>
void for_all(F f) {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      test::Draws draws(7);
      for (const test::Matrix& m : test::flattened(test::matrix_groups())) {
        for (int64_t gap : test::gaps()) {
          CAPTURE(m.rows, m.cols, gap);
          f(*kernels::table(isa), Case(draws, m.rows, m.cols), gap);
        }
      }
    }
  }
}

TEST_CASE("narrow_s32s16_moments copies and adds exact moments to what is there") {
  for_all([](const kernels::KernelTable& k, const Case& data, int64_t gap) {
    const std::vector<int32_t> wide(data.x.begin(), data.x.end());
    const Guarded<int32_t> x(wide, gap);
    Guarded<int16_t> out(data.rows * data.cols, gap);
    std::vector<int64_t> sums(static_cast<size_t>(data.cols), 5), squares(static_cast<size_t>(data.cols), -7);
    const Guarded<int64_t> start_sums(sums, gap), start_squares(squares, gap);
    Guarded<int64_t> got_sums(sums, gap), got_squares(squares, gap);
    for (size_t i = 0; i < wide.size(); ++i) {
      sums[i % static_cast<size_t>(data.cols)] += wide[i];
      squares[i % static_cast<size_t>(data.cols)] += int64_t{wide[i]} * wide[i];
    }
    k.narrow_s32s16_moments(x.data(), data.rows, data.cols, out.data(), got_sums.data(), got_squares.data());
    CHECK(test::first_difference(out, data.x) == -1);
    CHECK(test::first_difference(got_sums, sums) == -1);
    CHECK(test::first_difference(got_squares, squares) == -1);
    CHECK((out.intact() && got_sums.intact() && got_squares.intact()));
  });
}

TEST_CASE("batch_norm_s16f32 scales, shifts, adds the residual and cuts at 0") {
  for_all([](const kernels::KernelTable& k, const Case& data, int64_t gap) {
    const Guarded<int16_t> x(data.x, gap);
    const Guarded<float> residual(data.residual, gap), scale(data.scale, gap), shift(data.shift, gap);
    for (int mode = 0; mode < 4; ++mode) {
      const bool relu = (mode & 1) != 0, adds = (mode & 2) != 0;
      std::vector<float> expected;
      std::vector<uint8_t> mask(data.positive.size(), 0);
      for (int64_t i = 0; i < data.rows * data.cols; ++i) {
        float z = data.normalised(i);
        if (adds) z = plus(z, data.residual[static_cast<size_t>(i)]);
        const int64_t c = i % data.cols;
        if (!(z <= 0.0f))
          mask[static_cast<size_t>(i / data.cols * data.mask_bytes + c / 8)] |= static_cast<uint8_t>(1 << c % 8);
        expected.push_back(relu && z < 0.0f ? 0.0f : z);
      }
      Guarded<float> y(data.rows * data.cols, gap);
      Guarded<uint8_t> positive(static_cast<int64_t>(mask.size()), gap);
      k.batch_norm_s16f32(x.data(), data.rows, data.cols,
                          {scale.data(), shift.data(), adds ? residual.data() : nullptr, relu}, y.data(),
                          relu ? positive.data() : nullptr);
      CAPTURE(relu, adds);
      CHECK(test::first_difference(y, expected) == -1);
      if (relu) CHECK(test::first_difference(positive, mask) == -1);
      CHECK((y.intact() && positive.intact()));
    }
  });
}

TEST_CASE("batch_norm_sums_s16f32 adds rows in ascending order to what is there") {
  for_all([](const kernels::KernelTable& k, const Case& data, int64_t gap) {
    const Guarded<int16_t> x(data.x, gap);
    const Guarded<float> grad(data.grad, gap);
    const Guarded<uint8_t> positive(data.positive, gap);
    for (const bool masked : {false, true}) {
      std::vector<float> sums(static_cast<size_t>(data.cols), 0.5f), products(sums.size(), -2.0f);
      Guarded<float> got_sums(sums, gap), got_products(products, gap);
      for (int64_t i = 0; i < data.rows * data.cols; ++i) {
        const auto c = static_cast<size_t>(i % data.cols);
        const float g = !masked || data.passes(i / data.cols, i % data.cols) ? data.grad[static_cast<size_t>(i)] : 0.0f;
        sums[c] = plus(sums[c], g);
        products[c] = plus(products[c], times(g, data.normalised(i)));
      }
      k.batch_norm_sums_s16f32(x.data(), grad.data(), masked ? positive.data() : nullptr, data.rows, data.cols,
                               data.backward(), got_sums.data(), got_products.data());
      CAPTURE(masked);
      CHECK(test::first_difference(got_sums, sums) == -1);
      CHECK(test::first_difference(got_products, products) == -1);
      CHECK((got_sums.intact() && got_products.intact()));
    }
  });
}

TEST_CASE("batch_norm_grad_s16f32 takes the means off and scales") {
  for_all([](const kernels::KernelTable& k, const Case& data, int64_t gap) {
    const Guarded<int16_t> x(data.x, gap);
    const Guarded<float> grad(data.grad, gap);
    const Guarded<uint8_t> positive(data.positive, gap);
    for (const bool masked : {false, true}) {
      std::vector<float> expected, passed;
      for (int64_t i = 0; i < data.rows * data.cols; ++i) {
        const auto c = static_cast<size_t>(i % data.cols);
        const float g = !masked || data.passes(i / data.cols, i % data.cols) ? data.grad[static_cast<size_t>(i)] : 0.0f;
        const float centred = plus(g, -data.mean_grad[c]);
        expected.push_back(times(plus(centred, -times(data.normalised(i), data.mean_product[c])), data.gain[c]));
        passed.push_back(g);
      }
      Guarded<float> dx(data.rows * data.cols, gap), masked_grad(data.rows * data.cols, gap);
      k.batch_norm_grad_s16f32(x.data(), grad.data(), masked ? positive.data() : nullptr, data.rows, data.cols,
                               data.backward(), dx.data(), masked ? masked_grad.data() : nullptr);
      CAPTURE(masked);
      CHECK(test::first_difference(dx, expected) == -1);
      if (masked) CHECK(test::first_difference(masked_grad, passed) == -1);
      CHECK((dx.intact() && masked_grad.intact()));
    }
  });
}

TEST_CASE("a NaN passes the ReLU and its mask, -0 stays, the gradient of 0 stops") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      const float nan = std::numeric_limits<float>::quiet_NaN();
      const std::vector<int16_t> x(9, 0);
      std::vector<float> scale(9, 1.0f);
      scale[1] = -1.0f;
      const std::vector<float> shift = {nan, -0.0f, 0.0f, 1.0f, -1.0f, nan, 2.0f, -2.0f, 3.0f};
      Guarded<float> y(9);
      Guarded<uint8_t> positive(2);
      kernels::table(isa)->batch_norm_s16f32(x.data(), 1, 9, {scale.data(), shift.data(), nullptr, true}, y.data(),
                                             positive.data());
      CHECK(test::first_difference(y, std::vector<float>{nan, -0.0f, 0.0f, 1.0f, 0.0f, nan, 2.0f, 0.0f, 3.0f}) == -1);
      CHECK((positive[0] == 0b01101001 && positive[1] == 1));
    }
  }
}

}  // namespace
}  // namespace quintil
