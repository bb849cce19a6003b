// Training from C++ alone: an MLP 64-128-64-10 learns handwritten digits through hadamard_linear, autograd and SGD with
// momentum; the same seed, and any number of threads, ends in the same bits.
//
// digits_subset.bin: the first 512 samples of the "Optical Recognition of Handwritten Digits" (E. Alpaydin, C. Kaynak,
// UCI Machine Learning Repository, CC BY 4.0) in the order of scikit-learn's load_digits. 65 bytes a sample, no header:
// 64 pixels 0..16, row by row of the 8 x 8 image, then the label 0..9. Written by
//   numpy.c_[digits.data[:512], digits.target[:512]].astype("uint8").tofile("digits_subset.bin")
#include "csrc/quintil.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <numeric>
#include <vector>

#include "tests/cpp/catch.h"

namespace quintil {
namespace {

constexpr int64_t kPixels = 64;

struct Digits {
  at::Tensor x, y;  // float32 [n, 64] in 0..1, int64 [n]
};

Digits read_digits() {
  std::ifstream file(QUINTIL_TEST_DATA "/digits_subset.bin", std::ios::binary);
  const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
  const int64_t n = static_cast<int64_t>(bytes.size()) / (kPixels + 1);
  Digits digits{at::empty({n, kPixels}), at::empty({n}, at::kLong)};
  for (int64_t i = 0; i < n; ++i) {
    const char* sample = bytes.data() + i * (kPixels + 1);
    for (int64_t j = 0; j < kPixels; ++j) {
      digits.x.mutable_data_ptr<float>()[i * kPixels + j] = static_cast<float>(sample[j]) / 16;
    }
    digits.y.mutable_data_ptr<int64_t>()[i] = sample[kPixels];
  }
  return digits;
}

class Mlp {
 public:
  Mlp() {
    const int64_t widths[] = {kPixels, 128, 64, 10};
    for (int layer = 0; layer < 3; ++layer) {
      const int64_t k = widths[layer], n = widths[layer + 1];
      const double bound = std::sqrt(6.0 / static_cast<double>(k));
      parameters.push_back(at::rand({n, k}).sub_(0.5).mul_(2 * bound).requires_grad_());
      parameters.push_back(at::zeros({n}).requires_grad_());
    }
  }

  at::Tensor operator()(at::Tensor x) const {
    for (size_t i = 0; i < parameters.size(); i += 2) {
      x = hadamard_linear(i == 0 ? x : x.relu(), parameters[i], parameters[i + 1], {}, draw_seed());
    }
    return x;
  }

  std::vector<at::Tensor> parameters;  // weight, bias, weight, ...
};

class Sgd {
 public:
  explicit Sgd(std::vector<at::Tensor>& parameters) : parameters_(parameters) {
    for (const at::Tensor& p : parameters_) momenta_.push_back(at::zeros_like(p));
  }

  void step(double rate) {
    const at::NoGradGuard no_grad;
    for (size_t i = 0; i < parameters_.size(); ++i) {
      at::Tensor& p = parameters_[i];
      p.sub_(momenta_[i].mul_(0.9).add_(p.grad()).mul(rate));
      p.mutable_grad().reset();
    }
  }

 private:
  std::vector<at::Tensor>& parameters_;
  std::vector<at::Tensor> momenta_;
};

struct Run {
  Mlp net;
  std::vector<double> losses;
};

Run train(const Digits& digits, uint64_t seed, int64_t steps, int64_t batch) {
  at::manual_seed(seed);
  Run run;
  Sgd sgd(run.net.parameters);
  for (int64_t step = 0; step < steps; ++step) {
    const int64_t first = step * batch % digits.x.size(0);
    const at::Tensor x = digits.x.narrow(0, first, batch), y = digits.y.narrow(0, first, batch);
    const at::Tensor loss = at::cross_entropy_loss(run.net(x), y);
    loss.backward();
    sgd.step(0.03);
    run.losses.push_back(loss.item<double>());
  }
  return run;
}

double accuracy(const Mlp& net, const Digits& digits) {
  const at::NoGradGuard no_grad;
  return net(digits.x).argmax(1).eq(digits.y).sum().item<double>() / static_cast<double>(digits.y.size(0));
}

bool same_bits(const Run& a, const Run& b) {
  for (size_t i = 0; i < a.net.parameters.size(); ++i) {
    const at::Tensor &p = a.net.parameters[i], &q = b.net.parameters[i];
    if (std::memcmp(p.const_data_ptr(), q.const_data_ptr(), p.nbytes()) != 0) return false;
  }
  return a.losses == b.losses;
}

TEST_CASE("an MLP learns digits on integer products") {
  const Digits digits = read_digits();
  REQUIRE(digits.x.size(0) == 512);
  const double before = accuracy(train(digits, 1, 0, 128).net, digits);
  const Run run = train(digits, 1, 80, 128);
  const double after = accuracy(run.net, digits);
  const double last_ten = std::accumulate(run.losses.end() - 10, run.losses.end(), 0.0) / 10;
  CAPTURE(before, after, run.losses.front(), last_ten);
  CHECK(before < 0.3);
  CHECK(after > 0.9);
  CHECK(last_ten < 0.3 * run.losses.front());
}

TEST_CASE("one seed trains to one set of weights") {
  const Digits digits = read_digits();
  const Run run = train(digits, 2, 12, 128);
  CHECK(same_bits(run, train(digits, 2, 12, 128)));
  CHECK(!same_bits(run, train(digits, 3, 12, 128)));
}

// 512 rows at once: enough work for the products and the quantisers to be split.
TEST_CASE("the number of threads does not change a bit") {
  const Digits digits = read_digits();
  const int before = at::get_num_threads();
  at::set_num_threads(1);
  const Run one = train(digits, 4, 6, 512);
  for (const int threads : {2, 3}) {
    at::set_num_threads(threads);
    CAPTURE(threads);
    CHECK(at::get_num_threads() == threads);
    CHECK(same_bits(train(digits, 4, 6, 512), one));
  }
  at::set_num_threads(before);
}

}  // namespace
}  // namespace quintil
