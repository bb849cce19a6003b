"""What VecQ's recurrent layers share, and nn.LSTMCell on half-integer levels [VECQ 2.9]; nn.LSTM and nn.GRU are in
`vecq_sequences.py`.

Every weight and bias is one tensor with a length of its own. Quantised activations are the input, and of whole
sequences the output and the final states; states between time steps stay float32, and so do products in training. In
evaluation under `torch.no_grad`, layers with activations and weights of up to 8 bits multiply codes, where a state
takes one of 16 bits (`recurrent_products.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from quintil.nn import run_products
from quintil.nn.kept import Kept
from quintil.nn.levels import ActivationQuantizer, LevelQuantizer
from quintil.nn.recurrent_products import Matrix, state_step
from quintil.nn.registry import SwappedLayer, swaps
from quintil.nn.vecq import DEEPEST_SUM, level_sizes, run_starts, uneven_groups
from quintil.schemes import VecQ


def matrices(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in module.named_parameters(recurse=False) if p.dim() > 1}


class VecQRecurrent(SwappedLayer):
    """What recurrent layers share: a quantiser for each of their own parameters, and for what goes in and out."""

    activations = ("input", "output", "hidden")

    def attach(self, scheme: VecQ) -> None:
        super().attach(scheme)
        own = dict(self.named_parameters(recurse=False))
        device = next(iter(own.values())).device
        bias_bits = scheme.weight_bits if scheme.quantize_bias else 0
        self.parameter_quantizers = nn.ModuleDict(
            {
                name: (
                    LevelQuantizer(scheme.weight_bits, scheme, level_sizes(p, scheme), device)
                    if p.dim() > 1
                    else LevelQuantizer(bias_bits, scheme, (), device)
                )
                for name, p in own.items()
            }
        ).train(self.training)
        self.activation_quantizers = nn.ModuleDict(
            {place: ActivationQuantizer(scheme.activation_bits or 0, scheme, device) for place in self.activations}
        ).train(self.training)
        self.integers = self.has_integers(scheme)
        self._kept = Kept()

    def detach(self) -> None:
        del self.parameter_quantizers, self.activation_quantizers, self.integers, self._kept
        super().detach()

    @classmethod
    def refusal(cls, module: nn.Module, scheme: VecQ) -> str | None:
        for name, p in matrices(module).items():
            if p.device.type not in ("cpu", "meta"):
                return f"its {name} is on {p.device}, expected the CPU"
            if not p.is_floating_point():
                return f"its {name} is {p.dtype}, expected a floating-point dtype"
            if uneven_groups(p, scheme) is not None:
                return uneven_groups(p, scheme)
        return None

    def has_integers(self, scheme: VecQ) -> bool:
        """Whether evaluation multiplies codes: of bytes, in sums that fit int32."""
        bits = scheme.activation_bits
        if bits is None or max(bits, scheme.weight_bits) > 8 or scheme.levels == "ul2q":
            return False
        return all(p.numel() > 0 and p.size(1) <= DEEPEST_SUM for p in matrices(self).values())

    def uses_integers(self) -> bool:
        """Whether the next forward multiplies codes."""
        learning = self.training or self.activation_quantizers["input"].training or torch.is_grad_enabled()
        return self.integers and not learning

    def train(self, mode: bool = True) -> nn.Module:
        self._kept.clear()
        return super().train(mode)

    def __prepare_scriptable__(self) -> nn.Module:
        """torch.jit.script asks for it first; what it would say itself names a line of the forward."""
        raise NotImplementedError(
            f"torch.jit.script: expected layers that TorchScript can hold, got {type(self).__name__} of VecQ"
        )

    def operands(self) -> dict[str, Any]:
        """Every weight as integers and every bias as float32, by its name; made again only where something changed."""
        own = dict(self.named_parameters(recurse=False))
        sources = [*own.values(), *(self.parameter_quantizers[name].alpha for name in own)]
        return self._kept.get(sources, self._make_operands)

    def _make_operands(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, p in self.named_parameters(recurse=False):
            if p.dim() == 1:
                found[name] = self.quantized(name).float()
                continue
            codes, alpha = self.parameter_quantizers[name].codes(p)
            bits = self.scheme.weight_bits
            lengths = run_products.run_lengths(alpha, len(p), bits)
            found[name] = Matrix(run_products.centred(codes, bits), lengths, run_starts(p.size(1), self.scheme), bits)
        return found

    def input_product(self, x: Tensor) -> Callable[..., Tensor]:
        """The layer's input [rows, K], float, as codes: matrix, bias, first row, last row -> their product [.., N]."""
        quantizer = self.activation_quantizers["input"]
        codes, scale = quantizer.codes(x)

        def product(matrix: Matrix, bias: Tensor | None, first: int = 0, last: int | None = None) -> Tensor:
            return matrix.times_codes(codes[first:last], scale, quantizer.bits, bias)

        return product

    def levels(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Every weight as half-integers and their lengths, float32, by its name [VECQ V1]."""
        found = {name: self.parameter_quantizers[name].codes(p) for name, p in matrices(self).items()}
        return {name: (codes.float() + 0.5, alpha) for name, (codes, alpha) in found.items()}

    def pack_others(self) -> dict[str, dict[str, Tensor]]:
        """Codes and lengths of every parameter that is quantised to at most 8 bits."""
        found = {name: self.parameter_quantizers[name].pack(p) for name, p in self.named_parameters(recurse=False)}
        return {name: parts for name, parts in found.items() if parts}

    def unpack_others(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        for name, parts in tensors.items():
            self.parameter_quantizers[name].unpack(getattr(self, name), parts)

    def quantized(self, name: str) -> Tensor:
        """A parameter on its levels, float."""
        return self.parameter_quantizers[name](getattr(self, name))

    def quantized_activation(self, place: str, x: Any) -> Any:
        """A tensor or a packed sequence on its levels."""
        quantizer = self.activation_quantizers[place]
        return x._replace(data=quantizer(x.data)) if isinstance(x, PackedSequence) else quantizer(x)


@swaps(VecQ, nn.LSTMCell)
class VecQLSTMCell(VecQRecurrent, nn.LSTMCell):
    """nn.LSTMCell on half-integer levels: one time step, whose states stay float32."""

    activations = ("input",)

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        if hx is None:
            zeros = input.new_zeros(*input.shape[:-1], self.hidden_size)
            hx = (zeros, zeros)
        batch = input.dim() > 1
        if self.uses_integers():
            h, c = self._integer_forward(*(t if batch else t.unsqueeze(0) for t in (input, *hx)))
        else:
            names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh") if self.bias else ("weight_ih", "weight_hh")
            x, h, c = (t if batch else t.unsqueeze(0) for t in (self.quantized_activation("input", input), *hx))
            h, c = torch.lstm_cell(x, (h, c), *(self.quantized(name) for name in names))
        return (h, c) if batch else (h.squeeze(0), c.squeeze(0))

    def _integer_forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        operands = self.operands()
        step = state_step(torch.cat([h.float().abs().flatten(), torch.ones(1)]).max())
        recurrent = operands["weight_hh"]
        bias = recurrent.halves(step, operands["bias_ih"] + operands["bias_hh"] if self.bias else None)
        part = self.input_product(x)(operands["weight_ih"], bias)
        h, c = torch.ops.quintil._lstm_cell(recurrent.of_bytes(h.float(), step), part, c.float())
        return h.to(x.dtype), c.to(x.dtype)
