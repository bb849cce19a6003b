// The C++ face of quintil: one function per op over at::Tensor, the same as torch.ops.quintil.* in Python.
//   #include <quintil.h>
//   at::Tensor y = quintil::hadamard_linear(x, weight, bias, {.bits = 4, .tile_size = 32}, quintil::draw_seed());
//   y.sum().backward();
// What each op means, its shapes, dtypes and errors: python/quintil/functional.py.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace torch::jit {
struct Module;  // <torch/script.h>
}

#if defined(__GNUC__)
#define QUINTIL_API __attribute__((visibility("default")))
#else
#define QUINTIL_API
#endif

namespace quintil {

struct HadamardOptions {
  int64_t bits = 4;
  int64_t accumulator_bits = 8;
  int64_t tile_size = 32;
  std::optional<int64_t> backward_accumulator_bits = std::nullopt;
  std::optional<int64_t> weight_gradient_accumulator_bits = std::nullopt;
  int64_t backward_tile_size = 32;
  std::string accumulate = "tile_end";
  std::string overflow = "saturate";
  std::string hadamard = "padded";
  int64_t hadamard_block = 64;
  bool requantize = true;
  std::string dc_row = "together";
  std::string ste = "identity";
  std::string stochastic = "b1g,b2a,b2g";
  double range_fraction = 0.975;
};

struct ConvOptions {
  std::array<int64_t, 2> stride = {1, 1};
  std::array<int64_t, 2> padding = {0, 0};
  std::array<int64_t, 2> dilation = {1, 1};
  std::string conv_backward = "per_sample";
  std::string tile_order = "khwc";
};

// Name of a layer or of what holds it, or a pattern as in a shell -> bits; of several that match a layer the last
// counts.
using LayerBits = std::vector<std::pair<std::string, int64_t>>;

// Code q means scale * (q - zero2 / 2).
struct IntOptions {
  int64_t x_zero2 = 0;
  int64_t weight_zero2 = 0;
  std::optional<at::Tensor> residual = std::nullopt;
  bool relu = false;
  std::optional<at::Tensor> out_scale = std::nullopt;  // the result is codes of this scale
  int64_t out_bits = 8;
};

struct IntConvOptions {
  std::array<int64_t, 2> stride = {1, 1};
  std::array<int64_t, 2> padding = {0, 0};
  std::array<int64_t, 2> dilation = {1, 1};
  IntOptions product = {};
};

struct DoubleRoundOptions {
  std::string rounding = "half_even";
  bool chain_pow2 = false;
  std::string weight_source = "stored";
  std::string mask_on = "scaled";
  std::string scale_residual = "double";
  std::string scale_grad_sum = "channel";
};

struct VecqStepOptions {
  bool per_channel = false;
  int64_t group_size = 0;
  std::string sigma = "population";
  std::string lambda_mode = "table";
};

struct VecqOptions {
  std::optional<at::Tensor> step = std::nullopt;
  std::string drive = "projection";
  std::optional<at::Tensor> alpha = std::nullopt;
  std::string grad_mode = "ste";
  double grad_ratio = 0.0;
};

// A seed 0 .. 2^62-1 from PyTorch's CPU generator, so that torch::manual_seed makes a run repeatable.
QUINTIL_API int64_t draw_seed(std::optional<at::Generator> generator = std::nullopt);

QUINTIL_API std::tuple<at::Tensor, at::Tensor> quantize(const at::Tensor& x, int64_t bits, bool is_signed = true,
                                                        bool narrow = true, double range_fraction = 1.0,
                                                        const std::optional<at::Tensor>& scale = std::nullopt,
                                                        std::optional<int64_t> seed = std::nullopt);
QUINTIL_API at::Tensor dequantize(const at::Tensor& codes, const at::Tensor& scale);
QUINTIL_API at::Tensor pack_int4(const at::Tensor& codes);
QUINTIL_API at::Tensor unpack_int4(const at::Tensor& packed, int64_t size, bool is_signed = true);
QUINTIL_API at::Tensor hadamard_transform(const at::Tensor& x, int64_t dim = -1, const std::string& hadamard = "padded",
                                          int64_t block = 64);
QUINTIL_API at::Tensor tiled_int_mm(const at::Tensor& a, const at::Tensor& b, int64_t tile_size = 32,
                                    int64_t accumulator_bits = 8, const std::string& accumulate = "tile_end",
                                    const std::string& overflow = "saturate");
QUINTIL_API at::Tensor tile_saturation(const at::Tensor& a, const at::Tensor& b, int64_t tile_size = 32,
                                       int64_t accumulator_bits = 8);
QUINTIL_API at::Tensor hadamard_linear(const at::Tensor& x, const at::Tensor& weight,
                                       const std::optional<at::Tensor>& bias = std::nullopt,
                                       const HadamardOptions& options = {}, std::optional<int64_t> seed = std::nullopt);
QUINTIL_API at::Tensor hadamard_conv2d(const at::Tensor& x, const at::Tensor& weight,
                                       const std::optional<at::Tensor>& bias = std::nullopt,
                                       const ConvOptions& conv = {}, const HadamardOptions& options = {},
                                       std::optional<int64_t> seed = std::nullopt);
// y, and the mean and biased variance of the convolution's output.
QUINTIL_API std::tuple<at::Tensor, at::Tensor, at::Tensor> hadamard_conv2d_batch_norm(
    const at::Tensor& x, const at::Tensor& weight, const at::Tensor& norm_weight, const at::Tensor& norm_bias,
    const std::optional<at::Tensor>& residual = std::nullopt, const ConvOptions& conv = {}, bool relu = true,
    double eps = 1e-5, const HadamardOptions& options = {}, std::optional<int64_t> seed = std::nullopt);
QUINTIL_API at::Tensor lsq_quantize(const at::Tensor& x, const at::Tensor& scale, int64_t bits, bool is_signed = false,
                                    const std::optional<at::Tensor>& offset = std::nullopt,
                                    const std::string& mask_on = "scaled");
QUINTIL_API at::Tensor double_round(const at::Tensor& codes, int64_t from_bits, int64_t to_bits,
                                    const std::string& rounding = "half_even");
QUINTIL_API at::Tensor double_round_quantize(const at::Tensor& x, const at::Tensor& scale, int64_t from_bits,
                                             int64_t to_bits, const DoubleRoundOptions& options = {});
// Codes of x * gain + shift, one gain and shift per channel (dimension 1).
QUINTIL_API at::Tensor affine_quantize(const at::Tensor& x, const at::Tensor& gain, const at::Tensor& shift,
                                       const at::Tensor& scale, int64_t bits, bool is_signed = false);
QUINTIL_API at::Tensor int_linear(const at::Tensor& x, const at::Tensor& x_scale, const at::Tensor& weight,
                                  const at::Tensor& weight_scale, const std::optional<at::Tensor>& bias = std::nullopt,
                                  const IntOptions& options = {});
QUINTIL_API at::Tensor int_conv2d(const at::Tensor& x, const at::Tensor& x_scale, const at::Tensor& weight,
                                  const at::Tensor& weight_scale, const std::optional<at::Tensor>& bias = std::nullopt,
                                  const IntConvOptions& options = {});

QUINTIL_API at::Tensor vecq_step(const at::Tensor& x, int64_t bits, const VecqStepOptions& options = {});
// y, its codes and the length alpha.
QUINTIL_API std::tuple<at::Tensor, at::Tensor, at::Tensor> vecq_quantize(const at::Tensor& x, int64_t bits,
                                                                         const VecqOptions& options = {});
QUINTIL_API at::Tensor vecq_codes(const at::Tensor& x, int64_t bits, const at::Tensor& step);
// y and the new averages.
QUINTIL_API std::tuple<at::Tensor, at::Tensor> vecq_activation(const at::Tensor& x, int64_t bits,
                                                               const at::Tensor& averages, bool training,
                                                               double momentum = 0.9,
                                                               const std::string& drive = "projection",
                                                               const std::string& sigma = "population");
// Orientation loss, modulus loss and their sum.
QUINTIL_API std::tuple<at::Tensor, at::Tensor, at::Tensor> vecq_losses(const at::Tensor& x, const at::Tensor& y,
                                                                       bool per_channel = false);

// The mean of `samples` draws of powers of two.
QUINTIL_API at::Tensor luq_quantize(const at::Tensor& x, int64_t seed, int64_t bits = 4, int64_t samples = 1,
                                    const std::string& levels = "corrected");
// Codes and scale of one draw.
QUINTIL_API std::tuple<at::Tensor, at::Tensor> luq_codes(const at::Tensor& x, int64_t seed, int64_t bits = 4,
                                                         int64_t sample = 0);
QUINTIL_API at::Tensor sawb_clip(const at::Tensor& x);
QUINTIL_API at::Tensor minifloat_quantize(const at::Tensor& x, const std::vector<int64_t>& significand_bits,
                                          const at::Tensor& exponent, std::optional<int64_t> seed = std::nullopt,
                                          const std::optional<at::Tensor>& previous = std::nullopt);

// Sets the width of the layers of a scripted Double Rounding model, and lets every BatchNorm per width follow, as
// quintil.set_bits does in Python; layers that no pattern matches keep theirs. Before anything is changed: ValueError
// for a width that a layer does not have or a module without such layers, IndexError for a pattern that matches none.
QUINTIL_API void set_bits(torch::jit::Module& module, int64_t bits);
QUINTIL_API void set_bits(torch::jit::Module& module, const LayerBits& bits);

// Fills a scripted model with what quintil.save_quantized wrote, for HDQT, Double Rounding and VecQ (whose recurrent
// layers TorchScript cannot hold), and puts it into evaluation mode at the given widths; without them, and where they
// name no layer, at the highest, or at those of the fold. The module is the saved architecture, quantised (and folded)
// before it was scripted; its values, if it has any, are lost. ValueError for a file that is absent, damaged or does
// not fit the module; what set_bits raises.
QUINTIL_API void load_quantized(torch::jit::Module& module, const std::string& path,
                                std::optional<int64_t> bits = std::nullopt);
QUINTIL_API void load_quantized(torch::jit::Module& module, const std::string& path, const LayerBits& bits);

// The instruction set in use: scalar, avx2, avx512vnni or amx. QUINTIL_ISA forces one.
QUINTIL_API std::string active_isa();

// Checked mode: ops raise ValueError on NaN and Inf instead of passing NaN on. QUINTIL_CHECKED=1 starts with it.
QUINTIL_API void set_checked(bool on);

}  // namespace quintil
