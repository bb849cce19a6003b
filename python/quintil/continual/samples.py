"""One tensor of samples, kept as they are or as 8- or 4-bit codes with one float32 scale per sample [CIL R8]."""

from __future__ import annotations

import torch
from torch import Tensor

from quintil.functional import dequantize, pack_int4, quantize, unpack_int4

BITS = (8, 4)


class SampleStore:
    """Samples of one shape that can be selected and appended to, and not changed.

    bits: 8 or 4 quantises float samples once, when they are appended: symmetric codes, round to nearest, the scale
    max|x| / Q of each sample. Int4 codes lie two to a byte across the whole tensor. Integer samples (images in uint8)
    stay as they are, and so does everything with bits = None.
    Attributes codes (None before the first append; the samples themselves if not quantised) and scales (or None).
    """

    def __init__(self, bits: int | None = None):
        if bits not in (None, *BITS):
            raise ValueError(f"SampleStore: expected bits to be 8, 4 or None, got {bits!r}")
        self.bits = bits
        self.codes: Tensor | None = None
        self.scales: Tensor | None = None
        self.shape: tuple[int, ...] = ()

    @property
    def bytes(self) -> int:
        tensors = [t for t in (self.codes, self.scales) if t is not None]
        return sum(t.numel() * t.element_size() for t in tensors)

    def bytes_of(self, sample: Tensor) -> float:
        """Bytes that one sample [...] takes here."""
        if self.bits is None or not sample.is_floating_point():
            return sample.numel() * sample.element_size()
        return sample.numel() * self.bits / 8 + 4

    def restored(self, places: Tensor | None = None) -> Tensor | None:
        """The samples [N, ...], or those at some positions; float32 if they are stored as codes."""
        if self.codes is None or self.scales is None:
            return self.codes if self.codes is None or places is None else self.codes.index_select(0, places)
        codes, scales = self._unpacked(), self.scales
        if places is not None:
            codes, scales = codes.index_select(0, places), scales.index_select(0, places)
        return dequantize(codes, scales).reshape(-1, *self.shape)

    def select(self, places: Tensor) -> None:
        """Keep the samples at these positions, in this order."""
        if self.codes is None:
            return
        if self.scales is None:
            self.codes = self.codes.index_select(0, places)
        else:
            self._pack(self._unpacked().index_select(0, places), self.scales.index_select(0, places))

    def append(self, x: Tensor) -> None:
        """Append samples x [N, ...]."""
        self.shape = tuple(x.shape[1:])
        if self.bits is None or not x.is_floating_point():
            self.codes = x if self.codes is None else torch.cat([self.codes, x])
            return
        rows = x.flatten(1)
        limit = 2 ** (self.bits - 1) - 1
        scales = rows.abs().amax(1) / limit
        scales = torch.where(scales > 0, scales, torch.ones(()))
        codes, scales = quantize(rows, self.bits, signed=True, scale=scales)
        if self.codes is not None:
            codes, scales = torch.cat([self._unpacked(), codes]), torch.cat([self.scales, scales])
        self._pack(codes, scales)

    def _pack(self, codes: Tensor, scales: Tensor) -> None:
        self.codes = codes if self.bits == 8 else pack_int4(codes.flatten())
        self.scales = scales

    def _unpacked(self) -> Tensor:
        """Codes int8 [N, values per sample]."""
        if self.bits == 8:
            return self.codes
        count = self.scales.numel()
        size = count * torch.Size(self.shape).numel()
        return unpack_int4(self.codes, size).reshape(count, -1)
