"""Hostile and damaged files of CIFAR-100: pickles, folders and archives are refused and nothing in them runs."""

import hashlib
import pickle
import struct
import tarfile

import numpy as np
import pytest
import quintil.data
from data_trees import CIFAR_COUNTS, cifar_archive, cifar_files, cifar_parts, py2_pickle
from quintil.data import cifar100
from quintil.data.safe_pickle import load_arrays

pytestmark = pytest.mark.usefixtures("small_cifar")


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
    for name, content in cifar_files("cifar-100-python").items():
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
    files = cifar_files(layout)
    files[name] = change(files[name])
    return layout, files


def set_byte(position, value):
    return lambda raw: raw[:position] + bytes([value]) + raw[position + 1 :]


def python_side(**changes):
    pixels, fine, coarse = cifar_parts(CIFAR_COUNTS)["train"]
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
    (tmp_path / "train.bin").write_bytes(cifar_files("cifar-100-binary")["train.bin"])
    with pytest.raises(FileNotFoundError, match="test.bin to exist"):
        quintil.data.load("cifar100", tmp_path)


def test_archives_that_are_not_the_publishers(tmp_path, monkeypatch):
    layout = "cifar-100-binary"
    files = cifar_files(layout)
    link = tarfile.TarInfo(f"{layout}/train.bin")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    cases = [
        (files, link, "expected cifar-100-binary/train.bin to be a plain file"),
        ({"test.bin": files["test.bin"]}, None, "expected cifar-100-binary/train.bin in cifar-100-binary.tar.gz, got ['test.bin']"),
    ]  # fmt: skip
    for content, member, message in cases:
        cifar_archive(tmp_path, layout, content, monkeypatch, member)
        with pytest.raises(ValueError) as caught:
            quintil.data.load("cifar100", tmp_path)
        assert message in str(caught.value)
    path = cifar_archive(tmp_path, layout, files | {"../../escaped": b"x"}, monkeypatch)
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
