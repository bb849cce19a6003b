"""nn.LSTM, nn.GRU and nn.LSTMCell on half-integer levels [VECQ 2.9].

Every weight and bias is one tensor with a length of its own. Quantised activations are the input, and of whole
sequences the output and the final states; states between time steps stay float32, and so do products in training. In
evaluation under `torch.no_grad`, layers with activations and weights of up to 8 bits multiply codes, where a state
takes one of 16 bits (`recurrent_products.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from quintil.nn import run_products
from quintil.nn.levels import ActivationQuantizer, Kept, LevelQuantizer
from quintil.nn.recurrent_products import Matrix, States, scan, state_step
from quintil.nn.registry import SwappedLayer, swaps
from quintil.nn.vecq import DEEPEST_SUM, level_sizes, run_starts, uneven_groups
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
        self.integers = self.has_integers(scheme)
        self._kept = Kept()

    def detach(self) -> None:
        del self.parameter_quantizers, self.activation_quantizers, self.integers, self._kept
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

    def has_integers(self, scheme: VecQ) -> bool:
        """Whether evaluation multiplies codes: of bytes, in sums that fit int32."""
        bits = scheme.activation_bits
        if bits is None or max(bits, scheme.weight_bits) > 8 or scheme.levels == "ul2q":
            return False
        return all(p.numel() > 0 and p.size(1) <= DEEPEST_SUM for p in _matrices(self).values())

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

    def times_input(self, matrix: Matrix, x: Tensor, bias: Tensor | None) -> Tensor:
        """The product of the layer's input [.., K], float, as codes."""
        quantizer = self.activation_quantizers["input"]
        return matrix.times_codes(*quantizer.codes(x), quantizer.bits, bias)

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
    """Layers that run over whole sequences: torch's own forward on the quantised parameters, or integer products."""

    def _run(self, input: Any, hx: Any) -> Any:
        """The parent reads its parameters from a list; they stand there for the length of the call."""
        if self.uses_integers():
            return self._run_integers(input, hx)
        self._update_flat_weights()  # else the parent would, in place of the list below
        own = self._flat_weights
        self._flat_weights = [self.quantized(name) for name in self._flat_weights_names]
        try:
            return super().forward(self.quantized_activation("input", input), hx)
        finally:
            self._flat_weights = own

    def _run_integers(self, input: Any, hx: Any) -> Any:
        """Output and states as the parent gives them."""
        if isinstance(input, PackedSequence):
            sizes, given = input.batch_sizes.tolist(), self._given_states(hx, input.data, int(input.batch_sizes[0]))
            self.check_forward_args(input.data, self._as_argument(given), input.batch_sizes)
            if hx is not None:
                given = tuple(s if input.sorted_indices is None else s[:, input.sorted_indices] for s in given)
            output, states = self._layers(input.data, sizes, given)
            if input.unsorted_indices is not None:
                states = tuple(s[:, input.unsorted_indices] for s in states)
            return input._replace(data=output), self._as_argument(states)
        single = input.dim() == 2
        x = input.unsqueeze(1) if single else input.transpose(0, 1) if self.batch_first else input
        if hx is not None and single:
            hx = tuple(s.unsqueeze(1) for s in hx) if isinstance(hx, tuple) else hx.unsqueeze(1)
        given = self._given_states(hx, x, x.size(1))
        self.check_forward_args(x.transpose(0, 1) if self.batch_first else x, self._as_argument(given), None)
        if len(x) == 0:
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
        output, states = self._layers(x.flatten(0, 1), [x.size(1)] * len(x), given)
        output = output.unflatten(0, x.shape[:2])
        if single:
            return output.squeeze(1), self._as_argument(tuple(s.squeeze(1) for s in states))
        return output.transpose(0, 1) if self.batch_first else output, self._as_argument(states)

    def _given_states(self, hx: Any, x: Tensor, rows: int) -> States:
        """The states at the start [layers * directions, rows, ...]; zeros where none are given."""
        if hx is not None:
            return hx if isinstance(hx, tuple) else (hx,)
        layers = self.num_layers * (2 if self.bidirectional else 1)
        return tuple(x.new_zeros(layers, rows, size) for size in self._state_sizes())

    def _as_argument(self, states: States) -> Any:
        return states if len(states) > 1 else states[0]

    def _layers(self, x: Tensor, sizes: list[int], given: States) -> tuple[Tensor, States]:
        """Time step after time step, [sum of sizes, features], through all layers."""
        operands = self.operands()
        step, directions = state_step(self._largest_state(operands, given[0])), 2 if self.bidirectional else 1
        start = [state.float() for state in given]
        output, ends = x, []
        for layer in range(self.num_layers):
            found = []
            for reverse in range(directions):
                own = f"_l{layer}{'_reverse' if reverse else ''}"
                weight, (bias, run) = operands[f"weight_ih{own}"], self._steps(operands, own, step)
                if layer == 0:
                    part = self.times_input(weight, x, bias)
                else:
                    part = weight.times_state(output, step).add_(weight.halves(step, bias))
                states = tuple(state[layer * directions + reverse] for state in start)
                found.append(run(part, sizes, states, bool(reverse)))
            output = torch.cat([outputs for outputs, _ in found], -1)
            ends += [states for _, states in found]
        return output.to(x.dtype), tuple(torch.stack(s).to(given[0].dtype) for s in zip(*ends))

    def _largest_state(self, operands: dict[str, Any], hidden: Tensor) -> Tensor:
        """A bound for |state|: 1 after a tanh, or what the layer starts from."""
        return torch.cat([hidden.float().abs().flatten(), torch.ones(1)]).max()


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

    def _state_sizes(self) -> tuple[int, int]:
        return self.proj_size or self.hidden_size, self.hidden_size

    def _largest_state(self, operands: dict[str, Any], hidden: Tensor) -> Tensor:
        """Of a projection, the largest sum of sizes of a row of its weight."""
        largest = super()._largest_state(operands, hidden)
        for name in _matrices(self):
            if name.startswith("weight_hr"):
                largest = torch.maximum(largest, self.quantized(name).float().abs().sum(1).max())
        return largest

    def _steps(self, operands: dict[str, Any], own: str, step: Tensor) -> tuple[Tensor | None, Any]:
        """What is added to every product of the input, and the function that runs through all time steps, as `scan`."""
        recurrent, projection = operands[f"weight_hh{own}"], operands.get(f"weight_hr{own}")
        bias = recurrent.halves(step, operands[f"bias_ih{own}"] + operands[f"bias_hh{own}"] if self.bias else None)
        within_one = state_step()
        halves = None if projection is None else projection.halves(within_one, None)

        def run(part: Tensor, sizes: list[int], states: States, backwards: bool) -> tuple[Tensor, States]:
            if projection is not None or recurrent.of_scan is None:
                return scan(advance, part, sizes, states, backwards)
            weight, lengths, odd = recurrent.of_scan
            outputs, *ends = torch.ops.quintil._lstm_scan(part, sizes, backwards, *states, weight, lengths, step, odd)
            return outputs, tuple(ends)

        def advance(part: Tensor, states: States) -> States:
            h, cell = torch.ops.quintil._lstm_cell(recurrent.of_bytes(states[0], step), part, states[1])
            if projection is not None:  # a NaN has no code: the step takes it over
                h = projection.times_state(h, within_one + 0 * h.sum()).add_(halves)
            return h, cell

        return bias, run


