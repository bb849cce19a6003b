"""Codes of 2 to 8 bits in a stream of bits, so that a file takes exactly their width; csrc/storage reads it too.

Code i has the bits i*b .. i*b + b-1 of the stream, its lowest bit first, negative ones in two's complement. Bit j of
the stream is bit j mod 8 of byte j / 8; what is left of the last byte is zero.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def pack_codes(codes: Tensor, bits: int) -> Tensor:
    """int8 or uint8 codes of any shape that fit `bits` bits -> uint8 [ceil(numel * bits / 8)]."""
    values = codes.reshape(-1, 1).view(torch.uint8).numpy()
    stream = np.unpackbits(values, axis=1, count=bits, bitorder="little")
    return torch.from_numpy(np.packbits(stream, bitorder="little"))


def unpack_codes(packed: Tensor, bits: int, shape: torch.Size, signed: bool) -> Tensor:
    """The inverse: int8 or, where `signed` is false, uint8 codes of `shape`."""
    stream = np.unpackbits(packed.numpy(), count=shape.numel() * bits, bitorder="little").reshape(-1, bits)
    whole = np.pad(stream, ((0, 0), (0, 8 - bits)), mode="edge" if signed else "constant")
    codes = torch.from_numpy(np.packbits(whole, axis=1, bitorder="little")).reshape(shape)
    return codes.view(torch.int8) if signed else codes
