"""`quintil predict`: what a run measured, from its checkpoint and a file; input and output formats; refusals."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from quintil.cli import main
from quintil.cli.train import base_config, parser
from quintil.continual import load_checkpoint, prepare, run
from quintil.continual.arguments import config_from


class Trained(NamedTuple):
    """A run with its test samples in the order in which it was tested, and their original labels."""

    seed: Path
    x: np.ndarray
    y: np.ndarray
    summary: dict

    @property
    def last(self) -> str:
        return str(self.seed / "ckpt/last.pt")


def trained(folder: Path, line: str) -> Trained:
    args = parser().parse_args(f"{line} --epochs 4 --seed 0 --threads 1 --results_dir {folder}".split())
    config = config_from(args, base_config(args.dataset))
    seed = run(config) / "seed0"
    setup = prepare(config, 0)
    *_, task = setup.tasks
    labels = np.array(setup.learner.class_names)[task.y_test.numpy()]
    return Trained(seed, task.x_test.numpy(), labels, json.loads((seed / "summary.json").read_text()))


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Trained:
    folder = tmp_path_factory.mktemp("digits")
    return trained(folder, "--dataset digits --quant hdqt --init_cls 4 --increment 4 --save_checkpoint task")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Trained:
    """Without exemplars, and with the classes' names as texts."""
    folder = tmp_path_factory.mktemp("images")
    x = np.random.default_rng(0).integers(0, 256, (40, 3, 8, 8), dtype=np.uint8)
    y = np.array(["cat", "dog, small"])[np.arange(40) % 2]
    np.savez(folder / "pets.npz", x_train=x, y_train=y, x_test=x[:10], y_test=y[:10])
    line = f"--dataset custom:{folder}/pets.npz --method finetune --init_cls 1 --increment 1 --model fcnet"
    return trained(folder, line)


def predict(capsys, *words: object) -> tuple[int, str, str]:
    """Exit status, stdout and stderr."""
    try:
        status = main(["predict", *map(str, words)])
    except SystemExit as caught:
        status = caught.code
    output = capsys.readouterr()
    return status, output.out, output.err


