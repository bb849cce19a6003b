// minifloat_quantize: floats whose significands are a list, at a given integer scale [HDQT H18, H19, H22].
#include <ATen/ATen.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "csrc/kernels/dispatch.h"
#include "csrc/ops/check.h"
#include "csrc/ops/code_matrix.h"
#include "csrc/ops/draw_rows.h"
#include "csrc/ops/groups.h"
#include "csrc/quantizers/minifloat.h"

namespace quintil::ops {

namespace {

using at::Tensor;
using std::optional;

constexpr const char* kOp = "minifloat_quantize";
constexpr int64_t kMostBinades = 128;
constexpr int64_t kHighest = 126, kLowestStep = -126;  // exponents of float32

void check_forward(const Tensor& x, at::IntArrayRef bits, const Tensor& exponent, const optional<c10::SymInt>& seed,
                   const optional<Tensor>& previous) {
  check_dtype(kOp, "x", x, at::kFloat);
  check_range(kOp, "the length of significand_bits", static_cast<int64_t>(bits.size()), 1, kMostBinades);
  for (size_t i = 0; i < bits.size(); ++i) check_range(kOp, "significand_bits", bits[i], i == 0 ? 1 : 0, 24);
  TORCH_CHECK_TYPE(exponent.scalar_type() == at::kInt || exponent.scalar_type() == at::kLong, kOp,
                   ": expected exponent to be int32 or int64, got ", exponent.scalar_type());
  TORCH_CHECK_VALUE(
      exponent.dim() == 0 || (exponent.dim() == 1 && x.dim() >= 1 && exponent.sym_size(0) == x.sym_size(0)), kOp,
      ": expected exponent to be 0-dim or to hold one value per x.size(0), got ", exponent.sym_sizes(), " (x is ",
      x.sym_sizes(), ")");
  check_seed_value(kOp, seed);
  if (!previous) return;
  check_dtype(kOp, "previous", *previous, at::kFloat);
  TORCH_CHECK_VALUE(previous->sym_sizes() == x.sym_sizes(), kOp, ": expected previous to have the sizes of x, got ",
                    previous->sym_sizes(), " and ", x.sym_sizes());
  TORCH_CHECK_VALUE(!seed, kOp, ": expected seed to be None where previous is given, got an integer");
}

// Steps of one scale; at another they are multiplied by a power of two.
class Format {
 public:
  explicit Format(at::IntArrayRef bits) : bits_(bits) {
    int64_t deepest = 0;
    for (size_t d = 0; d < bits.size(); ++d) deepest = std::max(deepest, static_cast<int64_t>(d) + bits[d]);
    lowest_ = kLowestStep - 1 + deepest;
  }

  // All steps must be normal numbers.
  void check_exponents(const int64_t* exponents, int64_t count) const {
    for (int64_t i = 0; i < count; ++i) check_range(kOp, "exponent", exponents[i], lowest_, kHighest);
  }

  // [H19] Valid until the next call.
  MinifloatGrid at(int64_t exponent) {
    const auto e = static_cast<int>(exponent);
    steps_.resize(bits_.size());
    inverses_.resize(bits_.size());
    for (size_t d = 0; d < bits_.size(); ++d) {
      const int step = e + 1 - static_cast<int>(d) - static_cast<int>(bits_[d]);
      steps_[d] = std::ldexp(1.0f, step);
      inverses_[d] = std::ldexp(1.0f, -step);
    }
    const float top = std::ldexp(1.0f, e + 1) - steps_[0];
    return {steps_.data(), inverses_.data(), static_cast<int32_t>(bits_.size()), e + 127, top};
  }

