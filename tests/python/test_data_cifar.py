"""CIFAR-100 in both layouts, folder and archive; hostile and damaged files; the batch-wise augmentation."""

import hashlib
import io
import pickle
import struct
import tarfile
import time

import numpy as np
import pytest
import quintil.data
import torch
from data_trees import cifar_parts, real_root
from quintil.data import cifar100, images
from quintil.data.safe_pickle import load_arrays

COUNTS = {"train": 300, "test": 100}
NAMES = [f"class{label:02d}" for label in range(100)]


def py2_string(raw):
    return b"T" + struct.pack("<i", len(raw)) + raw


def py2_pickle(content):
    """The bytes Python 2's cPickle (protocol 2) writes for a dict of lists of ints or strings and a uint8 array."""
    out = b"\x80\x02}("
    for key, value in content.items():
        out += py2_string(key.encode())
        if isinstance(value, np.ndarray):
            shape = b"".join(b"J" + struct.pack("<i", n) for n in value.shape)
            out += b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + py2_string(b"b") + b"\x87R"
            out += b"(K\x01" + shape + b"\x86" + b"cnumpy\ndtype\n(" + py2_string(b"u1") + b"K\x00K\x01tR"
            out += b"(K\x03" + py2_string(b"|") + b"NNN" + b"J\xff\xff\xff\xff" * 2 + b"K\x00tb"
            out += b"\x89" + py2_string(value.tobytes()) + b"tb"
        else:
            out += b"](" + b"".join(
                py2_string(v.encode()) if isinstance(v, str) else b"J" + struct.pack("<i", int(v)) for v in value
            ) + b"e"  # fmt: skip
    return out + b"u."


def layout_files(layout, dump=py2_pickle):
    parts, files = cifar_parts(COUNTS), {}
    for side, (pixels, fine, coarse) in parts.items():
        if layout == "cifar-100-binary":
            records = np.concatenate([coarse[:, None], fine[:, None], pixels], axis=1).astype(np.uint8)
            files[f"{side}.bin"] = records.tobytes()
        else:
            labels = {"fine_labels": fine.tolist(), "coarse_labels": coarse.tolist()}
            files[side] = dump({"filenames": ["a.png"], **labels, "data": pixels})
    if layout == "cifar-100-binary":
        files["fine_label_names.txt"] = "\n".join(NAMES).encode()
    else:
        files["meta"] = dump({"fine_label_names": NAMES, "coarse_label_names": NAMES[:20]})
    return files


def write_archive(root, layout, files, monkeypatch, member=None):
    path = root / f"{layout}.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, raw in files.items():
            info = tarfile.TarInfo(f"{layout}/{name}")
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
        if member is not None:
            archive.addfile(member)
    monkeypatch.setitem(cifar100.ARCHIVE_MD5, layout, hashlib.md5(path.read_bytes()).hexdigest())
    return path


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(cifar100, "COUNTS", COUNTS)


@pytest.mark.parametrize("form", ["folder", "inside", "archive"])
@pytest.mark.parametrize("layout", ["cifar-100-binary", "cifar-100-python"])
def test_every_form_gives_the_same_tensors(layout, form, tmp_path, monkeypatch):
    files = layout_files(layout)
    if form == "archive":
        write_archive(tmp_path, layout, files, monkeypatch)
    else:
        (tmp_path / layout).mkdir()
        for name, raw in files.items():
            (tmp_path / layout / name).write_bytes(raw)
    data = quintil.data.load("cifar100", tmp_path / layout if form == "inside" else tmp_path)
    for side, (pixels, fine, _) in cifar_parts(COUNTS).items():
        x, y = getattr(data, f"x_{side}"), getattr(data, f"y_{side}")
        assert x.dtype == torch.uint8 and y.dtype == torch.int64
        np.testing.assert_array_equal(x.numpy(), pixels.reshape(-1, 3, 32, 32))
        np.testing.assert_array_equal(y.numpy(), fine)
    assert data.class_names == tuple(NAMES) and data.subject_train is None
    assert data.checksums == {name: hashlib.sha256(raw).hexdigest() for name, raw in files.items()}


def test_classes_may_be_left_out(tmp_path):
    folder = tmp_path / "cifar-100-binary"
    folder.mkdir()
    for name, raw in layout_files("cifar-100-binary").items():
        (folder / name).write_bytes(raw)
    kept = [label for label in range(100) if label not in (0, 7, 99)]
    data = quintil.data.load("cifar100", tmp_path, classes_drop=(7, 0, 99))
    assert data.class_names == tuple(NAMES[label] for label in kept)
    for side, (pixels, fine, _) in cifar_parts(COUNTS).items():
        rows = np.isin(fine, kept)
        np.testing.assert_array_equal(getattr(data, f"x_{side}").numpy(), pixels[rows].reshape(-1, 3, 32, 32))
        assert [kept[label] for label in getattr(data, f"y_{side}").tolist()] == fine[rows].tolist()
    for wrong in ((100,), range(100)):
        with pytest.raises(ValueError, match="cifar100: expected classes_drop to be some of the labels 0..99, got"):
            quintil.data.load("cifar100", tmp_path, classes_drop=wrong)


