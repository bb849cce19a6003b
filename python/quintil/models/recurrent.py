"""An LSTM over windows of sensor signals, whose matrix products are linear layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class WindowLSTM(nn.Module):
    """Windows [N, C, L] -> features [N, hidden], the last hidden state of an LSTM; floats of any range.

    channels: C. hidden: width of the state, and `out_features`. frame: so many neighbouring samples are one time
        step; samples beyond the last whole frame are left out.
    Both products of a step are nn.Linear, so a quantisation scheme that swaps linear layers swaps them: `input` works
    on all steps at once [N * L / frame, C * frame], `state` on one step after the other [N, hidden]; gates and cell
    state stay float32. Weights start uniform in +-1/sqrt(hidden), as nn.LSTM's, drawn from `generator`; biases of the
    forget gate are 1, all others 0. ValueError for windows shorter than a frame.
    """

    def __init__(
        self, channels: int, hidden: int = 64, *, frame: int = 4, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        if min(channels, hidden, frame) < 1:
            raise ValueError(
                f"WindowLSTM: expected channels, hidden and frame of at least 1, got {channels}, {hidden} and {frame}"
            )
        self.frame, self.out_features = frame, hidden
        self.input = nn.Linear(channels * frame, 4 * hidden)
        self.state = nn.Linear(hidden, 4 * hidden, bias=False)
        bound = hidden**-0.5
        with torch.no_grad():
            for layer in (self.input, self.state):
                layer.weight.uniform_(-bound, bound, generator=generator)
            self.input.bias.zero_()[hidden : 2 * hidden] = 1.0

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 3 or x.size(2) < self.frame:
            raise ValueError(
                f"WindowLSTM: expected x [N, C, L] with L of at least {self.frame}, got {list(x.shape)} (a frame is "
                f"{self.frame} samples)"
            )
        steps = x.size(2) // self.frame
        frames = x[:, :, : steps * self.frame].unflatten(2, (steps, self.frame)).transpose(1, 2).flatten(2)
        inputs = self.input(frames).unbind(1)
        h = x.new_zeros(x.size(0), self.out_features)
        c = torch.zeros_like(h)
        for step in inputs:
            i, f, g, o = (step + self.state(h)).chunk(4, dim=1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        return h
