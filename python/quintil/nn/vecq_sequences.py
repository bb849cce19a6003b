"""nn.LSTM and nn.GRU on half-integer levels [VECQ 2.9]: whole sequences, by torch's forward on quantised parameters,
or in evaluation by integer products (`recurrent_products.py`).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from quintil.nn.recurrent_products import Matrix, States, in_pieces, scan, state_step
from quintil.nn.registry import swaps
from quintil.nn.vecq_recurrent import VecQRecurrent, matrices
from quintil.schemes import VecQ


def _state_product(states: Tensor, step: Tensor, weight: Matrix, halves: Tensor, first: int, last: int) -> Tensor:
    """The product of rows of the layer below."""
    return weight.times_state(states[first:last], step).add_(halves)


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
        product, ends = self.input_product(x), []
        for layer in range(self.num_layers):
            found = []
            for reverse in range(directions):
                own = f"_l{layer}{'_reverse' if reverse else ''}"
                weight, (bias, run) = operands[f"weight_ih{own}"], self._steps(operands, own, step)
                parts = partial(product, weight, bias if layer == 0 else weight.halves(step, bias))
                states = tuple(state[layer * directions + reverse] for state in start)
                found.append(in_pieces(run, parts, weight.weight.size(0), sizes, states, bool(reverse)))
            output = torch.cat([outputs for outputs, _ in found], -1)
            product = partial(_state_product, output, step)
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
        for name in matrices(self):
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
