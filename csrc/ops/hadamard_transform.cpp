// hadamard_transform: +-1 Sylvester blocks along one dimension, not normalised [HDQT H5, H6]. Integers are exact.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include "csrc/kernels/dispatch.h"
#include "csrc/ops/check.h"
#include "csrc/ops/hadamard_options.h"

namespace quintil::ops {

namespace {

using at::Tensor;

constexpr const char* kOp = "hadamard_transform";
constexpr int64_t kElementsPerTask = 1 << 15;

bool is_integer(const Tensor& x) {
  return x.scalar_type() == at::kChar || x.scalar_type() == at::kByte || x.scalar_type() == at::kShort ||
         x.scalar_type() == at::kInt;
}

struct Layout {
  int64_t dim;
  Blocks blocks;
  at::ScalarType computed;  // int32 or float32
  at::ScalarType result;
};

Layout check_transform(const Tensor& x, int64_t dim, c10::string_view hadamard, int64_t block) {
  if (!is_integer(x)) {
    TORCH_CHECK_TYPE(at::isFloatingType(x.scalar_type()), kOp,
                     ": expected x to be a float or an integer tensor of up to 32 bits, got ", x.scalar_type());
    check_floating(kOp, "x", x);
  }
  check_not_scalar(kOp, "x", x);
  TORCH_CHECK_VALUE(dim >= -x.dim() && dim < x.dim(), kOp, ": expected dim in ", -x.dim(), "..", x.dim() - 1, ", got ",
                    dim, " (x is ", x.sym_sizes(), ")");
  const bool integer = is_integer(x);
  return {dim < 0 ? dim + x.dim() : dim, parse_blocks(kOp, hadamard, block, "block"), integer ? at::kInt : at::kFloat,
          integer ? at::kInt : x.scalar_type()};
}

Tensor transform_meta(const Tensor& x, int64_t dim, c10::string_view hadamard, int64_t block) {
  const Layout layout = check_transform(x, dim, hadamard, block);
  std::vector<c10::SymInt> sizes = x.sym_sizes().vec();
  c10::SymInt& n = sizes[layout.dim];
  n = layout.blocks.padded(n.guard_int(__FILE__, __LINE__));
  return at::empty_symint(sizes, x.options().dtype(layout.result));
}

void transform_rows(float* x, int64_t rows, int64_t ld, int64_t order, int64_t blocks) {
  kernels::active().fwht_f32_rows(x, rows, ld, order, blocks);
}
void transform_rows(int32_t* x, int64_t rows, int64_t ld, int64_t order, int64_t blocks) {
  kernels::active().fwht_s32_rows(x, rows, ld, order, blocks);
}
void transform_cols(float* x, int64_t order, int64_t cols, int64_t ld) {
  kernels::active().fwht_f32_cols(x, order, cols, ld);
}
void transform_cols(int32_t* x, int64_t order, int64_t cols, int64_t ld) {
  kernels::active().fwht_s32_cols(x, order, cols, ld);
}

// In place on contiguous [outer, n, inner].
template <class T>
void transform(T* x, const Blocks& blocks, int64_t outer, int64_t n, int64_t inner) {
  const int64_t grain = std::max<int64_t>(1, kElementsPerTask / std::max<int64_t>(1, n * inner));
  at::parallel_for(0, outer, grain, [&](int64_t begin, int64_t end) {
    for_each_block(blocks.mode, n, blocks.block, [&](int64_t first, int64_t order) {
      if (inner == 1) return transform_rows(x + begin * n + first, end - begin, n, order, 1);
      for (int64_t o = begin; o < end; ++o) transform_cols(x + (o * n + first) * inner, order, inner, inner);
    });
  });
}

Tensor transform_cpu(const Tensor& x, int64_t dim, c10::string_view hadamard, int64_t block) {
  const Layout layout = check_transform(x, dim, hadamard, block);
  if (!is_integer(x)) check_finite(kOp, "x", x);
  const int64_t d = layout.dim, n = x.size(d), padded = layout.blocks.padded(n);
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes[d] = padded;
  Tensor y = at::zeros(sizes, x.options().dtype(layout.computed));
  y.narrow(d, 0, n).copy_(x);
  int64_t outer = 1, inner = 1;
  for (int64_t i = 0; i < d; ++i) outer *= sizes[i];
  for (int64_t i = d + 1; i < x.dim(); ++i) inner *= sizes[i];
  if (y.numel() > 0) {
    if (layout.computed == at::kInt) {
      transform(y.mutable_data_ptr<int32_t>(), layout.blocks, outer, padded, inner);
    } else {
      transform(y.mutable_data_ptr<float>(), layout.blocks, outer, padded, inner);
    }
  }
  return y.to(layout.result);
}

}  // namespace

TORCH_LIBRARY_IMPL(quintil, CPU, m) {
  m.impl("hadamard_transform", transform_cpu);
}

TORCH_LIBRARY_IMPL(quintil, Meta, m) {
  m.impl("hadamard_transform", transform_meta);
}

}  // namespace quintil::ops