def saved(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize("head, tag", [("linear", "cnn"), ("nme", "nme")])
def test_the_accuracy_of_the_run(head, tag, digits, tmp_path, capsys):
    """The run's own test samples give the run's own accuracy, integers included."""
    file = saved(tmp_path / "x.npz", x_test=digits.x, y_test=digits.y.astype(np.int64))
    status, out, err = predict(capsys, "--ckpt", digits.last, "--input", file, "--head", head)
    found = rows(out)
    want = digits.summary[f"last_acc_{tag}"]
    right = np.mean([row["label"] == label for row, label in zip(found, digits.y)])
    assert status == 0 and 100 * right == pytest.approx(want, abs=1e-6) and len(found) == 359
    assert err == f"accuracy of the {head} head: {want:.2f} % of 359 samples\n"
    learner = load_checkpoint(digits.last)
    assert list(found[0]) == ["label", "head", *(f"score_{name}" for name in learner.class_names)]
    assert {row["head"] for row in found} == {head}
    scores = np.array([[float(row[f"score_{name}"]) for name in learner.class_names] for row in found], np.float32)
    np.testing.assert_array_equal(scores, learner.scores(torch.from_numpy(digits.x))[head].numpy())


def test_output_files_and_batches(digits, tmp_path, capsys):
    file = saved(tmp_path / "x.npz", x=digits.x.astype(np.float64))
    command = ("--ckpt", digits.last, "--input", file)
    _, shown, err = predict(capsys, *command)
    assert err == ""
    assert predict(capsys, *command, "--out", tmp_path / "p.csv") == (0, "", "")
    assert (tmp_path / "p.csv").read_text() == shown
    assert predict(capsys, *command, "--out", tmp_path / "p.npz") == (0, "", "")
    with np.load(tmp_path / "p.npz") as made:
        assert made["label"].tolist() == [row["label"] for row in rows(shown)] and made["head"] == "linear"
        assert made["classes"][made["score"].argmax(1)].tolist() == made["label"].tolist()
        assert made["score"].shape == (359, 10) and made["score"].dtype == np.float32
    _, other, _ = predict(capsys, *command, "--batch_size", 5)
    assert other != shown, "one scale per batch"
    assert {path.name for path in tmp_path.iterdir()} == {"x.npz", "p.csv", "p.npz"}


def test_an_earlier_task_knows_fewer_classes(digits, tmp_path, capsys):
    first = digits.seed / "ckpt/task1.pt"
    known = load_checkpoint(first).class_names[:4]
    inside = int(np.isin(digits.y, known).sum())
    measured = float((digits.seed / "acc_matrix_cnn.csv").read_text().splitlines()[1].split(",")[1])
    file = saved(tmp_path / "x.npz", x=digits.x[:inside], y=digits.y[:inside])
    _, out, err = predict(capsys, "--ckpt", first, "--input", file)
    assert err == f"accuracy of the linear head: {measured:.2f} % of {inside} samples\n" and measured > 50
    _, out, err = predict(capsys, "--ckpt", first, "--input", saved(file, x=digits.x, y=digits.y))
    assert {row["label"] for row in rows(out)} <= set(known)
    assert f" % of {inside} samples (left out: {359 - inside} of classes not learnt: " in err and err.endswith(
        ", ...)\n"
    )
    _, out, err = predict(capsys, "--ckpt", first, "--input", saved(file, x=digits.x[:2], y=np.array(["a", "b"])))
    assert err.startswith("accuracy of the linear head: no label is of a class learnt so far (left out: 2 of ")


def test_csv_input(digits, tmp_path, capsys):
    """With a header, label, person and split in any place; without a header: features alone."""
    table = digits.x[:20].tolist()
    names = [f"f{number}" for number in range(64)]
    whole, plain = tmp_path / "whole.csv", tmp_path / "plain.csv"
    lines = [[label, *row[:3], 7, "test", *row[3:]] for label, row in zip(digits.y, table)]
    head = ["label", *names[:3], "subject", "split", *names[3:]]
    whole.write_text("\n".join(",".join(map(str, line)) for line in [head, *lines]) + "\n")
    plain.write_text("\n".join(",".join(map(str, line)) for line in table) + "\n")
    status, shown, err = predict(capsys, "--ckpt", digits.last, "--input", whole)
    assert status == 0 and err.endswith("% of 20 samples\n") and len(rows(shown)) == 20
    assert predict(capsys, "--ckpt", digits.last, "--input", plain) == (0, shown, "")
    file = saved(tmp_path / "x.npz", x=digits.x[:20])
    assert predict(capsys, "--ckpt", digits.last, "--input", file) == (0, shown, "")


def test_images_and_names(images, tmp_path, capsys):
    file = saved(tmp_path / "x.npz", x=images.x, y=images.y)
    status, out, err = predict(capsys, "--ckpt", images.last, "--input", file)
    assert status == 0 and {row["label"] for row in rows(out)} <= {"cat", "dog, small"}
    assert err == f"accuracy of the linear head: {images.summary['last_acc_cnn']:.2f} % of 10 samples\n"
    command = ("--ckpt", images.last, "--input", file)
    message = "error: predict: expected head to be one of linear, got 'nme' (nme takes a learner with exemplars)\n"
    assert predict(capsys, *command, "--head", "nme") == (2, "", message)
    saved(file, x=images.x.astype(np.float32))
    status, out, err = predict(capsys, *command)
    assert (status, out) == (2, "") and "expected x to be uint8 as in the run, got float32 (in " in err


def test_a_note_where_x_looks_unscaled(digits, tmp_path, capsys):
    file = saved(tmp_path / "x.npz", x=digits.x * 16)
    status, _, err = predict(capsys, "--ckpt", digits.last, "--input", file)
    assert (status, err) == (0, "note: x reaches 16; is it scaled as in the run (normalise default)?\n")


NAN = np.zeros((3, 64))
NAN[1, 5] = np.nan


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("absent.npz", None, "predict: expected input {} to exist, got nothing there"),
        ("x.txt", b"", "predict: expected input to be an .npz or .csv file, got 'x.txt'"),
        ("x.npz", b"not a zip", "predict: x.npz: expected a readable .npz of plain arrays, got "),
        ("x.npz", {"data": NAN}, "predict: x.npz: expected a key of x, x_test, got ['data']"),
        ("x.npz", {"x": np.zeros((3, 63))}, "predict: expected x of shape [N, 64] as in the run, got [3, 63] (in {})"),
        ("x.npz", {"x": np.zeros((3, 8, 8))}, "predict: expected x of shape [N, 64] as in the run, got [3, 8, 8] (in {})"),
        ("x.npz", {"x": np.zeros((0, 64))}, "predict: x.npz: expected x of shape [N, F], [N, C, L] or [N, C, H, W], got [0, 64]"),
        ("x.npz", {"x": np.array([["a"]])}, "predict: x.npz: expected x to be integers or floats, got <U1"),
        ("x.npz", {"x": NAN}, "predict: expected finite x, got NaN or infinity (in {}, row 1)"),
        ("x.npz", {"x": np.zeros((3, 64)), "y": np.arange(4)}, "predict: x.npz: expected y of shape [3], got [4]"),
        ("x.csv", b"1,2\n3,4\n", "predict: expected x of shape [N, 64] as in the run, got [2, 2] (in {})"),
        ("x.csv", b"1,2\n3,4,5\n", "predict: x.csv: expected 2 fields in every line, got 3 in line 2"),
        ("x.csv", b"a,b\n3,c\n", "predict: x.csv: expected only numbers in the feature columns, got "),
        ("x.csv", b"", "predict: x.csv: expected rows and feature columns, got 0 rows, 0 features"),
    ],
)  # fmt: skip
def test_input_refused(name, content, message, digits, tmp_path, capsys):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        saved(path, **content)
    status, out, err = predict(capsys, "--ckpt", digits.last, "--input", path)
    assert (status, out) == (2, "") and err.startswith(f"error: {message.format(path)}") and err.count("\n") == 1


def test_checkpoints_and_options_refused(digits, tmp_path, capsys):
    file = saved(tmp_path / "x.npz", x=digits.x)
    cut = tmp_path / "cut.pt"
    cut.write_bytes(Path(digits.last).read_bytes()[:-100])
    for words, message in [
        (("--ckpt", tmp_path / "no.pt"), "error: load_checkpoint: expected "),
        (("--ckpt", cut), f"error: load_checkpoint: expected {cut} to be a whole checkpoint, got "),
        (
            ("--ckpt", digits.last, "--out", tmp_path / "a.txt"),
            "error: predict: expected out to be a .csv or .npz file, got 'a.txt'",
        ),
        (("--ckpt", digits.last, "--out", tmp_path / "no/a.csv"), "error: predict: expected the folder "),
        (("--ckpt", digits.last, "--batch_size", 0), "error: RunConfig: expected batch_size of at least 1, got 0"),
    ]:
        status, out, err = predict(capsys, "--input", file, *words)
        assert (status, out) == (2, "") and err.startswith(message)
    status, _, err = predict(capsys, "--input", file)
    assert status == 2 and err.endswith("the following arguments are required: --ckpt\n")
    assert {path.name for path in tmp_path.iterdir()} == {"x.npz", "cut.pt"}
