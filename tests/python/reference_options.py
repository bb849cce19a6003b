"""The options of HDQT's two layers, as their schemas have them and as the authors' code states set them."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace


@dataclass(frozen=True)
class Options:
    """The keyword options of `hadamard_linear` and `hadamard_conv2d`, with the defaults of their schemas."""

    bits: int = 4
    accumulator_bits: int = 8
    tile_size: int = 32
    backward_accumulator_bits: int | None = None
    weight_gradient_accumulator_bits: int | None = None
    backward_tile_size: int = 32
    accumulate: str = "tile_end"
    overflow: str = "saturate"
    hadamard: str = "padded"
    hadamard_block: int = 64
    requantize: bool = True
    dc_row: str = "together"
    ste: str = "identity"
    stochastic: str = "b1g,b2a,b2g"
    range_fraction: float = 0.975
    conv_backward: str = "per_sample"
    tile_order: str = "khwc"
    exact: bool = False  # every quantiser the identity, no register: not an option of the ops

    def arguments(self, conv: bool = False) -> dict:
        """Keyword arguments for the op."""
        left_out = {"exact"} if conv else {"exact", "conv_backward", "tile_order"}
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in left_out}

    def is_stochastic(self, site: str) -> bool:
        return site in self.stochastic.split(",")

    def backward_register(self, weight_gradient: bool = False) -> dict:
        """The register of B1, or of B2: of the widths given, the one that names it most closely."""
        widths = [self.accumulator_bits, self.backward_accumulator_bits]
        widths += [self.weight_gradient_accumulator_bits] if weight_gradient else []
        bits = [width for width in widths if width is not None][-1]
        return dict(
            tile_size=self.backward_tile_size,
            accumulator_bits=bits,
            accumulate=self.accumulate,
            overflow=self.overflow,
        )

    def forward_register(self) -> dict:
        return dict(
            tile_size=self.tile_size,
            accumulator_bits=self.accumulator_bits,
            accumulate=self.accumulate,
            overflow=self.overflow,
        )


DEFAULTS = Options()


def paper_options(accumulators: str = "collas2024", bits: int = 4, accumulator_bits: int = 8) -> Options:
    """The authors' published arithmetic by code state: limits of the forward and B1, and of B2 [HDQT 2.6]."""
    below_16 = accumulator_bits if accumulator_bits < 16 else 32
    width, b2 = {
        "uniform": (accumulator_bits, None),
        "iclr2023": (2 * bits, None),
        "response": (below_16, None),
        "collas2024": (below_16, None if below_16 == accumulator_bits else accumulator_bits),
        "head": (32, None),
    }[accumulators]
    return replace(
        Options(),
        bits=bits,
        accumulator_bits=width,
        weight_gradient_accumulator_bits=b2,
        backward_tile_size=0,
        hadamard="divisor",
        ste="raw",
        tile_order="chw",
    )
