"""Users' own image folders: what is read, in which order, and what is refused with which file's name."""

import io
import shutil

import numpy as np
import pytest
import quintil.data
import torch
from data_trees import rng
from PIL import Image
from quintil.continual import RunConfig, run
from quintil.metrics import read_run

CLASSES = ("apple", "Zebra", "10", "9")


def write_image(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def tree(root, shape=(8, 6, 3), classes=CLASSES, counts=(3, 2), ending=".png"):
    """train/<class>/<i>.png and test/...; returns the pixels by side and class."""
    generator, pixels = rng(21), {}
    for side, count in zip(("train", "test"), counts, strict=True):
        for label in classes:
            pixels[side, label] = generator.integers(0, 256, (count, *shape), dtype=np.uint8)
            for i, image in enumerate(pixels[side, label]):
                write_image(root / side / label / f"{i}{ending}", image)
    return pixels


def load(root, **options):
    return quintil.data.load(f"custom:{root}", **options)


def test_pixels_labels_and_class_names(tmp_path):
    pixels = tree(tmp_path / "fruit")
    (tmp_path / "fruit/train/apple/.DS_Store").write_bytes(b"x")
    (tmp_path / "fruit/train/apple/notes.txt").write_text("no image")
    (tmp_path / "fruit/train/.cache").mkdir()
    data = load(tmp_path / "fruit")
    assert data.name == "custom:fruit" and data.class_names == ("10", "9", "Zebra", "apple")
    assert data.x_train.dtype == torch.uint8 and data.x_train.shape == (12, 3, 8, 6) and len(data.x_test) == 8
    assert data.y_train.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    for side, x, y in (("train", data.x_train, data.y_train), ("test", data.x_test, data.y_test)):
        for number, label in enumerate(data.class_names):
            np.testing.assert_array_equal(x[y == number].permute(0, 2, 3, 1), pixels[side, label])
    out = data.transform(data.x_train)
    assert out.dtype == torch.float32 and out.max() <= 1 and data.subject_train is None
    assert list(data.checksums) == ["fruit"] and len(data.checksums["fruit"]) == 64


def test_a_folder_below_the_data_root_and_its_checksum(tmp_path):
    tree(tmp_path / "fruit")
    first = quintil.data.load("custom:fruit", tmp_path)
    assert torch.equal(load(f"{tmp_path}/fruit/").x_train, first.x_train)
    write_image(tmp_path / "fruit/test/9/0.png", np.zeros((8, 6, 3), np.uint8))
    assert quintil.data.load("custom:fruit", tmp_path).checksums != first.checksums


def test_grey_images_give_one_channel_and_mixed_ones_three(tmp_path):
    pixels = tree(tmp_path, shape=(5, 7))
    data = load(tmp_path)
    assert data.x_train.shape == (12, 1, 5, 7)
    np.testing.assert_array_equal(data.x_train[:3, 0], pixels["train", "10"])
    write_image(tmp_path / "test/9/0.png", np.full((5, 7, 3), (1, 2, 3), np.uint8))
    data = load(tmp_path)
    assert data.x_train.shape == (12, 3, 5, 7) and data.x_test[2, :, 0, 0].tolist() == [1, 2, 3]
    np.testing.assert_array_equal(data.x_train[:3, 2], pixels["train", "10"])


def test_jpeg_palette_transparency_and_rotation(tmp_path):
    """A colour of a JPEG is near, of the others exact; a photograph stands as its EXIF tag says."""
    tree(tmp_path, shape=(8, 6, 3), classes=("a",), ending=".JPG")
    flat = np.full((8, 6, 3), (200, 100, 50), np.uint8)
    write_image(tmp_path / "train/a/0.JPG", flat)
    Image.fromarray(flat).quantize(4).save(tmp_path / "train/a/palette.png")
    Image.fromarray(np.dstack([flat, np.full((8, 6), 9, np.uint8)])).save(tmp_path / "train/a/see_through.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    write_image(tmp_path / "train/a/turned.jpeg", np.full((6, 8, 3), 77, np.uint8), exif=exif)
    data = load(tmp_path)
    assert data.x_train.shape == (6, 3, 8, 6)
    assert (data.x_train[0].float().mean((1, 2)) - torch.tensor([200.0, 100, 50])).abs().max() < 4
    for index in (3, 4):
        assert data.x_train[index, :, 3, 3].tolist() == [200, 100, 50]
    assert data.x_train[5].float().mean() == pytest.approx(77, abs=2)


def broken(folder, raw):
    tree(folder)
    (folder / "train/9/1.png").write_bytes(raw)


def encoded(kind="PNG", mode=None):
    buffer = io.BytesIO()
    pixels = np.asarray(rng(3).integers(0, 256, (8, 6, 3), dtype=np.uint8))
    image = Image.fromarray(pixels) if mode is None else Image.new(mode, (6, 8))
    image.save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: broken(d, b""), "train/9/1.png: expected a whole PNG or JPEG image, got 'cannot identify image file'"),
        (lambda d: broken(d, b"GIF89a" + bytes(50)), "train/9/1.png: expected a whole PNG or JPEG image, got"),
        (lambda d: broken(d, encoded()[:100]), "train/9/1.png: expected a whole PNG or JPEG image, got"),
        (lambda d: broken(d, encoded("JPEG")[:-60]), "train/9/1.png: expected a whole PNG or JPEG image, got"),
        (lambda d: broken(d, encoded()[:40] + bytes(300)), "train/9/1.png: expected a whole PNG or JPEG image, got"),
        (lambda d: broken(d, encoded(mode="I;16")), "train/9/1.png: expected an image of 8 bits per channel, got"),
        (lambda d: tree(d) and write_image(d / "test/9/1.png", np.zeros((8, 7, 3), np.uint8)), "expected every image to have the height and width [8, 6] of train/10/0.png, got [8, 7] (test/9/1.png)"),
        (lambda d: tree(d) and shutil.rmtree(d / "test"), "expected class folders in test/, got none"),
        (lambda d: (d / "train").mkdir(), "expected class folders in train/, got none"),
        (lambda d: tree(d) and [p.rename(p.with_suffix(".gif")) for p in list((d / "train/9").iterdir())], "expected images (.png, .jpg, .jpeg) in train/9, got 3 other files"),
        (lambda d: tree(d) and shutil.rmtree(d / "test/9"), "expected every class on both sides of the split, got none of ['9'] in test"),
        (lambda d: tree(d) and shutil.rmtree(d / "train/9"), "expected the labels of test to be seen in train, got ['9']"),
    ],
)  # fmt: skip
def test_folders_that_are_refused(damage, message, tmp_path):
    damage(tmp_path)
    with pytest.raises(ValueError) as caught:
        load(tmp_path)
    assert str(caught.value).startswith("custom:") and message in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(split="hdqt"), "expected split of 'custom' to be one of ('official',), got 'hdqt'"),
        (dict(normalise="minmax_all"), "expected normalise to be none for uint8 images, got 'minmax_all'"),
    ],
)
def test_options_that_are_refused(options, message, tmp_path):
    tree(tmp_path)
    with pytest.raises(ValueError) as caught:
        load(tmp_path, **options)
    assert message in str(caught.value)


@pytest.mark.parametrize("shape", [(8, 8, 3), (8, 8)])
def test_a_run_on_a_folder_of_colour_or_grey_images(shape, tmp_path):
    tree(tmp_path / "mine", shape=shape, counts=(6, 3))
    config = RunConfig(
        dataset=f"custom:{tmp_path}/mine",
        init_cls=2,
        increment=2,
        epochs=1,
        memory_size=8,
        batch_size=4,
        threads=1,
        seeds=(0,),
        results_dir=str(tmp_path / "runs"),
    )
    (seed,) = read_run(run(config)).seeds.values()
    assert seed.summary["tasks"] == 2
