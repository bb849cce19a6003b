"""BatchNorm with parameters and statistics of its own for every width, or every pair of widths [DR D19].

The module's own parameters and statistics serve the highest width; `norms` holds a plain BatchNorm for every other
key: "6" for the width 6, and, if the scheme is transitional, "8_6" where the layer before has 6 bits and the one
before that 8. All start as copies of the BatchNorm that was there.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quintil.nn.swap import SwappedLayer, swaps
from quintil.schemes import DoubleRounding


class _SwitchableNorm(SwappedLayer):
    """What both share: the BatchNorms of the other widths, and which of them is in use."""

    multiplies = False

    @classmethod
    def wanted(cls, scheme: DoubleRounding) -> bool:
        return scheme.switch_norm

    def attach(self, scheme: DoubleRounding) -> None:
        super().attach(scheme)
        self.widths = list(scheme.bits)
        self.transitional = scheme.transitional_norm
        self.own_key = str(scheme.stored_bits)
        self.key = self.own_key
        pairs = [(a, b) for a in scheme.bits for b in scheme.bits if a == b or scheme.transitional_norm]
        keys = [norm_key(*pair) for pair in pairs]
        self.norms = nn.ModuleDict({key: self.copy_of(self) for key in keys if key != self.own_key}).train(
            self.training
        )

    def detach(self) -> None:
        del self.norms, self.widths, self.transitional, self.own_key, self.key
        super().detach()

    @torch.jit.unused
    def copy_of(self, source: nn.Module) -> nn.Module:
        """A plain BatchNorm with the values of another."""
        twin = self.plain_class(source.num_features, source.eps, source.momentum, affine=False)
        twin.affine, twin.track_running_stats = source.affine, source.track_running_stats
        for name, value in source._parameters.items():
            copied = None if value is None else nn.Parameter(value.detach().clone(), value.requires_grad)
            twin.register_parameter(name, copied)
        for name, value in source._buffers.items():
            twin.register_buffer(name, None if value is None else value.clone())
        return twin.train(source.training)

    @torch.jit.unused
    def expand(self) -> None:
        """Add a BatchNorm for every pair of widths, equal to that of the pair's first width [DR D19]."""
        self.transitional = True
        for before in self.widths:
            source = self if str(before) == self.own_key else self.norms[str(before)]
            for bits in self.widths:
                if bits != before:
                    self.norms[norm_key(before, bits)] = self.copy_of(source)

    @torch.jit.unused
    def active(self) -> nn.Module:
        """The BatchNorm in use: this module itself at the highest width."""
        return self if self.key == self.own_key else self.norms[self.key]

    @torch.jit.export
    def set_bits(self, bits: int, before: int = 0) -> None:
        """Take the parameters of the width of the layer before, and of the one before that if the norm is transitional.

        before = 0: the same as `bits`. ValueError for other widths than the scheme's.
        """
        for width in [bits, before if before != 0 else bits]:
            if width not in self.widths:
                raise ValueError(f"set_bits: expected bits to be one of {self.widths}, got {width}")
        if self.transitional and before != 0 and before != bits:
            self.key = f"{before}_{bits}"
        else:
            self.key = f"{bits}"

    def own_forward(self, input: Tensor) -> Tensor:
        """nn.BatchNorm's forward on this module's own values, spelled out, since TorchScript knows no super()."""
        self._check_input_dim(input)
        momentum = 0.0 if self.momentum is None else self.momentum
        count = self.num_batches_tracked
        if self.training and count is not None:
            count.add_(1)
            if self.momentum is None:
                momentum = 1.0 / float(count)
        use_running = not self.training or self.track_running_stats
        return F.batch_norm(
            input,
            self.running_mean if use_running else None,
            self.running_var if use_running else None,
            self.weight,
            self.bias,
            self.training or self.running_mean is None,
            momentum,
            self.eps,
        )

    def forward(self, input: Tensor) -> Tensor:
        if self.key == self.own_key:
            return self.own_forward(input)
        output = input
        for key, norm in self.norms.items():
            if key == self.key:
                output = norm(input)
        return output


def norm_key(before: int, bits: int) -> str:
    return str(bits) if before == bits else f"{before}_{bits}"


@swaps(DoubleRounding, nn.BatchNorm1d)
class SwitchableBatchNorm1d(_SwitchableNorm, nn.BatchNorm1d):
    """nn.BatchNorm1d for layers of several widths."""

    plain_class = nn.BatchNorm1d


@swaps(DoubleRounding, nn.BatchNorm2d)
class SwitchableBatchNorm2d(_SwitchableNorm, nn.BatchNorm2d):
    """nn.BatchNorm2d for layers of several widths."""

    plain_class = nn.BatchNorm2d


def transitional_(model: nn.Module) -> nn.Module:
    """Give every BatchNorm of a Double Rounding model parameters per pair of widths, in place; returns `model`.

    The pair (b1, b2) starts from what the width b1 has [DR D19]: a model trained at several widths becomes the start
    of a super-net. Make the optimiser afterwards. ValueError for a model without BatchNorms per width; one that is
    transitional already is left as it is.
    """
    norms = [module for module in model.modules() if isinstance(module, _SwitchableNorm)]
    if not norms:
        raise ValueError("transitional_: expected model to hold BatchNorms per width, got none")
    for module in model.modules():
        if isinstance(module, SwappedLayer) and isinstance(module.scheme, DoubleRounding):
            module.keep_scheme(dataclasses.replace(module.scheme, transitional_norm=True))
    for norm in norms:
        if not norm.transitional:
            norm.expand()
    return model
