"""Batch-wise image transforms of CIFAR, in plain torch: no per-image Python, randomness from a given
generator.

Training [CIL 4, CIFAR-100]: random crop after zero padding by 4, horizontal flip with probability 1/2,
brightness times a factor of [1 - 63/255, 1 + 63/255] (clamped to [0, 1] as an image is), then the per-channel
normalisation that evaluation applies too.
"""

from __future__ import annotations

import torch

MEAN = (0.5071, 0.4867, 0.4408)
STD = (0.2675, 0.2565, 0.2761)
PADDING = 4
BRIGHTNESS = 63 / 255


def normalise_images(batch: torch.Tensor) -> torch.Tensor:
    """uint8 [N, 3, H, W] -> float32 (x / 255 - mean) / std; TypeError or ValueError for other input."""
    _check(batch)
    scale, shift = _affine()
    return torch.addcmul(shift, batch.to(torch.float32), scale)


def augment_images(batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """uint8 [N, 3, H, W] -> float32 [N, 3, H, W], cropped, flipped, brightened and normalised."""
    _check(batch)
    n = len(batch)
    offset = torch.randint(0, 2 * PADDING + 1, (2, n), generator=generator)
    flip = torch.rand(n, generator=generator) < 0.5
    factor = 1.0 + BRIGHTNESS * (2.0 * torch.rand(n, generator=generator) - 1.0)
    return normalise_bright(crop_and_flip(batch, offset[0], offset[1], flip), factor)


def crop_and_flip(batch: torch.Tensor, top: torch.Tensor, left: torch.Tensor, flip: torch.Tensor) -> torch.Tensor:
    """Window of the input's size at (top, left), 0..2*PADDING, of the zero-padded images; mirrored where
    flip.

    batch [N, C, H, W]; top, left int64 [N]; flip bool [N]. Same dtype and shape out.
    """
    n, channels, height, width = batch.shape
    padded = torch.nn.functional.pad(batch, (PADDING,) * 4)
    # All shifts as a view [N, C, 9, 9, H, W]; indexing it copies whole rows, one window per image.
    shifts = padded.unfold(2, height, 1).unfold(3, width, 1)
    cropped = shifts[torch.arange(n), :, top, left]
    return torch.where(flip[:, None, None, None], cropped.flip(3), cropped)


def normalise_bright(batch: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """(min(1, factor * x / 255) - mean) / std for uint8 images and one float32 factor >= 0 per image."""
    bright = (batch.to(torch.float32) * factor[:, None, None, None]).clamp_(max=255.0)
    scale, shift = _affine()
    return torch.addcmul(shift, bright, scale)


def _affine() -> tuple[torch.Tensor, torch.Tensor]:
    """scale, shift [1, 3, 1, 1] with x * scale + shift = (x / 255 - mean) / std."""
    mean, std = torch.tensor(MEAN, dtype=torch.float64), torch.tensor(STD, dtype=torch.float64)
    scale, shift = 1.0 / (255.0 * std), -mean / std
    return scale.float().view(1, 3, 1, 1), shift.float().view(1, 3, 1, 1)


def _check(batch: torch.Tensor) -> None:
    if batch.dtype != torch.uint8:
        raise TypeError(f"images: expected batch to be uint8, got {batch.dtype}")
    if batch.ndim != 4 or batch.shape[1] != 3:
        raise ValueError(f"images: expected batch of shape [N, 3, H, W], got {list(batch.shape)}")