def test_the_real_files_or_a_full_size_copy(tmp_path, monkeypatch):
    """50,000 + 10,000 images, 500 + 100 per class; generated at that size where the real ones are absent."""
    monkeypatch.undo()
    root = real_root("cifar-100-binary/train.bin")
    if root is None:
        root = tmp_path
        (root / "cifar-100-binary").mkdir()
        for side, count in (("train", 50_000), ("test", 10_000)):
            records = np.zeros((count, 3074), dtype=np.uint8)
            records[:, 1] = np.arange(count) % 100
            records[:, 2:] = records[:, 1:2] + 50
            records.tofile(root / "cifar-100-binary" / f"{side}.bin")
    data = quintil.data.load("cifar100", root)
    assert data.x_train.shape == (50_000, 3, 32, 32) and data.x_test.shape == (10_000, 3, 32, 32)
    assert data.y_train.bincount().tolist() == [500] * 100 and data.y_test.bincount().tolist() == [100] * 100
    mean = data.x_train[:, 0].double().mean() / 255
    assert float(mean) == pytest.approx(0.50707516 if "apple" in data.class_names else 99.5 / 255, abs=1e-7)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_pickles_written_by_python_3_are_read_too(protocol):
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    got = load_arrays("set", pickle.dumps({b"data": pixels, "fine_labels": [1, 2, 3]}, protocol=protocol))
    np.testing.assert_array_equal(got["data"], pixels)
    assert got["fine_labels"] == [1, 2, 3]
    fortran = load_arrays("set", pickle.dumps({"data": np.asfortranarray(pixels)}, protocol=protocol))
    np.testing.assert_array_equal(fortran["data"], pixels)


# --- hostile and damaged files ------------------------------------------------