 private:
  at::IntArrayRef bits_;
  int64_t lowest_;
  std::vector<float> steps_, inverses_;
};

// Elements of one scale: whole rows, or part of the single row of a vector.
struct Part {
  int64_t first;
  int64_t row, rows, cols;
};

void round_part(const Part& part, const MinifloatGrid& grid, const optional<Draw>& draw, const float* x,
                const float* previous, float* y) {
  const auto& k = kernels::active();
  for_rows(part.rows, part.cols, [&](int64_t begin, int64_t rows, int64_t cols) {
    const int64_t at = part.first + begin * cols, n = rows * cols;
    if (draw) return k.minifloat_f32f32_stochastic(x + at, rows, cols, grid, *draw, part.row + begin, y + at);
    if (previous != nullptr) return k.minifloat_f32f32f32_hysteresis(x + at, previous + at, n, grid, y + at);
    k.minifloat_f32f32(x + at, n, grid, y + at);
  });
}

Tensor forward_cpu(const Tensor& x, at::IntArrayRef bits, const Tensor& exponent, optional<int64_t> seed,
                   const optional<Tensor>& previous) {
  check_forward(x, bits, exponent, seed, previous);
  check_finite(kOp, "x", x);
  const Tensor data = x.contiguous(), scales = exponent.to(at::kLong).contiguous();
  const Tensor before = previous ? previous->contiguous() : Tensor();
  Tensor y = at::empty(x.sizes(), x.options());
  Format format(bits);
  const auto* exponents = scales.const_data_ptr<int64_t>();
  format.check_exponents(exponents, scales.numel());
  const auto* from = data.const_data_ptr<float>();
  const auto* old = previous ? before.const_data_ptr<float>() : nullptr;
  auto* to = y.mutable_data_ptr<float>();
  const auto draw = draw_for(seed, Site::kSingle, true);
  const int64_t cols = x.dim() == 0 ? 1 : x.size(-1), count = x.numel() == 0 ? 0 : scales.numel();
  for (int64_t g = 0; g < count; ++g) {
    const MinifloatGrid grid = format.at(exponents[g]);
    const int64_t elements = x.numel() / count;
    if (draw && x.dim() == 1 && count > 1) {  // a draw belongs to a place in the only row
      to[g] = minifloat_stochastic(from[g], grid, *draw, 0, g);
    } else {
      const int64_t width = std::min(cols, elements), rows = elements / width;
      round_part({g * elements, g * rows, rows, width}, grid, draw, from, old, to);
    }
  }
  return y;
}

Tensor forward_meta(const Tensor& x, at::IntArrayRef bits, const Tensor& exponent, optional<c10::SymInt> seed,
                    const optional<Tensor>& previous) {
  check_forward(x, bits, exponent, seed, previous);
  return at::empty_symint(x.sym_sizes(), x.options());
}

Tensor minifloat_quantize(const Tensor& x, at::IntArrayRef bits, const Tensor& exponent, optional<c10::SymInt> seed,
                          const optional<Tensor>& previous) {
  static const auto forward = c10::Dispatcher::singleton()
                                  .findSchemaOrThrow("quintil::_minifloat_forward", "")
                                  .typed<Tensor(const Tensor&, at::IntArrayRef, const Tensor&, optional<c10::SymInt>,
                                                const optional<Tensor>&)>();
  check_floating(kOp, "x", x);
  if (previous) check_floating(kOp, "previous", *previous);
  const auto before = previous ? optional<Tensor>(previous->to(at::kFloat)) : std::nullopt;
  return forward.call(x.to(at::kFloat), bits, exponent, seed, before).to(x.scalar_type());
}

}  // namespace

TORCH_LIBRARY_IMPL(quintil, CPU, m) {
  m.impl("_minifloat_forward", forward_cpu);
}

TORCH_LIBRARY_IMPL(quintil, Meta, m) {
  m.impl("_minifloat_forward", forward_meta);
}

// Composite: it parses and casts; the casts carry gradients.
TORCH_LIBRARY_IMPL(quintil, CompositeImplicitAutograd, m) {
  m.impl("minifloat_quantize", minifloat_quantize);
}

}  // namespace quintil::ops
