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
#include <type_traits>

#include "csrc/kernels/dispatch.h"
#include "tests/cpp/draws.h"
#include "tests/cpp/guarded.h"

// A jump in the place of the call would leave the function, and collection with it, before the kernel has begun.
extern "C" [[gnu::noinline]] void measured_call(void (*call)(void*), void* data) {
  call(data);
  __asm__ volatile("" ::: "memory");
}

namespace quintil::test {
namespace {

using kernels::KernelTable;

constexpr int kSkipped = 77;  // as in main.cpp: the CPU lacks the instruction set
constexpr int64_t kRows = 40, kCols = 1000, kElements = kRows * kCols;
constexpr CodeGrid kGrid{0.4f, -7, 7, 8};
constexpr CodeGrid kWideGrid{64.0f, -7, 7, 0};
constexpr StepGrid kStepGrid{0.05f, 0.0f, 1.0f / 16, 0.8f, -8, 7, 7, Rounding::kHalfEven, true, false, false};
constexpr LevelGrid kLevelGrid{0.3352f, -8, 7};

struct Case {
  const char* name;
  const char* shape;
  void (*run)(const KernelTable& k);
};

template <class Call>
void measured(Call call) {
  measured_call([](void* f) { (*static_cast<Call*>(f))(); }, &call);
}

Guarded<float> floats(int64_t n) {
  return {Draws(1).floats(n, 1.0f), kFront};
}

template <class T>
Guarded<T> integers(int64_t n, int64_t lo, int64_t hi) {
  return {Draws(2).integers<T>(n, lo, hi), kFront};
}

template <class T>
Guarded<T> room(int64_t n) {
  return Guarded<T>(n, kFront);
}

constexpr Draw draw_of(int32_t bits) {
  return {0x12345678u, 0x9ABCDEF0u, 4, bits};
}

// ---------------------------------------------------------------------------------------------- quantise, transform
void absmax(const KernelTable& k) {
  auto x = floats(kElements);
  measured([&] { k.absmax_f32(x.data(), kElements); });
}

void quantize_nearest(const KernelTable& k) {
  auto x = floats(kElements);
  auto out = room<uint8_t>(kElements);
  measured([&] { k.quantize_f32u8(x.data(), kRows, kCols, kCols, kGrid, out.data(), kCols); });
}

void quantize_float_stochastic(const KernelTable& k) {
  auto x = floats(kElements);
  auto out = room<uint8_t>(kElements);
  measured(
      [&] { k.quantize_f32u8_stochastic(x.data(), kRows, kCols, kCols, kGrid, draw_of(16), 0, out.data(), kCols); });
}

void quantize_short_stochastic(const KernelTable& k) {
  auto x = integers<int16_t>(kElements, -448, 448);
  auto out = room<uint8_t>(kElements);
  measured(
      [&] { k.quantize_s16u8_stochastic(x.data(), kRows, kCols, kCols, kWideGrid, draw_of(8), 0, out.data(), kCols); });
}

void lstm_cell(const KernelTable& k) {
  auto x = floats(kElements);
  auto cell = floats(kElements / 4), state = room<float>(kElements / 4);
  measured([&] { k.lstm_cell_f32(x.data(), x.data(), x.data(), kRows, kCols / 4, cell.data(), state.data()); });
}

void luq_codes(const KernelTable& k) {
  auto x = floats(kElements);
  auto out = room<int8_t>(kElements);
  measured([&] { k.luq_f32s8(x.data(), kRows, kCols, 0.1f, draw_of(16), 0, out.data()); });
}

void minifloat(const KernelTable& k) {
  static constexpr float steps[] = {0x1p-3f, 0x1p-4f, 0x1p-5f, 0x1p-6f}, inverses[] = {0x1p3f, 0x1p4f, 0x1p5f, 0x1p6f};
  auto x = floats(kElements - 1);
  auto out = room<float>(kElements - 1);
  measured([&] { k.minifloat_f32f32(x.data(), kElements - 1, {steps, inverses, 4, 128, 3.75f}, out.data()); });
}

void learned_step(const KernelTable& k) {
  auto x = floats(kElements - 1);
  auto out = room<float>(kElements - 1);
  measured([&] { k.lsq_f32f32(x.data(), kElements - 1, kStepGrid, out.data()); });
}

void learned_step_gradient(const KernelTable& k) {
  constexpr int64_t n = kSumChunk - 1;
  auto x = floats(n);
  auto out = room<float>(n);
  measured([&] { k.lsq_f32f32f32_backward(x.data(), x.data(), n, kStepGrid, out.data()); });
}

void steer(const KernelTable& k) {
  constexpr int64_t n = kSumChunk - 1;
  auto x = floats(n);
  auto codes = room<int8_t>(n);
  measured([&] { k.steer_f32s8(x.data(), n, kLevelGrid, codes.data()); });
}

void drive(const KernelTable& k) {
  auto x = floats(kElements - 1);
  auto out = room<float>(kElements - 1);
  measured([&] { k.drive_f32f32(x.data(), kElements - 1, kLevelGrid, {0.3f, 0.0f, 0.0f, 0.0f}, out.data()); });
}

template <int64_t order>
void fwht_rows(const KernelTable& k) {
  constexpr int64_t rows = 20, blocks = 1024 / order, width = order * blocks;
  auto x = floats(rows * width);
  measured([&] { k.fwht_f32_rows(x.data(), rows, width, order, blocks); });
}

void fwht_float_cols(const KernelTable& k) {
  auto x = floats(128 * 124);
  measured([&] { k.fwht_f32_cols(x.data(), 128, 124, 124); });
}

void fwht_short_cols(const KernelTable& k) {
  auto x = integers<int16_t>(128 * 124, -7, 7);
  measured([&] { k.fwht_s16_cols(x.data(), 128, 124, 124); });
}

// ---------------------------------------------------------------------------------------------- products
constexpr int64_t kM = 50, kN = 80, kK = 288, kColumns = (kN + kPanel - 1) / kPanel * kPanel;

template <bool k_contiguous>
void pack_b(const KernelTable& k) {
  auto b = integers<int8_t>(kK * kN, -7, 7);
  auto panels = room<int8_t>(kK * kColumns);
  auto start = room<int32_t>(kK / kTile * kColumns);
  constexpr int64_t k_stride = k_contiguous ? 1 : kN, n_stride = k_contiguous ? kK : 1;
  measured([&] { k.pack_b_s8(b.data(), k_stride, n_stride, kK, kN, kTile, 8, panels.data(), start.data()); });
}

void pack_a(const KernelTable& k) {
  constexpr int64_t depth = 64, m = 300;
  auto a = integers<uint8_t>(depth * m, 1, 15);
  auto packed = room<uint8_t>(depth * m);
  measured([&] { k.pack_a_u8(a.data(), m, 1, depth, m, kTile, packed.data()); });
}

// The ways in which the ops multiply: no limit (one tile), a narrow accumulator of 4-bit codes, 8-bit codes.
struct Exact {
  static constexpr int32_t bits = 4, accumulator = 32;
};
struct Narrow {
  static constexpr int32_t bits = 4, accumulator = 8;
};
struct Wide {
  static constexpr int32_t bits = 8, accumulator = 16;
};
struct WideExact {
  static constexpr int32_t bits = 8, accumulator = 32;
};

template <class Law, class Out, int kProducts = 1>
void gemm(const KernelTable& k) {
  constexpr bool limited = Law::accumulator < 32;
  constexpr int32_t zero = 1 << (Law::bits - 1);
  auto a = integers<uint8_t>(kM * kK, 1, 2 * zero - 1);
  auto b = integers<int8_t>(kK * kN, 1 - zero, zero - 1);
  auto panels = room<int8_t>(kK * kColumns);
  auto start = room<int32_t>((limited ? kK / kTile : 1) * kColumns);
  k.pack_b_s8(b.data(), kN, 1, kK, kN, limited ? kTile : 0, zero, panels.data(), start.data());
  const Gemm g{.a = a.data(),
               .a_row = kK,
               .b = panels.data(),
               .start = start.data(),
               .m = kM,
               .n = kN,
               .k4 = kK / kDepth,
               .tile_k4 = (limited ? kTile : kK) / kDepth,
               .overflow = limited ? Overflow::kSaturate : Overflow::kNone,
               .limit = static_cast<int32_t>((int64_t{1} << (Law::accumulator - 1)) - 1),
               .shift = 32 - Law::accumulator,
               .max_a = 2 * zero - 1,
               .max_b = zero - 1};
  auto c = room<Out>(kM * kN);
  if constexpr (std::is_same_v<Out, float>) {
    if constexpr (kProducts == 1) {
      auto bias = floats(kN);
      const Epilogue epilogue{{0.1f, 0.2f, 0.3f}, 1.0f / 64, bias.data()};
      measured([&] { k.gemm_u8s8f32(g, epilogue, c.data(), kN); });
    } else {
      const std::vector<Gemm> gemms(kProducts, g);
      const std::vector<Epilogue> epilogues(kProducts, {{0.1f, 0.2f, 0.3f}, 1.0f / 64, nullptr});
      measured([&] { k.gemm_u8s8f32_sum(gemms.data(), epilogues.data(), kProducts, c.data(), kN); });
    }
  } else {
    measured([&] { k.gemm_u8s8s32(g, c.data(), kN); });
  }
}

template <int32_t bits>
void every_mac(const KernelTable& k) {
  constexpr int32_t zero = 1 << (bits - 1);
  constexpr int64_t columns = (kN + kWidePanel - 1) / kWidePanel * kWidePanel;
  auto a = integers<uint8_t>(kM * kK, 1, 2 * zero - 1);
  auto b = integers<int8_t>(kK * kN, 1 - zero, zero - 1);
  auto panels = room<int8_t>(kK * columns);
  k.pack_b_s8_every_mac(b.data(), kN, 1, kK, kN, kTile, bits == 4 ? 15 : 255, panels.data());
  const EveryMacGemm g{.a = a.data(),
                       .a_row = kK,
                       .b = panels.data(),
                       .m = kM,
                       .n = kN,
                       .k4 = kK / kDepth,
                       .tile_k4 = kTile / kDepth,
                       .zero = zero,
                       .limit = bits == 4 ? 127 : 32767};
  auto c = room<int32_t>(kM * kN);
  measured([&] { (bits == 4 ? k.gemm_u8s4s32_every_mac : k.gemm_u8s8s32_every_mac)(g, c.data(), kN); });
}

template <class Out>
void scale_columns(const KernelTable& k) {
  auto x = integers<int32_t>(kElements, -3000, 3000);
  auto columns = floats(2 * kCols), residual = floats(kElements);
  auto out = room<Out>(kElements);
  const ColumnEpilogue e{columns.data(), 0.1f, 1.0f, columns.data() + kCols, residual.data(), kCols, true};
  measured([&] {
    if constexpr (std::is_same_v<Out, float>) {
      k.scale_s32f32_columns(x.data(), kRows, kCols, kCols, e, out.data(), kCols);
    } else {
      k.scale_s32u8_columns(x.data(), kRows, kCols, kCols, e, {0.5f, 0, 255, 0}, out.data(), kCols);
    }
  });
}

void quantize_columns(const KernelTable& k) {
  auto x = floats(kElements), columns = floats(2 * kCols);
  auto out = room<uint8_t>(kElements);
  measured([&] {
    k.quantize_f32u8_columns(x.data(), kRows, kCols, kCols, columns.data(), columns.data() + kCols, {0.5f, 0, 255, 0},
                             out.data(), kCols);
  });
}

// ---------------------------------------------------------------------------------------------- unfold, bits, sums
constexpr ConvShape kConv{16, 16, 20, 3, 3, 1, 1, 1, 1, 1, 1, 16, 16, true};
constexpr int64_t kTaps = 9 * 20, kPositions = 96, kPixels = 16 * 16 * 20;

void im2col(const KernelTable& k) {
  auto image = integers<uint8_t>(kPixels, 1, 15);
  auto out = room<uint8_t>(kPositions * kTaps);
  measured([&] { k.im2col_u8(image.data(), kConv, 0, kPositions, 8, out.data(), kTaps); });
}

void col2im(const KernelTable& k) {
  auto cols = integers<int32_t>(kPositions * kTaps, -2000, 2000);
  auto image = integers<int32_t>(kPixels, 0, 0);
  measured([&] { k.col2im_s32(cols.data(), kTaps, kConv, 0, kPositions, image.data()); });
}

void pack_nibbles(const KernelTable& k) {
  auto codes = integers<uint8_t>(kElements - 1, 0, 15);
  auto out = room<uint8_t>(kElements / 2);
  measured([&] { k.pack_u8u4(codes.data(), kElements - 1, out.data()); });
}

void unpack_nibbles(const KernelTable& k) {
  auto packed = integers<uint8_t>(kElements / 2, 0, 255);
  auto out = room<uint8_t>(kElements - 1);
  measured([&] { k.unpack_u4u8(packed.data(), kElements - 1, false, out.data()); });
}

void widen(const KernelTable& k) {
  auto codes = integers<uint8_t>(kElements - 1, 1, 15);
  auto out = room<int16_t>(kElements - 1);
  measured([&] { k.widen_u8s16(codes.data(), kElements - 1, 8, out.data()); });
}

void narrow(const KernelTable& k) {
  auto codes = integers<int8_t>(kElements - 1, -128, 127);
  auto out = room<int8_t>(kElements - 1);
  measured([&] { k.double_round_s8s8(codes.data(), kElements - 1, {4, -8, 7, Rounding::kHalfEven}, out.data()); });
}

void sum_rows(const KernelTable& k) {
  auto x = floats(kElements);
  auto out = room<float>(kCols);
  measured([&] { k.sum_rows_f32(x.data(), kRows, kCols, kCols, out.data()); });
}

// 40 x 1000 values, 1000 channels.
struct NormData {
  Guarded<float> grad = floats(kElements), constants = floats(5 * kCols), out = room<float>(kElements);
  Guarded<int16_t> x = integers<int16_t>(kElements, -2000, 2000);
  Guarded<uint8_t> mask = integers<uint8_t>(kRows * (kCols / 8), 0, 255);
};

void moments(const KernelTable& k) {
  auto x = integers<int32_t>(kElements, -2000, 2000);
  auto out = room<int16_t>(kElements);
  auto sums = integers<int64_t>(2 * kCols, 0, 0);
  measured([&] { k.narrow_s32s16_moments(x.data(), kRows, kCols, out.data(), sums.data(), sums.data() + kCols); });
}

void batch_norm(const KernelTable& k) {
  NormData d;
  const NormForward norm{d.constants.data(), d.constants.data() + kCols, d.grad.data(), true};
  measured([&] { k.batch_norm_s16f32(d.x.data(), kRows, kCols, norm, d.out.data(), d.mask.data()); });
}

void batch_norm_grad(const KernelTable& k) {
  NormData d;
  const float* c = d.constants.data();
  const NormBackward norm{c, c + kCols, c + 2 * kCols, c + 3 * kCols, c + 4 * kCols};
  auto sums = integers<int32_t>(2 * kCols, 0, 0);
  auto* sum = reinterpret_cast<float*>(sums.data());
  measured([&] {
    k.batch_norm_sums_s16f32(d.x.data(), d.grad.data(), d.mask.data(), kRows, kCols, norm, sum, sum + kCols);
    k.batch_norm_grad_s16f32(d.x.data(), d.grad.data(), d.mask.data(), kRows, kCols, norm, d.out.data(), nullptr);
  });
}

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
