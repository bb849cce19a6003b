"""What a convolution's padding is in numbers."""

from __future__ import annotations

from torch import nn


def even_padding(conv: nn.Module) -> tuple[int, ...] | None:
    """Padding of each side by dimension; None where padding='same' pads one side more than the other."""
    if conv.padding == "valid":
        return (0,) * len(conv.kernel_size)
    if conv.padding != "same":
        return conv.padding
    spans = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size)]
    return None if any(span % 2 for span in spans) else tuple(span // 2 for span in spans)


def why_not_plain(conv: nn.Module) -> str | None:
    """Why a convolution is more than one product over windows of a zero-padded image, or None."""
    if conv.groups != 1:
        return f"groups={conv.groups}"
    if conv.padding_mode != "zeros":
        return f"padding_mode={conv.padding_mode!r}"
    if even_padding(conv) is None:
        return f"padding='same' with kernel_size={conv.kernel_size}, which pads one side more than the other"
    return None