class Evil:
    """Creates a file when it is unpickled the usual way."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return open, (self.target, "w")


def evil_pickles(target):
    yield pickle.dumps({"data": Evil(target)}, protocol=2)
    yield pickle.dumps({"data": Evil(target)}, protocol=4)
    yield b"cos\nsystem\n(S'touch " + target.encode() + b"'\ntR."
    yield b"c__builtin__\neval\n(S'open(\"" + target.encode() + b'", "w")\'\ntR.'
    yield b"cnumpy\nsave\n(S'" + target.encode() + b"'\nK\x01tR."
    yield b"(S'touch " + target.encode() + b"'\nios\nsystem\n."
    yield b"cnumpy.core\nmultiarray.fromfile\n."


@pytest.mark.parametrize("number", range(7))
def test_an_evil_pickle_is_refused_and_never_runs(number, tmp_path):
    target = tmp_path / "evidence"
    raw = list(evil_pickles(str(target)))[number]
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for name, content in layout_files("cifar-100-python").items():
        (folder / name).write_bytes(content)
    (folder / "train").write_bytes(raw)
    with pytest.raises(ValueError, match="a reference to .*, which no data file needs"):
        quintil.data.load("cifar100", tmp_path)
    assert not target.exists() and not target.with_suffix(".npy").exists()


GOOD = py2_pickle({"data": np.zeros((2, 3), dtype=np.uint8)})


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x80\x02",
        b"not a pickle",
        GOOD[: len(GOOD) // 2],
        GOOD[:-9],
        GOOD.replace(struct.pack("<i", 3), struct.pack("<i", 7)),
        GOOD.replace(struct.pack("<i", 3), struct.pack("<i", -3)),
        GOOD.replace(b"u1", b"O8"),
        pickle.dumps([1, 2]),
        pickle.dumps({"data": np.zeros(3)}, protocol=2),
        b"\x80\x02P1\n.",
        b"cnumpy\nndarray\n}b.",
        b"\x80\x02}r\xff\xff\xff\x7f.",
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"I" + b"9" * 5000 + b"\n.",
    ],
)
def test_a_damaged_pickle_is_a_value_error(raw):
    with pytest.raises(ValueError, match="set: expected a pickled dict of plain values and uint8 arrays, got"):
        load_arrays("set", raw)


def patched(name, change, layout="cifar-100-binary"):
    files = layout_files(layout)
    files[name] = change(files[name])
    return layout, files


def set_byte(position, value):
    return lambda raw: raw[:position] + bytes([value]) + raw[position + 1 :]


def python_side(**changes):
    pixels, fine, coarse = cifar_parts(COUNTS)["train"]
    content = {"data": pixels, "fine_labels": fine.tolist(), "coarse_labels": coarse.tolist()} | changes
    return lambda raw: py2_pickle({key: value for key, value in content.items() if value is not None})


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (
            patched("train.bin", lambda raw: raw[:-1]),
            "train.bin: expected 300 records of 3074 bytes, got 922199 bytes",
        ),
        (
            patched("test.bin", lambda raw: raw + b"\0"),
            "test.bin: expected 100 records of 3074 bytes, got 307401 bytes",
        ),
        (patched("train.bin", set_byte(3074 + 1, 100)), "expected fine labels of 0..99, got 100 (record 1)"),
        (patched("train.bin", set_byte(0, 20)), "expected coarse labels of 0..19, got 20 (record 0)"),
        (
            patched("test.bin", lambda raw: raw[3074:] + raw[3074:6148]),
            "test.bin: expected 1 images per class, got",
        ),
        (
            patched("fine_label_names.txt", lambda raw: b"a b"),
            "expected 100 different class names in fine_label_names.txt",
        ),
        (
            patched("train", python_side(fine_labels=None), "cifar-100-python"),
            "train: expected key 'fine_labels', got keys",
        ),
        (
            patched("train", python_side(data=np.zeros((300, 3071), np.uint8)), "cifar-100-python"),
            "expected data to be uint8 [300, 3072], got [300, 3071]",
        ),
        (
            patched("train", python_side(data=[1]), "cifar-100-python"),
            "expected data to be uint8 [300, 3072], got list",
        ),
        (
            patched("train", python_side(fine_labels=[-1] * 300), "cifar-100-python"),
            "expected fine_labels of 0..255, got -1..-1",
        ),
        (
            patched("train", python_side(fine_labels=[200] * 300), "cifar-100-python"),
            "expected fine labels of 0..99, got 200",
        ),
        (
            patched("train", python_side(coarse_labels=["a"] * 300), "cifar-100-python"),
            "expected coarse_labels to be 300 integers",
        ),
        (patched("train", lambda raw: raw[:1000], "cifar-100-python"), "train: expected a pickled dict"),
    ],
)
def test_damaged_folders(case, message, tmp_path):
    layout, files = case
    (tmp_path / layout).mkdir()
    for name, raw in files.items():
        (tmp_path / layout / name).write_bytes(raw)
    with pytest.raises(ValueError) as caught:
        quintil.data.load("cifar100", tmp_path)
    assert message in str(caught.value)


def test_a_folder_with_one_side_only(tmp_path):
    (tmp_path / "train.bin").write_bytes(layout_files("cifar-100-binary")["train.bin"])
    with pytest.raises(FileNotFoundError, match="test.bin to exist"):
        quintil.data.load("cifar100", tmp_path)


def test_archives_that_are_not_the_publishers(tmp_path, monkeypatch):
    layout = "cifar-100-binary"
    files = layout_files(layout)
    link = tarfile.TarInfo(f"{layout}/train.bin")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    cases = [
        (files, link, "expected cifar-100-binary/train.bin to be a plain file"),
        ({"test.bin": files["test.bin"]}, None, "expected cifar-100-binary/train.bin in cifar-100-binary.tar.gz, got ['test.bin']"),
    ]  # fmt: skip
    for content, member, message in cases:
        write_archive(tmp_path, layout, content, monkeypatch, member)
        with pytest.raises(ValueError) as caught:
            quintil.data.load("cifar100", tmp_path)
        assert message in str(caught.value)
    path = write_archive(tmp_path, layout, files | {"../../escaped": b"x"}, monkeypatch)
    assert len(quintil.data.load("cifar100", tmp_path).x_train) == 300
    assert not list(tmp_path.parent.glob("**/escaped"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with pytest.raises(ValueError, match="expected md5 .* got .* .fetch it again."):
        quintil.data.load("cifar100", tmp_path)
    monkeypatch.setitem(cifar100.ARCHIVE_MD5, layout, hashlib.md5(whole[: len(whole) // 2]).hexdigest())
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="to be a whole archive, got"):
        quintil.data.load("cifar100", tmp_path)


def test_the_official_checksums_are_pinned(monkeypatch):
    monkeypatch.undo()
    assert cifar100.ARCHIVE_MD5 == {
        "cifar-100-binary": "03b5dce01913d631647c71ecec9e9cb8",
        "cifar-100-python": "eb9058c3a382ffc7106e4002c42a8d85",
    }
    assert cifar100.COUNTS == {"train": 50_000, "test": 10_000}


# --- transforms ---------------------------------------------------------------

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
