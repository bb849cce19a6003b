// One call of one kernel at a fixed shape, for an instruction counter: scripts/count_instructions.py runs this program
// under valgrind's callgrind, which collects inside measured_call alone.
//
//   count_kernels list            name and shape of every case
//   count_kernels facts           compiler and flags of this program, on which counts depend
//   count_kernels ISA NAME        the call
//
// Shapes are small, since callgrind is some fifty times slower than the CPU, yet long enough for the main loops; most
// end in a tail, so that tails count too. Data are the same everywhere and begin on a page.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <string>

#include "csrc/kernels/dispatch.h"
#include "tests/cpp/count_call.h"
#include "tests/cpp/count_layers.h"
#include "tests/cpp/count_passes.h"
#include "tests/cpp/count_products.h"

namespace quintil::test {
namespace {

constexpr int kSkipped = 77;  // as in main.cpp: the CPU lacks the instruction set

struct Case {
  const char* name;
  const char* shape;
  void (*run)(const KernelTable& k);
};

constexpr Case kCases[] = {
    {"absmax_f32", "40000", absmax},
    {"quantize_f32u8", "40x1000, nearest", quantize_nearest},
    {"quantize_f32u8_stochastic", "40x1000, 16 random bits", quantize_float_stochastic},
    {"quantize_s16u8_stochastic", "40x1000, 8 random bits", quantize_short_stochastic},
    {"luq_f32s8", "40x1000", luq_codes},
    {"lstm_cell_f32", "40x250 cells", lstm_cell},
    {"minifloat_f32f32", "39999, 4 binades of 4 bits", minifloat},
    {"lsq_f32f32", "39999, 8 to 4 bits", learned_step},
    {"lsq_f32f32f32_backward", "4095, 8 to 4 bits", learned_step_gradient},
    {"steer_f32s8", "4095, 4 bits", steer},
    {"drive_f32f32", "39999, 4 bits", drive},
    {"fwht_f32_rows/64", "20x1024, order 64", fwht_rows<64>},
    {"fwht_f32_rows/1024", "20x1024, order 1024", fwht_rows<1024>},
    {"fwht_f32_cols", "128x124, order 128", fwht_float_cols},
    {"fwht_s16_cols", "128x124, order 128", fwht_short_cols},
    {"pack_b_s8/k", "288x80, k contiguous", pack_b<true>},
    {"pack_b_s8/n", "288x80, n contiguous", pack_b<false>},
    {"pack_a_u8", "64x300, m contiguous", pack_a},
    {"gemm_u8s8s32/exact", "50x288x80, 4 bit, no limit", gemm<Exact, int32_t>},
    {"gemm_u8s8s32/a8", "50x288x80, 4 bit, A=8 T=32", gemm<Narrow, int32_t>},
    {"gemm_u8s8s32/a16", "50x288x80, 8 bit, A=16 T=32", gemm<Wide, int32_t>},
    {"gemm_u8s8s32/exact8", "50x288x80, 8 bit, no limit", gemm<WideExact, int32_t>},
    {"gemm_u8s4s32_every_mac", "50x288x80, 4 bit, A=8 T=32", every_mac<4>},
    {"gemm_u8s8s32_every_mac", "50x288x80, 8 bit, A=16 T=32", every_mac<8>},
    {"scale_s32f32_columns", "40x1000, bias and residual", scale_columns<float>},
    {"scale_s32u8_columns", "40x1000, bias and residual", scale_columns<uint8_t>},
    {"quantize_f32u8_columns", "40x1000", quantize_columns},
    {"gemm_u8s8f32/exact", "50x288x80, 4 bit, no limit", gemm<Exact, float>},
    {"gemm_u8s8f32/a8", "50x288x80, 4 bit, A=8 T=32", gemm<Narrow, float>},
    {"gemm_u8s8f32_sum/a8", "8 x 50x288x80, 4 bit, A=8 T=32", gemm<Narrow, float, 8>},
    {"gemm_u8s8f32/a16", "50x288x80, 8 bit, A=16 T=32", gemm<Wide, float>},
    {"im2col_u8", "16x16x20, 3x3, 96 positions", im2col},
    {"col2im_s32", "16x16x20, 3x3, 96 positions", col2im},
    {"narrow_s32s16_moments", "40x1000", moments},
    {"batch_norm", "40x1000, residual and ReLU", batch_norm},
    {"batch_norm_grad", "40x1000, sums and gradient", batch_norm_grad},
    {"pack_u8u4", "39999", pack_nibbles},
    {"unpack_u4u8", "39999", unpack_nibbles},
    {"widen_u8s16", "39999", widen},
    {"double_round_s8s8", "39999, 8 to 4 bits", narrow},
    {"sum_rows_f32", "40x1000", sum_rows},
};

int run(const std::string& isa, const std::string& name) {
  const KernelTable* table = kernels::table(isa);
  if (table == nullptr) {
    std::fprintf(stderr, "count_kernels: expected an instruction set that runs here, got %s\n", isa.c_str());
    return kSkipped;
  }
  const Case* found = std::find_if(std::begin(kCases), std::end(kCases), [&](const Case& c) { return name == c.name; });
  if (found == std::end(kCases)) {
    std::fprintf(stderr, "count_kernels: expected a name of `count_kernels list`, got %s\n", name.c_str());
    return 2;
  }
  found->run(*table);
  return 0;
}

}  // namespace
}  // namespace quintil::test

int main(int argc, char** argv) {
  if (argc == 3) return quintil::test::run(argv[1], argv[2]);
  if (argc == 2 && std::strcmp(argv[1], "list") == 0) {
    for (const auto& c : quintil::test::kCases) std::printf("%s\t%s\n", c.name, c.shape);
    return 0;
  }
  if (argc == 2 && std::strcmp(argv[1], "facts") == 0) {
    std::printf("compiler\t%s\nflags\t%s\n", QUINTIL_COMPILER, QUINTIL_FLAGS);
    return 0;
  }
  std::fprintf(stderr, "usage: count_kernels list | facts | ISA NAME\n");
  return 2;
}
