"""Labels for new samples from a checkpoint of a run; no data set is read.

  quintil predict --ckpt runs/default/digits_icarl_B2_Inc2/seed0/ckpt/last.pt --input new.npz > labels.csv
  quintil predict --ckpt .../ckpt/task3.pt --input new.csv --head nme --out labels.npz

Input: an .npz file with x (or x_test) of shape [N, ...] as in the run, or a CSV file of features, with or without a
header; columns label, subject and split are no features. Features must be scaled as in the run (--normalise): a
checkpoint holds no statistics of the columns, so what `quintil train` read from the publisher's files or from
custom:FILE has to be scaled by hand first. Images are bytes, as in the run. Where the file holds labels too (y, y_test,
a column label), the accuracy is printed on stderr.

Output: a line per sample in the order of the input: label (the original class name), head, and score_<class> of every
class learnt so far, larger is better (linear: logits, corrected as the learner does; nme: minus the squared distance
to the class mean). As .npz: label, score [N, classes], classes, head. A quantised layer has one scale per batch, so its
predictions may depend on what else is in the batch: same samples, same order and same batch size give the same bits.

Exit status: 0, or 2 for a checkpoint, input or option that cannot be used.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from quintil.continual.checkpoint import read_checkpoint
from quintil.continual.load import learner_of
from quintil.continual.rundir import write_atomic
from quintil.continual.train import USER_ERRORS
from quintil.data.user_files import read_samples

_UNSCALED = 10.0  # columns scaled in any way of --normalise rarely reach it


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="quintil predict",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("--ckpt", required=True, metavar="FILE", help="seed<k>/ckpt/last.pt or task<t>.pt of a run")
    made.add_argument("--input", required=True, metavar="FILE", help="samples, .npz or .csv")
    made.add_argument(
        "--head", choices=("linear", "nme"), default="linear",
        help="linear classifier, or nearest mean of exemplars, for learners that keep some (linear)",
    )  # fmt: skip
    made.add_argument("--out", metavar="FILE", help="write a .csv or .npz file instead of CSV on stdout")
    made.add_argument("--batch_size", "--batch-size", type=int, metavar="N", help="samples per batch (the run's)")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        return _predict(options)
    except USER_ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _predict(options: argparse.Namespace) -> int:
    out = _out_path(options.out)
    path = Path(options.ckpt)
    content = read_checkpoint(path)
    if content["task"] < 1:
        raise ValueError(f"predict: expected a checkpoint with a finished task, got one of the first task ({path})")
    learner = learner_of(content, path)
    if options.batch_size is not None:
        learner.config = learner.config.replace(batch_size=options.batch_size)
    x, labels = read_samples(Path(options.input))
    samples = _as_in_the_run(x, content, f"in {options.input}")
    scores = learner.scores(samples, (options.head,))[options.head].numpy()
    classes = np.array(learner.class_names[: learner.seen])
    predicted = classes[scores.argmax(1)]
    if out is None:
        sys.stdout.write(_as_csv(predicted, options.head, scores, classes))
    elif out.suffix.lower() == ".csv":
        write_atomic(out, _as_csv(predicted, options.head, scores, classes))
    else:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, label=predicted, score=scores, classes=classes, head=options.head)
        write_atomic(out, buffer.getvalue())
    if labels is not None:
        print(_accuracy(predicted, labels.astype(str), classes, options.head), file=sys.stderr)
    return 0


def _out_path(text: str | None) -> Path | None:
    """Refuses what could not be written before anything is computed."""
    if text is None:
        return None
    path = Path(text)
    if path.suffix.lower() not in (".csv", ".npz"):
        raise ValueError(f"predict: expected out to be a .csv or .npz file, got {path.name!r}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"predict: expected the folder {path.parent} of out to exist, got nothing there")
    return path


def _as_in_the_run(x: np.ndarray, content: dict, where: str) -> torch.Tensor:
    """x in the shape and type of the run's samples; ValueError if it cannot be such samples."""
    shape, kind = content["input"]["shape"], content["input"]["dtype"]
    if list(x.shape[1:]) != shape:
        wanted = ", ".join(map(str, ["N", *shape]))
        raise ValueError(f"predict: expected x of shape [{wanted}] as in the run, got {list(x.shape)} ({where})")
    if kind == "uint8":
        if x.dtype != np.uint8:
            raise ValueError(f"predict: expected x to be uint8 as in the run, got {x.dtype} ({where})")
        return torch.from_numpy(x)
    finite = np.isfinite(x).reshape(len(x), -1).all(1)
    if not finite.all():
        row = int((~finite).argmax())
        raise ValueError(f"predict: expected finite x, got NaN or infinity ({where}, row {row})")
    largest, normalise = float(np.abs(x).max()), content["config"]["normalise"]
    if largest > _UNSCALED and normalise != "none":
        print(
            f"note: x reaches {largest:g}; is it scaled as in the run (normalise {normalise or 'default'})?",
            file=sys.stderr,
        )
    return torch.from_numpy(x.astype(np.float32))


def _as_csv(predicted: np.ndarray, head: str, scores: np.ndarray, classes: np.ndarray) -> str:
    """Nine digits tell every float32 from its neighbours."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["label", "head", *(f"score_{name}" for name in classes)])
    for label, row in zip(predicted, scores.tolist()):
        writer.writerow([label, head, *(f"{value:.9g}" for value in row)])
    return buffer.getvalue()


def _accuracy(predicted: np.ndarray, labels: np.ndarray, classes: np.ndarray, head: str) -> str:
    """Over the samples of classes learnt so far, as a run is tested; says what is left out."""
    known = np.isin(labels, classes)
    text = f"accuracy of the {head} head: no label is of a class learnt so far"
    if known.any():
        right = int((predicted == labels)[known].sum())
        text = f"accuracy of the {head} head: {100 * right / known.sum():.2f} % of {known.sum()} samples"
    unknown = sorted(set(labels[~known].tolist()))
    if unknown:
        shown = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        text += f" (left out: {(~known).sum()} of classes not learnt: {shown})"
    return text
