// Gradient of hadamard_conv2d [HDQT H9-H12]: the two products of the linear layer per sample, unfolded.
// Saved for it: the packed codes of the image and of the weight and four scalars, nothing in float.
#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "csrc/autograd/layer.h"

namespace quintil::autograd {

namespace {

using at::Tensor;
using std::optional;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Seed = optional<c10::SymInt>;
using Sizes = std::vector<c10::SymInt>;
using SizesRef = c10::SymIntArrayRef;
using Forward = std::tuple<Tensor, Tensor, Tensor, Tensor>;
using Backward = std::tuple<Tensor, Tensor, Tensor>;

// Stride, padding, dilation and the sizes of both operands.
struct Geometry {
  Sizes x, w, stride, padding, dilation;
};

Forward forward_below(const Tensor& x, const Tensor& weight, const optional<Tensor>& bias, const Geometry& g,
                      at::IntArrayRef options, double range_fraction, Seed seed, bool save) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("quintil::_hadamard_conv2d_forward", "")
                             .typed<Forward(const Tensor&, const Tensor&, const optional<Tensor>&, SizesRef, SizesRef,
                                            SizesRef, at::IntArrayRef, double, Seed, bool)>();
  const at::AutoDispatchBelowAutograd guard;
  return op.call(x, weight, bias, g.stride, g.padding, g.dilation, options, range_fraction, std::move(seed), save);
}

Backward call_backward(const Tensor& grad, const variable_list& saved, const Geometry& g, at::IntArrayRef options,
                       Seed seed, std::array<bool, 3> needed) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("quintil::_hadamard_conv2d_backward", "")
          .typed<Backward(const Tensor&, const Tensor&, const Tensor&, const Tensor&, SizesRef, SizesRef, SizesRef,
                          SizesRef, SizesRef, at::IntArrayRef, Seed, std::array<bool, 3>)>();
  return op.call(grad, saved[0], saved[1], saved[2], g.x, g.w, g.stride, g.padding, g.dilation, options,
                 std::move(seed), needed);
}

struct HadamardConv2d : torch::autograd::Function<HadamardConv2d> {
  static variable_list forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight,
                               const optional<Tensor>& bias, const Geometry& g, std::vector<int64_t> options,
                               double range_fraction, Seed seed) {
    const auto config = ops::HadamardConfig::decode(options);
    auto [y, x_codes, weight_codes, scales] = forward_below(x, weight, bias, g, options, range_fraction, seed, true);
    ctx->save_for_backward({x_codes, weight_codes, scales, straight_through_mask(x, config, range_fraction),
                            straight_through_mask(weight, config, range_fraction)});
    ctx->saved_data["options"] = options;
    ctx->saved_data["seed"] = seed;
    ctx->saved_data["has_bias"] = bias.has_value();
    ctx->saved_data["x_size"] = g.x;
    ctx->saved_data["w_size"] = g.w;
    ctx->saved_data["stride"] = g.stride;
    ctx->saved_data["padding"] = g.padding;
    ctx->saved_data["dilation"] = g.dilation;
    ctx->mark_non_differentiable({x_codes, weight_codes, scales});
    ctx->set_materialize_grads(false);
    return {y, x_codes, weight_codes, scales};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    if (!grads[0].defined()) return variable_list(7);
    const variable_list saved = ctx->get_saved_variables();
    const auto options = ctx->saved_data["options"].toIntVector();
    const auto seed = ctx->saved_data["seed"].toOptional<c10::SymInt>();
    check_seed("hadamard_conv2d", ops::HadamardConfig::decode(options), seed);
    const auto sizes = [&](const char* name) { return ctx->saved_data[name].toSymIntVector(); };
    const Geometry g{sizes("x_size"), sizes("w_size"), sizes("stride"), sizes("padding"), sizes("dilation")};
    const std::array<bool, 3> needed = needed_gradients(*ctx);
    auto [dx, dw, db] = call_backward(grads[0], saved, g, options, seed, needed);
    return {needed[0] ? masked(dx, saved[3]) : Tensor(),
            needed[1] ? masked(dw, saved[4]) : Tensor(),
            needed[2] ? db : Tensor(),
            Tensor(),
            Tensor(),
            Tensor(),
            Tensor()};
  }
};

Forward forward_autograd(const Tensor& x, const Tensor& weight, const optional<Tensor>& bias, SizesRef stride,
                         SizesRef padding, SizesRef dilation, at::IntArrayRef options, double range_fraction, Seed seed,
                         bool save) {
  const Geometry g{x.sym_sizes().vec(), weight.sym_sizes().vec(), stride.vec(), padding.vec(), dilation.vec()};
  check_no_tangent("hadamard_conv2d", x, weight, bias);
  if (!save) return forward_below(x, weight, bias, g, options, range_fraction, std::move(seed), save);
  const auto r = HadamardConv2d::apply(x, weight, bias, g, options.vec(), range_fraction, std::move(seed));
  return {r[0], r[1], r[2], r[3]};
}

Backward backward_autograd(const Tensor& grad, const Tensor& x_codes, const Tensor& weight_codes, const Tensor& scales,
                           SizesRef x_size, SizesRef w_size, SizesRef stride, SizesRef padding, SizesRef dilation,
                           at::IntArrayRef options, Seed seed, std::array<bool, 3> needed) {
  const Geometry g{x_size.vec(), w_size.vec(), stride.vec(), padding.vec(), dilation.vec()};
  check_once("hadamard_conv2d", grad);
  const at::AutoDispatchBelowAutograd guard;
  return call_backward(grad, {x_codes, weight_codes, scales}, g, options, std::move(seed), needed);
}

}  // namespace

TORCH_LIBRARY_IMPL(quintil, Autograd, m) {
  m.impl("_hadamard_conv2d_forward", forward_autograd);
  m.impl("_hadamard_conv2d_backward", backward_autograd);
}

}  // namespace quintil::autograd
