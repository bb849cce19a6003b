"""Small copies of the publishers' file trees for the data tests, and where real copies lie if there are any."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import tarfile
from pathlib import Path

import numpy as np
from quintil.data import cifar100


def real_root(*anchors: str) -> Path | None:
    """QUINTIL_DATA_ROOT if it is set and holds all anchors (relative paths)."""
    root = os.environ.get("QUINTIL_DATA_ROOT")
    if not root or not all((Path(root) / anchor).exists() for anchor in anchors):
        return None
    return Path(root)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def write_rows(path: Path, rows: np.ndarray, separator: str = " ", digits: int = 9) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join(separator.join(f"{v:.{digits}g}" for v in row) for row in np.asarray(rows, dtype=float))
    path.write_text(text.replace("nan", "NaN") + "\n")


def dsads_tree(root: Path, activities=range(1, 20), persons=range(1, 9), segments=range(1, 2)) -> Path:
    """data/aXX/pY/sZZ.txt with 125 x 45 numbers each, under root/dsads."""
    generator = rng(1)
    for a in activities:
        for p in persons:
            for s in segments:
                path = root / "dsads" / "data" / f"a{a:02d}" / f"p{p}" / f"s{s:02d}.txt"
                write_rows(path, a + generator.normal(size=(125, 45)), ",", 5)
    return root


HAPT_USERS = tuple(range(1, 31))


def hapt_tree(root: Path, users=HAPT_USERS, official: bool = False) -> tuple[Path, np.ndarray, np.ndarray]:
    """A HAPT folder with one experiment per user and 12 segments each; returns root, window labels and
    persons.

    y_*.txt and subject_id_*.txt are written by counting windows with a plain loop; X_*.txt (561 columns in
    [-1, 1]) only if `official`.
    """
    folder, generator, segments = root / "HAPT Data Set", rng(2), []
    rows = {"Train": [], "Test": []}
    test_users = {2, 4, 9, 10, 12, 13, 18, 20, 24}
    for experiment, user in enumerate(users, start=1):
        start = 5
        for activity in range(1, 13):
            length = 100 if activity == 12 and user == 3 else 128 + 32 * (activity % 4)
            end = start + length - 1
            segments.append((experiment, user, activity, start, end))
            first = start
            while first + 127 <= end:
                rows["Test" if user in test_users else "Train"].append((activity, user))
                first += 64
            start = end + 3
        for kind in ("acc", "gyro"):
            signal = generator.normal(size=(start + 10, 3))
            write_rows(folder / "RawData" / f"{kind}_exp{experiment:02d}_user{user:02d}.txt", signal)
    write_rows(folder / "RawData" / "labels.txt", segments)
    for side, pairs in rows.items():
        lower = side.lower()
        write_rows(folder / side / f"y_{lower}.txt", [[a] for a, _ in pairs])
        write_rows(folder / side / f"subject_id_{lower}.txt", [[u] for _, u in pairs])
        if official:
            values = np.tanh(generator.normal(size=(len(pairs), 561)))
            write_rows(folder / side / f"X_{lower}.txt", values, digits=6)
    both = np.array(rows["Train"] + rows["Test"])
    return root, both[:, 0], both[:, 1]


PAMAP_ACTIVITIES = (1, 2, 3, 4, 5, 6, 7, 12, 13, 16, 17, 24)


def pamap2_rows(generator: np.random.Generator, activities=PAMAP_ACTIVITIES, length: int = 800) -> np.ndarray:
    """[T, 54] rows of one .dat file: each activity for `length` samples, transients between, gaps, broken columns."""
    blocks = []
    for activity in activities:
        for label, count in ((0, 60), (activity, length)):
            block = activity + generator.normal(size=(count, 54))
            block[:, 1] = label
            block[::11, 2] = np.nan  # heart rate is sampled more slowly
            block[3::50, 4] = np.nan  # a wireless sensor drops samples
            block[:, 16:20] = np.nan  # orientation is invalid
            blocks.append(block)
    rows = np.concatenate(blocks)
    rows[:, 0] = np.arange(len(rows)) / 100
    return rows


def pamap2_tree(root: Path, length: int = 800) -> Path:
    generator = rng(3)
    for person in range(1, 10):
        rows = pamap2_rows(generator, length=length)
        write_rows(root / "PAMAP2_Dataset" / "Protocol" / f"subject10{person}.dat", rows, digits=6)
    return root


def cifar_parts(counts: dict[str, int]) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """pixels uint8 [n, 3072], fine and coarse labels per side, every class equally often."""
    generator, parts = rng(4), {}
    for side, count in counts.items():
        fine = generator.permutation(np.arange(count) % 100)
        parts[side] = generator.integers(0, 256, (count, 3072), dtype=np.uint8), fine, fine // 5
    return parts


CIFAR_COUNTS = {"train": 300, "test": 100}
CIFAR_NAMES = [f"class{label:02d}" for label in range(100)]


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


def cifar_files(layout, dump=py2_pickle):
    parts, files = cifar_parts(CIFAR_COUNTS), {}
    for side, (pixels, fine, coarse) in parts.items():
        if layout == "cifar-100-binary":
            records = np.concatenate([coarse[:, None], fine[:, None], pixels], axis=1).astype(np.uint8)
            files[f"{side}.bin"] = records.tobytes()
        else:
            labels = {"fine_labels": fine.tolist(), "coarse_labels": coarse.tolist()}
            files[side] = dump({"filenames": ["a.png"], **labels, "data": pixels})
    if layout == "cifar-100-binary":
        files["fine_label_names.txt"] = "\n".join(CIFAR_NAMES).encode()
    else:
        files["meta"] = dump({"fine_label_names": CIFAR_NAMES, "coarse_label_names": CIFAR_NAMES[:20]})
    return files


def cifar_archive(root, layout, files, monkeypatch, member=None):
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
