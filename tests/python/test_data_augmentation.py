"""Batches of images: normalisation and the batch-wise augmentation."""

import time

import pytest
import torch
from quintil.data import images

BATCH = torch.randint(0, 256, (128, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
MEAN = torch.tensor([0.5071, 0.4867, 0.4408]).view(1, 3, 1, 1)
STD = torch.tensor([0.2675, 0.2565, 0.2761]).view(1, 3, 1, 1)


def test_evaluation_only_normalises():
    torch.testing.assert_close(images.normalise_images(BATCH), (BATCH / 255 - MEAN) / STD, rtol=1e-5, atol=1e-6)


def test_crop_and_flip_against_a_loop():
    generator = torch.Generator().manual_seed(1)
    top, left = torch.randint(0, 9, (2, 128), generator=generator)
    flip = torch.rand(128, generator=generator) < 0.5
    got = images.crop_and_flip(BATCH, top, left, flip)
    padded = torch.zeros(128, 3, 40, 40, dtype=torch.uint8)
    padded[:, :, 4:36, 4:36] = BATCH
    for i in range(128):
        want = padded[i, :, top[i] : top[i] + 32, left[i] : left[i] + 32]
        assert torch.equal(got[i], want.flip(2) if flip[i] else want)


def test_brightness_saturates_and_is_normalised_afterwards():
    factor = torch.linspace(1 - 63 / 255, 1 + 63 / 255, 128)
    got = images.normalise_bright(BATCH, factor)
    want = ((BATCH / 255 * factor.view(-1, 1, 1, 1)).clamp(0, 1) - MEAN) / STD
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_augmentation_draws_from_the_generator_alone():
    draws = [images.augment_images(BATCH, torch.Generator().manual_seed(seed)) for seed in (5, 5, 6)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    before = torch.random.get_rng_state()
    images.augment_images(BATCH, torch.Generator().manual_seed(5))
    assert torch.equal(before, torch.random.get_rng_state())


def test_augmentation_covers_its_ranges():
    """White images: the padding and the factor can be read off every result."""
    white = torch.full((4000, 3, 32, 32), 100, dtype=torch.uint8)
    out = images.augment_images(white, torch.Generator().manual_seed(0)) * STD + MEAN
    factor = out.amax((1, 2, 3)) * 255 / 100
    assert factor.min() >= 1 - 63 / 255 - 1e-5 and factor.max() <= 1 + 63 / 255 + 1e-5
    assert factor.min() < 1 - 62 / 255 and factor.max() > 1 + 62 / 255
    rows = (out[:, 0].amax(2) > 0.1).sum(1)
    assert sorted(set(rows.tolist())) == [28, 29, 30, 31, 32]
    assert abs((rows == 32).float().mean() - 1 / 9) < 5 * (8 / 81 / 4000) ** 0.5


def test_half_of_the_images_are_flipped():
    ramp = torch.arange(32, dtype=torch.uint8).mul(4).add(20).expand(4000, 3, 32, 32)
    out = images.augment_images(ramp, torch.Generator().manual_seed(0))
    flipped = out[:, 0, 16, 8] > out[:, 0, 16, 20]
    assert abs(flipped.float().mean() - 0.5) < 5 * (0.25 / 4000) ** 0.5


def test_a_batch_takes_well_under_ten_milliseconds():
    """Time of one thread, not of the clock: other work on the machine does not count."""
    generator, threads, times = torch.Generator().manual_seed(0), torch.get_num_threads(), []
    torch.set_num_threads(1)
    try:
        for _ in range(20):
            start = time.thread_time()
            images.augment_images(BATCH, generator)
            times.append(time.thread_time() - start)
    finally:
        torch.set_num_threads(threads)
    assert min(times) < 0.010


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        (BATCH.float(), TypeError, "images: expected batch to be uint8, got torch.float32"),
        (BATCH[0], ValueError, "images: expected batch of shape [N, 3, H, W], got [3, 32, 32]"),
        (BATCH[:, :1], ValueError, "images: expected batch of shape [N, 3, H, W], got [128, 1, 32, 32]"),
    ],
)
def test_transforms_refuse_other_batches(batch, error, message):
    for call in (images.normalise_images, lambda b: images.augment_images(b, torch.Generator())):
        with pytest.raises(error) as caught:
            call(batch)
        assert str(caught.value) == message
