// Tables and their order. An ISA's table is the one below it with the entries replaced that its folder improves. CMake defines
// QUINTIL_HAS_<ISA> for each folder that is part of this build (QUINTIL_ISAS).
#include "csrc/kernels/dispatch.h"

#include <cstdlib>
#include <stdexcept>

#include "csrc/kernels/amx/kernels.h"
#include "csrc/kernels/avx2/kernels.h"
#include "csrc/kernels/avx512vnni/kernels.h"
#include "csrc/kernels/cpu_features.h"
#include "csrc/kernels/scalar/kernels.h"

namespace quintil::kernels {

namespace {

constexpr KernelTable kScalar = {
    .absmax_f32 = scalar::absmax_f32,
    .absmax_s16 = scalar::absmax_s16,
    .absmax_u8 = scalar::absmax_u8,
    .absmax_s8 = scalar::absmax_s8,
    .quantize_f32u8 = scalar::quantize_f32u8,
    .quantize_s16u8 = scalar::quantize_s16u8,
    .quantize_f32u8_stochastic = scalar::quantize_f32u8_stochastic,
    .quantize_s16u8_stochastic = scalar::quantize_s16u8_stochastic,
    .lsq_f32f32 = scalar::lsq_f32f32,
    .lsq_f32f32f32_backward = scalar::lsq_f32f32f32_backward,
    .moments_f32 = scalar::moments_f32,
    .steer_f32s8 = scalar::steer_f32s8,
    .steer_f32s16 = scalar::steer_f32s16,
    .drive_f32f32 = scalar::drive_f32f32,
    .compare_f32f32 = scalar::compare_f32f32,
    .fwht_f32_rows = scalar::fwht_f32_rows,
    .fwht_s32_rows = scalar::fwht_s32_rows,
    .fwht_f32_cols = scalar::fwht_f32_cols,
    .fwht_s16_cols = scalar::fwht_s16_cols,
    .fwht_s32_cols = scalar::fwht_s32_cols,
    .pack_b_s8 = scalar::pack_b_s8,
    .pack_a_u8 = scalar::pack_a_u8,
    .gemm_u8s8s32 = scalar::gemm_u8s8s32,
    .gemm_u8s8f32 = scalar::gemm_u8s8f32,
    .gemm_u8s8f32_sum = scalar::gemm_u8s8f32_sum,
    .pack_b_s8_every_mac = scalar::pack_b_s8_every_mac,
    .gemm_u8s4s32_every_mac = scalar::gemm_u8s4s32_every_mac,
    .gemm_u8s8s32_every_mac = scalar::gemm_u8s8s32_every_mac,
    .gemm_s32s32s32 = scalar::gemm_s32s32s32,
    .scale_s32f32 = scalar::scale_s32f32,
    .scale_s32f32_columns = scalar::scale_s32f32_columns,
    .scale_s32u8_columns = scalar::scale_s32u8_columns,
    .quantize_f32u8_columns = scalar::quantize_f32u8_columns,
    .im2col_u8 = scalar::im2col_u8,
    .col2im_s32 = scalar::col2im_s32,
    .narrow_s32s16_moments = scalar::narrow_s32s16_moments,
    .batch_norm_s16f32 = scalar::batch_norm_s16f32,
    .batch_norm_sums_s16f32 = scalar::batch_norm_sums_s16f32,
    .batch_norm_grad_s16f32 = scalar::batch_norm_grad_s16f32,
    .pack_u8u4 = scalar::pack_u8u4,
    .unpack_u4u8 = scalar::unpack_u4u8,
    .widen_u8s16 = scalar::widen_u8s16,
    .double_round_s8s8 = scalar::double_round_s8s8,
    .sum_rows_f32 = scalar::sum_rows_f32,
    .luq_f32f32 = scalar::luq_f32f32,
    .luq_f32s8 = scalar::luq_f32s8,
    .minifloat_f32f32 = scalar::minifloat_f32f32,
    .minifloat_f32f32_stochastic = scalar::minifloat_f32f32_stochastic,
    .minifloat_f32f32f32_hysteresis = scalar::minifloat_f32f32f32_hysteresis,
    .lstm_cell_f32 = scalar::lstm_cell_f32,
    .gru_cell_f32 = scalar::gru_cell_f32,
};

// Each table begins with the one before: a CPU with the later instruction set has the earlier one as well. One that is not
// part of this build changes nothing.
constexpr KernelTable kAvx2 = [] {
  KernelTable t = kScalar;
#ifdef QUINTIL_HAS_AVX2
  t.absmax_f32 = avx2::absmax_f32;
  t.absmax_s16 = avx2::absmax_s16;
  t.absmax_u8 = avx2::absmax_u8;
  t.absmax_s8 = avx2::absmax_s8;
  t.quantize_f32u8 = avx2::quantize_f32u8;
  t.quantize_s16u8 = avx2::quantize_s16u8;
  t.quantize_f32u8_stochastic = avx2::quantize_f32u8_stochastic;
  t.quantize_s16u8_stochastic = avx2::quantize_s16u8_stochastic;
  t.lsq_f32f32 = avx2::lsq_f32f32;
  t.lsq_f32f32f32_backward = avx2::lsq_f32f32f32_backward;
  t.moments_f32 = avx2::moments_f32;
  t.steer_f32s8 = avx2::steer_f32s8;
  t.steer_f32s16 = avx2::steer_f32s16;
  t.drive_f32f32 = avx2::drive_f32f32;
  t.compare_f32f32 = avx2::compare_f32f32;
  t.fwht_f32_rows = avx2::fwht_f32_rows;
  t.fwht_s32_rows = avx2::fwht_s32_rows;
  t.fwht_f32_cols = avx2::fwht_f32_cols;
  t.fwht_s16_cols = avx2::fwht_s16_cols;
  t.fwht_s32_cols = avx2::fwht_s32_cols;
  t.pack_b_s8 = avx2::pack_b_s8;
  t.pack_a_u8 = avx2::pack_a_u8;
  t.gemm_u8s8s32 = avx2::gemm_u8s8s32;
  t.gemm_u8s8f32 = avx2::gemm_u8s8f32;
  t.gemm_u8s8f32_sum = avx2::gemm_u8s8f32_sum;
  t.pack_b_s8_every_mac = avx2::pack_b_s8_every_mac;
  t.gemm_u8s4s32_every_mac = avx2::gemm_u8s4s32_every_mac;
  t.gemm_u8s8s32_every_mac = avx2::gemm_u8s8s32_every_mac;
  t.gemm_s32s32s32 = avx2::gemm_s32s32s32;
  t.scale_s32f32 = avx2::scale_s32f32;
  t.scale_s32f32_columns = avx2::scale_s32f32_columns;
  t.scale_s32u8_columns = avx2::scale_s32u8_columns;
  t.quantize_f32u8_columns = avx2::quantize_f32u8_columns;
  t.im2col_u8 = avx2::im2col_u8;
  t.col2im_s32 = avx2::col2im_s32;
  t.narrow_s32s16_moments = avx2::narrow_s32s16_moments;
  t.batch_norm_s16f32 = avx2::batch_norm_s16f32;
  t.batch_norm_sums_s16f32 = avx2::batch_norm_sums_s16f32;
  t.batch_norm_grad_s16f32 = avx2::batch_norm_grad_s16f32;
  t.pack_u8u4 = avx2::pack_u8u4;
  t.unpack_u4u8 = avx2::unpack_u4u8;
  t.widen_u8s16 = avx2::widen_u8s16;
  t.double_round_s8s8 = avx2::double_round_s8s8;
  t.sum_rows_f32 = avx2::sum_rows_f32;
  t.luq_f32f32 = avx2::luq_f32f32;
  t.luq_f32s8 = avx2::luq_f32s8;
  t.minifloat_f32f32 = avx2::minifloat_f32f32;
  t.minifloat_f32f32_stochastic = avx2::minifloat_f32f32_stochastic;
  t.minifloat_f32f32f32_hysteresis = avx2::minifloat_f32f32f32_hysteresis;
  t.lstm_cell_f32 = avx2::lstm_cell_f32;
  t.gru_cell_f32 = avx2::gru_cell_f32;
#endif
  return t;
}();

constexpr KernelTable kAvx512vnni = [] {
  KernelTable t = kAvx2;
#ifdef QUINTIL_HAS_AVX512VNNI
  t.absmax_f32 = avx512vnni::absmax_f32;
  t.absmax_s16 = avx512vnni::absmax_s16;
  t.absmax_u8 = avx512vnni::absmax_u8;
  t.absmax_s8 = avx512vnni::absmax_s8;
  t.quantize_f32u8 = avx512vnni::quantize_f32u8;
  t.quantize_s16u8 = avx512vnni::quantize_s16u8;
  t.quantize_f32u8_stochastic = avx512vnni::quantize_f32u8_stochastic;
  t.quantize_s16u8_stochastic = avx512vnni::quantize_s16u8_stochastic;
  t.fwht_f32_rows = avx512vnni::fwht_f32_rows;
  t.fwht_s32_rows = avx512vnni::fwht_s32_rows;
  t.fwht_f32_cols = avx512vnni::fwht_f32_cols;
  t.fwht_s16_cols = avx512vnni::fwht_s16_cols;
  t.fwht_s32_cols = avx512vnni::fwht_s32_cols;
  t.pack_b_s8 = avx512vnni::pack_b_s8;
  t.pack_a_u8 = avx512vnni::pack_a_u8;
  t.gemm_u8s8s32 = avx512vnni::gemm_u8s8s32;
  t.gemm_u8s8f32 = avx512vnni::gemm_u8s8f32;
  t.gemm_u8s8f32_sum = avx512vnni::gemm_u8s8f32_sum;
  t.pack_b_s8_every_mac = avx512vnni::pack_b_s8_every_mac;
  t.gemm_u8s4s32_every_mac = avx512vnni::gemm_u8s4s32_every_mac;
  t.gemm_u8s8s32_every_mac = avx512vnni::gemm_u8s8s32_every_mac;
  t.gemm_s32s32s32 = avx512vnni::gemm_s32s32s32;
  t.scale_s32f32 = avx512vnni::scale_s32f32;
  t.col2im_s32 = avx512vnni::col2im_s32;
  t.narrow_s32s16_moments = avx512vnni::narrow_s32s16_moments;
  t.batch_norm_s16f32 = avx512vnni::batch_norm_s16f32;
  t.lstm_cell_f32 = avx512vnni::lstm_cell_f32;
  t.gru_cell_f32 = avx512vnni::gru_cell_f32;
  t.batch_norm_sums_s16f32 = avx512vnni::batch_norm_sums_s16f32;
  t.batch_norm_grad_s16f32 = avx512vnni::batch_norm_grad_s16f32;
  t.pack_u8u4 = avx512vnni::pack_u8u4;
  t.unpack_u4u8 = avx512vnni::unpack_u4u8;
  t.widen_u8s16 = avx512vnni::widen_u8s16;
  t.sum_rows_f32 = avx512vnni::sum_rows_f32;
#endif
  return t;
}();

constexpr KernelTable kAmx = [] {
  KernelTable t = kAvx512vnni;
#ifdef QUINTIL_HAS_AMX
  t.gemm_u8s8s32 = amx::gemm_u8s8s32;
  t.gemm_u8s8f32 = amx::gemm_u8s8f32;
#endif
  return t;
}();

struct Isa {
  const char* name;
  bool (*runs)(const Features&);
  const KernelTable* table;
};

constexpr Isa kIsas[] = {
    {"scalar", [](const Features&) { return true; }, &kScalar},
#ifdef QUINTIL_HAS_AVX2
    {"avx2", [](const Features& f) { return f.avx2; }, &kAvx2},
#endif
#ifdef QUINTIL_HAS_AVX512VNNI
    {"avx512vnni", [](const Features& f) { return f.avx512vnni; }, &kAvx512vnni},
#endif
#ifdef QUINTIL_HAS_AMX
    {"amx", [](const Features& f) { return f.amx; }, &kAmx},
#endif
};

const Isa& choose() {
  const char* wanted = std::getenv("QUINTIL_ISA");
  const Isa* best = nullptr;
  for (const Isa& isa : kIsas) {
    if (!isa.runs(cpu_features())) continue;
    if (wanted == nullptr || *wanted == '\0' || std::string(wanted) == isa.name) best = &isa;
  }
  if (best != nullptr) return *best;
  std::string names;
  for (const std::string& name : runnable()) names += (names.empty() ? "" : ", ") + name;
  throw std::invalid_argument("QUINTIL_ISA: expected one of " + names + " on this machine, got " + wanted);
}

const Isa& chosen() {
  static const Isa& isa = choose();
  return isa;
}

}  // namespace

std::vector<std::string> runnable() {
  std::vector<std::string> names;
  for (const Isa& isa : kIsas) {
    if (isa.runs(cpu_features())) names.emplace_back(isa.name);
  }
  return names;
}

const KernelTable* table(const std::string& name) {
  for (const Isa& isa : kIsas) {
    if (name == isa.name && isa.runs(cpu_features())) return isa.table;
  }
  return nullptr;
}

const KernelTable& active() {
  return *chosen().table;
}

const std::string& active_name() {
  static const std::string name = chosen().name;
  return name;
}

}  // namespace quintil::kernels