@swaps(VecQ, nn.GRU)
class VecQGRU(_Sequence, nn.GRU):
    """nn.GRU on half-integer levels, with the arguments and results of nn.GRU."""

    def forward(self, input: Any, hx: Tensor | None = None) -> tuple[Any, Tensor]:
        output, hidden = self._run(input, hx)
        return self.quantized_activation("output", output), self.quantized_activation("hidden", hidden)

    def _state_sizes(self) -> tuple[int]:
        return (self.hidden_size,)

    def _steps(self, operands: dict[str, Any], own: str, step: Tensor) -> tuple[Tensor | None, Any]:
        recurrent = operands[f"weight_hh{own}"]
        halves = recurrent.halves(step, operands.get(f"bias_hh{own}"))

        def run(part: Tensor, sizes: list[int], states: States, backwards: bool) -> tuple[Tensor, States]:
            if recurrent.of_scan is None:
                return scan(advance, part, sizes, states, backwards)
            weight, lengths, odd = recurrent.of_scan
            outputs, *ends = torch.ops.quintil._gru_scan(
                part, sizes, backwards, *states, weight, lengths, halves, step, odd
            )
            return outputs, tuple(ends)

        def advance(part: Tensor, states: States) -> States:
            return (torch.ops.quintil._gru_cell(recurrent.of_bytes(states[0], step), halves, part, states[0]),)

        return operands.get(f"bias_ih{own}"), run


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
        part = self.times_input(operands["weight_ih"], x, bias)
        h, c = torch.ops.quintil._lstm_cell(recurrent.of_bytes(h.float(), step), part, c.float())
        return h.to(x.dtype), c.to(x.dtype)
