"""The quantisers of LUQ and FP134."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from quintil import _library  # noqa: F401  (registers the ops)

from .shared import draw_seed

_luq_quantize = torch.ops.quintil.luq_quantize.default
_luq_codes = torch.ops.quintil.luq_codes.default
_sawb_clip = torch.ops.quintil.sawb_clip.default
_minifloat_quantize = torch.ops.quintil.minifloat_quantize.default


def luq_quantize(
    x: Tensor,
    *,
    bits: int = 4,
    samples: int = 1,
    levels: str = "corrected",
    generator: Generator | None = None,
    seed: int | None = None,
) -> Tensor:
    """Zero and powers of two times alpha, drawn so that the mean is x: the gradients of LUQ [HDQT H14-H16].

    x: float tensor of any shape. bits: 2..5; magnitudes 0 and alpha 2^j, j = 0 .. 2^(bits-1)-2, alpha =
    max|x| / 2^(2^(bits-1)-2). A number below alpha becomes alpha with probability |x| / alpha, else 0; one between two
    powers goes to the upper in proportion; powers stay. samples: 1..1024 draws, of which the mean is returned.
    levels: 'corrected', or 'original', as published: twice as fine, and alpha from the signed maximum, so that larger
    negative numbers take further powers of two; where no number is positive, from max|x|.
    Returns x's shape and dtype; the gradient is the identity, once. NaN or Inf in x makes all NaN. The seed is drawn
    from `generator` where it is None.
    """
    seed = draw_seed(generator) if seed is None else seed
    return _luq_quantize(x, seed=seed, bits=bits, samples=samples, levels=levels)


def luq_codes(
    x: Tensor, *, bits: int = 4, sample: int = 0, generator: Generator | None = None, seed: int | None = None
) -> tuple[Tensor, Tensor]:
    """One draw of `luq_quantize` with levels 'corrected' as int8 codes, 0 or +-2^j, and the float32 0-dim alpha.

    bits: 2..4. sample: 0..1023, which of the draws of a seed. Not differentiable. NaN or Inf in x gives codes 0 and a
    NaN alpha, a zero tensor codes 0 and alpha 0.
    """
    seed = draw_seed(generator) if seed is None else seed
    return _luq_codes(x, seed=seed, bits=bits, sample=sample)


def sawb_clip(x: Tensor) -> Tensor:
    """Where the forward operands of LUQ are clipped, 12.1 sqrt(mean x^2) - 12.2 mean |x| [HDQT H13].

    x: float tensor of any shape. Returns float64, 0-dim; max|x| where the formula is not positive, 0 for an empty x,
    NaN for NaN or Inf in x. Sums run in double in a fixed order. Not differentiable.
    """
    return _sawb_clip(x)


def minifloat_quantize(
    x: Tensor,
    significand_bits: Sequence[int],
    exponent: Tensor,
    *,
    generator: Generator | None = None,
    seed: int | None = None,
    previous: Tensor | None = None,
) -> Tensor:
    """Floats whose precision shrinks towards zero, at an integer scale [HDQT H18, H19].

    x: float tensor of any shape. significand_bits: 1 to 128 integers, the significant bits of a binade, hidden bit
    included, from the top, each 0..24, the first at least 1: FP134 is (5, 5, 5, 5, 5, 5, 5, 4, 3, 2, 1, 0), FP130 (1,
    1, 1, 1, 1, 1, 1, 0). exponent: int32 or int64, 0-dim or one per x.size(0): S, the top binade being [2^S, 2^(S+1)).
    With first = significand_bits[0], magnitudes stop at 2^(S+1) - 2^(S+1-first). All steps must be normal float32
    numbers, else ValueError.
    Rounds half to even; with a seed, or one drawn from `generator`, stochastically; with `previous`, of x's sizes and
    without a seed, to the number above x where previous > x, else to the one below, x itself if it is one [H22].
    Returns x's shape and dtype; the gradient to x is the identity, once. NaN stays NaN, Inf becomes the largest number.
    """
    if seed is None and generator is not None:
        seed = draw_seed(generator)
    return _minifloat_quantize(x, significand_bits, exponent, seed=seed, previous=previous)
