// Every schema of torch.ops.quintil on one page. Implementations stand beside their ops. All ops are pure functions of
// their arguments; a seed is SymInt, else torch.compile recompiles for every value. Names that start with `_` are
// private halves: the options travel through them as the integers of HadamardConfig::encode() or StepConfig::encode().
#include <torch/library.h>

#include "csrc/kernels/dispatch.h"
#include "csrc/quintil.h"

namespace {

// The options that hadamard_linear and hadamard_conv2d share.
#define QUINTIL_HADAMARD_OPTIONS                                                                          \
  "int bits=4, int accumulator_bits=8, int tile_size=32, int? backward_accumulator_bits=None, "           \
  "int? weight_gradient_accumulator_bits=None, int backward_tile_size=32, str accumulate='tile_end', "    \
  "str overflow='saturate', str hadamard='padded', int hadamard_block=64, bool requantize=True, "         \
  "str dc_row='together', str ste='identity', str stochastic='b1g,b2a,b2g', float range_fraction=0.975, " \
  "SymInt? seed=None"

std::string active_isa() {
  try {
    return quintil::active_isa();
  } catch (const std::invalid_argument& error) {
    TORCH_CHECK_VALUE(false, error.what());
  }
}

}  // namespace

TORCH_LIBRARY(quintil, m) {
  m.def("active_isa() -> str", active_isa);
  m.def("_set_checked(bool on) -> ()", quintil::set_checked);

  const std::vector<at::Tag> tags = {at::Tag::pt2_compliant_tag};
  m.def(
      "quantize(Tensor x, int bits, *, bool signed=True, bool narrow=True, float range_fraction=1.0, "
      "Tensor? scale=None, SymInt? seed=None) -> (Tensor codes, Tensor scale)",
      tags);
  m.def("dequantize(Tensor codes, Tensor scale) -> Tensor", tags);
  m.def("pack_int4(Tensor codes) -> Tensor", tags);
  m.def("unpack_int4(Tensor packed, SymInt size, *, bool signed=True) -> Tensor", tags);
  m.def("hadamard_transform(Tensor x, int dim=-1, *, str hadamard='padded', int block=64) -> Tensor", tags);
  m.def(
      "tiled_int_mm(Tensor a, Tensor b, *, int tile_size=32, int accumulator_bits=8, str accumulate='tile_end', "
      "str overflow='saturate') -> Tensor",
      tags);
  m.def("tile_saturation(Tensor a, Tensor b, *, int tile_size=32, int accumulator_bits=8) -> Tensor", tags);
  m.def("hadamard_linear(Tensor x, Tensor weight, Tensor? bias=None, *, " QUINTIL_HADAMARD_OPTIONS ") -> Tensor", tags);
  m.def(
      "hadamard_conv2d(Tensor x, Tensor weight, Tensor? bias=None, SymInt[2] stride=1, SymInt[2] padding=0, "
      "SymInt[2] dilation=1, *, " QUINTIL_HADAMARD_OPTIONS
      ", str conv_backward='per_sample', str tile_order='khwc') -> Tensor",
      tags);
  m.def(
      "hadamard_conv2d_batch_norm(Tensor x, Tensor weight, Tensor norm_weight, Tensor norm_bias, Tensor? "
      "residual=None, "
      "SymInt[2] stride=1, SymInt[2] padding=0, SymInt[2] dilation=1, *, bool relu=True, float "
      "eps=1e-05, " QUINTIL_HADAMARD_OPTIONS
      ", str conv_backward='per_sample', str tile_order='khwc') -> (Tensor y, Tensor mean, "
      "Tensor variance)",
      tags);
  m.def(
      "lsq_quantize(Tensor x, Tensor scale, int bits, *, bool signed=False, Tensor? offset=None, "
      "str mask_on='scaled') -> Tensor",
      tags);
  m.def("double_round(Tensor codes, int from_bits, int to_bits, *, str rounding='half_even') -> Tensor", tags);
  m.def(
      "double_round.out(Tensor codes, int from_bits, int to_bits, *, str rounding='half_even', Tensor(a!) out) -> "
      "Tensor(a!)",
      tags);
  m.def(
      "double_round_quantize(Tensor x, Tensor scale, int from_bits, int to_bits, *, str rounding='half_even', "
      "bool chain_pow2=False, str weight_source='stored', str mask_on='scaled', str scale_residual='double', "
      "str scale_grad_sum='channel') -> Tensor",
      tags);
  m.def(
      "int_linear(Tensor x, Tensor x_scale, Tensor weight, Tensor weight_scale, Tensor? bias=None, *, int x_zero2=0, "
      "int weight_zero2=0, Tensor? residual=None, bool relu=False, Tensor? out_scale=None, int out_bits=8) -> Tensor",
      tags);
  m.def(
      "int_conv2d(Tensor x, Tensor x_scale, Tensor weight, Tensor weight_scale, Tensor? bias=None, SymInt[2] stride=1, "
      "SymInt[2] padding=0, SymInt[2] dilation=1, *, int x_zero2=0, int weight_zero2=0, Tensor? residual=None, "
      "bool relu=False, Tensor? out_scale=None, int out_bits=8) -> Tensor",
      tags);
  m.def("affine_quantize(Tensor x, Tensor gain, Tensor shift, Tensor scale, int bits, *, bool signed=False) -> Tensor",
        tags);

  m.def(
      "vecq_step(Tensor x, int bits, *, bool per_channel=False, int group_size=0, str sigma='population', "
      "str lambda_mode='table') -> Tensor",
      tags);
  m.def(
      "vecq_quantize(Tensor x, int bits, *, Tensor? step=None, str drive='projection', Tensor? alpha=None, "
      "str grad_mode='ste', float grad_ratio=0.0) -> (Tensor y, Tensor codes, Tensor alpha)",
      tags);
  m.def("vecq_codes(Tensor x, int bits, Tensor step) -> Tensor", tags);
  m.def(
      "vecq_activation(Tensor x, int bits, Tensor averages, *, bool training, float momentum=0.9, "
      "str drive='projection', str sigma='population') -> (Tensor y, Tensor averages)",
      tags);
  m.def(
      "vecq_losses(Tensor x, Tensor y, *, bool per_channel=False) -> (Tensor orientation, Tensor modulus, Tensor "
      "total)",
      tags);

  m.def("luq_quantize(Tensor x, *, SymInt seed, int bits=4, int samples=1, str levels='corrected') -> Tensor", tags);
  m.def("luq_codes(Tensor x, *, SymInt seed, int bits=4, int sample=0) -> (Tensor codes, Tensor scale)", tags);
  m.def("sawb_clip(Tensor x) -> Tensor", tags);
  m.def(
      "minifloat_quantize(Tensor x, int[] significand_bits, Tensor exponent, *, SymInt? seed=None, "
      "Tensor? previous=None) -> Tensor",
      tags);

  m.def("_state_codes(Tensor h, Tensor step) -> Tensor", tags);
  m.def("_lstm_cell(Tensor products, Tensor part, Tensor cell) -> (Tensor state, Tensor cell)", tags);
  m.def("_gru_cell(Tensor products, Tensor bias, Tensor part, Tensor state) -> Tensor", tags);
  m.def(
      "_lstm_scan(Tensor parts, int[] sizes, bool backwards, Tensor state, Tensor cell, Tensor weight, Tensor lengths, "
      "Tensor step, bool odd) -> (Tensor outputs, Tensor state, Tensor cell)",
      tags);
  m.def(
      "_gru_scan(Tensor parts, int[] sizes, bool backwards, Tensor state, Tensor weight, Tensor lengths, Tensor bias, "
      "Tensor step, bool odd) -> (Tensor outputs, Tensor state)",
      tags);

  m.def(
      "_hadamard_linear_forward(Tensor x, Tensor weight, Tensor? bias, int[] options, float range_fraction, "
      "SymInt? seed, bool save) -> (Tensor y, Tensor x_codes, Tensor weight_codes, Tensor scales)",
      tags);
  m.def(
      "_hadamard_linear_backward(Tensor grad, Tensor x_codes, Tensor weight_codes, Tensor scales, SymInt k, "
      "int[] options, SymInt? seed, bool[3] needed) -> (Tensor dx, Tensor dw, Tensor db)",
      tags);
  m.def(
      "_hadamard_conv2d_forward(Tensor x, Tensor weight, Tensor? bias, SymInt[2] stride, SymInt[2] padding, "
      "SymInt[2] dilation, int[] options, float range_fraction, SymInt? seed, bool save) -> (Tensor y, "
      "Tensor x_codes, Tensor weight_codes, Tensor scales)",
      tags);
  m.def(
      "_hadamard_conv2d_backward(Tensor grad, Tensor x_codes, Tensor weight_codes, Tensor scales, SymInt[] x_size, "
      "SymInt[] w_size, SymInt[2] stride, SymInt[2] padding, SymInt[2] dilation, int[] options, SymInt? seed, "
      "bool[3] needed) -> (Tensor dx, Tensor dw, Tensor db)",
      tags);
  m.def(
      "_hadamard_conv2d_batch_norm_forward(Tensor x, Tensor weight, Tensor norm_weight, Tensor norm_bias, "
      "Tensor? residual, SymInt[2] stride, SymInt[2] padding, SymInt[2] dilation, int[] options, bool relu, float eps, "
      "float range_fraction, SymInt? seed) -> (Tensor y, Tensor mean, Tensor variance, Tensor sums, Tensor positive, "
      "Tensor constants, Tensor x_codes, Tensor weight_codes, Tensor scales)",
      tags);
  m.def(
      "_hadamard_conv2d_batch_norm_backward(Tensor grad, Tensor sums, Tensor positive, Tensor constants, "
      "Tensor x_codes, Tensor weight_codes, Tensor scales, SymInt[] x_size, SymInt[] w_size, SymInt[2] stride, "
      "SymInt[2] padding, SymInt[2] dilation, int[] options, SymInt? seed, bool[3] needed) -> (Tensor dx, Tensor dw, "
      "Tensor norm_weight, Tensor norm_bias, Tensor residual)",
      tags);
  m.def("_lsq_forward(Tensor x, Tensor scale, Tensor? offset, int[] options) -> Tensor", tags);
  m.def(
      "_lsq_backward(Tensor grad, Tensor x, Tensor scale, Tensor? offset, int[] options) -> (Tensor dx, "
      "Tensor dscale, Tensor doffset)",
      tags);
  m.def(
      "_vecq_forward(Tensor x, int bits, Tensor step, Tensor? alpha, int drive, int grad_mode, float ratio) -> "
      "(Tensor y, Tensor codes, Tensor alpha, Tensor bounds)",
      tags);
  m.def("_luq_forward(Tensor x, SymInt seed, int bits, int samples, int levels) -> Tensor", tags);
  m.def(
      "_minifloat_forward(Tensor x, int[] significand_bits, Tensor exponent, SymInt? seed, Tensor? previous) -> Tensor",
      tags);
}
