// Checked mode: off by default, since finding the first bad element costs a pass over the data.
#include "csrc/ops/check.h"

#include <ATen/ops/isfinite.h>
#include <ATen/ops/logical_not.h>
#include <ATen/ops/nonzero.h>

#include <atomic>
#include <cstdlib>
#include <string_view>

namespace quintil::ops {

namespace {

std::atomic<bool>& flag() {
  static std::atomic<bool> on = [] {
    const char* value = std::getenv("QUINTIL_CHECKED");
    return value != nullptr && std::string_view(value) == "1";
  }();
  return on;
}

}  // namespace

bool checked() {
  return flag().load(std::memory_order_relaxed);
}

void set_checked(bool on) {
  flag().store(on, std::memory_order_relaxed);
}

void check_finite(const char* op, const char* name, const at::Tensor& t) {
  if (!checked()) return;
  const at::Tensor bad = at::nonzero(at::logical_not(at::isfinite(t)));
  if (bad.size(0) == 0) return;
  const at::Tensor first = bad[0];
  const std::vector<int64_t> index(first.const_data_ptr<int64_t>(), first.const_data_ptr<int64_t>() + first.numel());
  at::Tensor value = t;
  for (const int64_t i : index) value = value.select(0, i);
  TORCH_CHECK_VALUE(false, op, ": expected ", name, " to be finite, got ", value.item<double>(), " (at index ",
                    at::IntArrayRef(index), ")");
}

}  // namespace quintil::ops
