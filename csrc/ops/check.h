// One wording per kind of error: `<op>: expected <argument> <condition>, got <value> (<context>)` (DESIGN 7.3).
// The checks run in the functions registered for CPU and for Meta, so that every caller meets them (D10).
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

namespace quintil::ops {

inline void check_floating(const char* op, const char* name, const at::Tensor& t) {
  TORCH_CHECK_TYPE(t.scalar_type() == at::kFloat || t.scalar_type() == at::kHalf || t.scalar_type() == at::kBFloat16 ||
                       t.scalar_type() == at::kDouble,
                   op, ": expected ", name, " to be float32, float64, float16 or bfloat16, got ", t.scalar_type());
}

inline void check_dtype(const char* op, const char* name, const at::Tensor& t, at::ScalarType wanted) {
  TORCH_CHECK_TYPE(t.scalar_type() == wanted, op, ": expected ", name, " to be ", wanted, ", got ", t.scalar_type());
}

inline void check_byte_codes(const char* op, const char* name, const at::Tensor& t) {
  TORCH_CHECK_TYPE(t.scalar_type() == at::kChar || t.scalar_type() == at::kByte, op, ": expected ", name,
                   " to be int8 or uint8, got ", t.scalar_type());
}

inline void check_range(const char* op, const char* name, int64_t value, int64_t lo, int64_t hi) {
  TORCH_CHECK_VALUE(value >= lo && value <= hi, op, ": expected ", name, " in ", lo, "..", hi, ", got ", value);
}

inline void check_tile(const char* op, const char* name, int64_t value) {
  TORCH_CHECK_VALUE(value >= 0, op, ": expected ", name, " >= 0, got ", value);
}

inline void check_dim(const char* op, const char* name, const at::Tensor& t, int64_t dim) {
  TORCH_CHECK_VALUE(t.dim() == dim, op, ": expected ", name, " to have ", dim, " dimensions, got ", t.dim(), " (", name,
                    " is ", t.sym_sizes(), ")");
}

inline void check_not_scalar(const char* op, const char* name, const at::Tensor& t) {
  TORCH_CHECK_VALUE(t.dim() >= 1, op, ": expected ", name, " to have at least 1 dimension, got 0");
}

// Seeds are 0 .. 2^62-1 (N6). A seed that tracing has no number for is checked when the compiled graph runs.
inline void check_seed_value(const char* op, const std::optional<c10::SymInt>& seed) {
  const std::optional<int64_t> value = seed ? seed->maybe_as_int() : std::nullopt;
  TORCH_CHECK_VALUE(!value || *value >= 0, op, ": expected seed >= 0, got ", *value);
}

// Index of `value` among `names`; the error lists them.
inline int64_t check_name(const char* op, const char* argument, std::string_view value,
                          std::initializer_list<std::string_view> names) {
  int64_t index = 0;
  for (const std::string_view name : names) {
    if (name == value) return index;
    ++index;
  }
  std::string list;
  for (const std::string_view name : names) list += (list.empty() ? "'" : ", '") + std::string(name) + "'";
  TORCH_CHECK_VALUE(false, op, ": expected ", argument, " to be one of ", list, ", got '", value, "'");
}

// Checked mode (QUINTIL_CHECKED=1 or set_checked): ops refuse NaN and Inf instead of passing NaN on (N10).
bool checked();
void set_checked(bool on);
void check_finite(const char* op, const char* name, const at::Tensor& t);  // does nothing outside checked mode

}  // namespace quintil::ops
