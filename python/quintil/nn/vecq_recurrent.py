"""nn.LSTM, nn.GRU and nn.LSTMCell on half-integer levels [VECQ 2.9].

Every weight and bias is one tensor with a length of its own. Quantised activations are the input, and of whole
sequences the output and the final states; states between time steps stay float32, so the products do too, in
evaluation as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from quintil.nn.levels import ActivationQuantizer, LevelQuantizer
from quintil.nn.registry import SwappedLayer, swaps
from quintil.nn.vecq import level_sizes, uneven_groups
from quintil.schemes import VecQ


def _matrices(module: nn.Module) -> dict[str, nn.Parameter]:
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

    def detach(self) -> None:
        del self.parameter_quantizers, self.activation_quantizers
        super().detach()

    @classmethod
    def refusal(cls, module: nn.Module, scheme: VecQ) -> str | None:
        for name, p in _matrices(module).items():
            if p.device.type not in ("cpu", "meta"):
                return f"its {name} is on {p.device}, expected the CPU"
            if not p.is_floating_point():
                return f"its {name} is {p.dtype}, expected a floating-point dtype"
            if uneven_groups(p, scheme) is not None:
                return uneven_groups(p, scheme)
        return None

    def levels(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Every weight as half-integers and their lengths, float32, by its name [VECQ V1]."""
        found = {name: self.parameter_quantizers[name].codes(p) for name, p in _matrices(self).items()}
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


class _Sequence(VecQRecurrent):
    """Layers that run over whole sequences: torch's own forward on the quantised parameters."""

    def _run(self, input: Any, hx: Any) -> Any:
        """The parent reads its parameters from a list; they stand there for the length of the call."""
        self._update_flat_weights()  # else the parent would, in place of the list below
        own = self._flat_weights
        self._flat_weights = [self.quantized(name) for name in self._flat_weights_names]
        try:
            return super().forward(self.quantized_activation("input", input), hx)
        finally:
            self._flat_weights = own


@swaps(VecQ, nn.LSTM)
class VecQLSTM(_Sequence, nn.LSTM):
    """nn.LSTM on half-integer levels, with the arguments and results of nn.LSTM.

    `quintil.quantize_` turns nn.LSTM into it; directly: VecQLSTM(<arguments of nn.LSTM>, scheme=VecQ()).
    """

    activations = ("input", "output", "hidden", "cell")

    def forward(self, input: Any, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Any, tuple[Tensor, Tensor]]:
        output, (hidden, cell) = self._run(input, hx)
        states = self.quantized_activation("hidden", hidden), self.quantized_activation("cell", cell)
        return self.quantized_activation("output", output), states


@swaps(VecQ, nn.GRU)
class VecQGRU(_Sequence, nn.GRU):
    """nn.GRU on half-integer levels, with the arguments and results of nn.GRU."""

    def forward(self, input: Any, hx: Tensor | None = None) -> tuple[Any, Tensor]:
        output, hidden = self._run(input, hx)
        return self.quantized_activation("output", output), self.quantized_activation("hidden", hidden)


@swaps(VecQ, nn.LSTMCell)
class VecQLSTMCell(VecQRecurrent, nn.LSTMCell):
    """nn.LSTMCell on half-integer levels: one time step, whose states stay float32."""

    activations = ("input",)

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        if hx is None:
            zeros = input.new_zeros(*input.shape[:-1], self.hidden_size)
            hx = (zeros, zeros)
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh") if self.bias else ("weight_ih", "weight_hh")
        batch = input.dim() > 1
        x, h, c = (t if batch else t.unsqueeze(0) for t in (self.quantized_activation("input", input), *hx))
        h, c = torch.lstm_cell(x, (h, c), *(self.quantized(name) for name in names))
        return (h, c) if batch else (h.squeeze(0), c.squeeze(0))
