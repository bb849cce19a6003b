"""Accuracy and forgetting of class-incremental runs, each formula under its own name [CIL 3].

Everything starts from confusion counts N[c, k] (rows true class c, columns predicted class k, all classes seen so
far), one matrix per task. Two tables are derived from them: a[t, j], the accuracy on the classes of task j after
task t, and the same per class. Entries that do not exist yet are NaN. All results are percent, never rounded.
Undefined values (no old task at t = 1) are NaN.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

FORMULAS: dict[str, str] = {
    "acc": "correct / total over the test samples of all seen classes",
    "avg_inc_acc": "mean of acc over the tasks so far, first task included (AIA)",
    "avg_inc_acc_excl_first": "mean of acc over the tasks so far without the first",
    "top5": "share of the test samples whose class has one of the five highest scores (all scores if fewer)",
    "last_acc": "acc after the last task",
    "task_mean_acc": "mean over tasks j <= t of a[t,j]",
    "weighted_acc": "sum over tasks of (share of classes) * a[t,j]",
    "forgetting_chaudhry": "mean over j < t of max(a[l,j], j <= l <= t-1) - a[t,j]",
    "forgetting_max_incl": "mean over j < t of max(a[l,j], j <= l <= t) - a[t,j]",
    "forgetting_init": "mean over j < t of a[j,j] - a[t,j]",
    "forgetting_class_best": "mean over all seen classes of best accuracy so far - current accuracy (HDQT)",
    "forgetting_class_best_old": "mean over old classes of best accuracy so far - current accuracy",
    "forgetting_relative": "mean over j < t with best > 0 of 1 - a[t,j] / max(a[l,j], l <= t)",
    "bwt": "mean over j < t of a[t,j] - a[j,j]",
    "bwt_plus": "max(0, bwt)",
    "acc_old": "accuracy on the test samples of classes of earlier tasks",
    "acc_new": "accuracy on the test samples of the classes of task t",
    "pred_new_share": "share of all predictions that name a class of task t",
    "macro_f1": "unweighted mean over classes of 2 TP / (2 TP + FP + FN)",
    "fwt": "mean over j >= 2 of a[j-1,j] - accuracy of an untrained net on task j",
    "intransigence": "accuracy of joint training on task t - a[t,t]",
}


def confusion_counts(true: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts N[c, k] of true class c predicted as k, int64 [classes, classes].

    `true` and `predicted` are integer arrays of one length with values in 0..classes-1; ValueError otherwise.
    """
    true, predicted = np.asarray(true), np.asarray(predicted)
    if true.shape != predicted.shape or true.ndim != 1:
        raise ValueError(
            f"confusion_counts: expected predicted to have the one-dimensional shape of true, got "
            f"{list(predicted.shape)} and {list(true.shape)}"
        )
    for name, values in (("true", true), ("predicted", predicted)):
        if values.size and (values.min() < 0 or values.max() >= classes):
            raise ValueError(
                f"confusion_counts: expected {name} in 0..{classes - 1}, got {int(values.min())}..{int(values.max())}"
            )
    pairs = true.astype(np.int64) * classes + predicted
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def _percent(part: np.ndarray | float, whole: np.ndarray | float) -> np.ndarray:
    """100 part / whole; NaN where whole is 0."""
    part, whole = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    return np.divide(100.0 * part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)


def _mean(values: np.ndarray) -> float:
    """Mean of the defined entries; NaN if there is none."""
    values = np.asarray(values, dtype=np.float64)
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float("nan")


def accuracy(counts: np.ndarray) -> float:
    """`acc_t`: correct / total over all samples of a confusion matrix, percent."""
    return float(_percent(np.trace(counts), counts.sum()))


def class_accuracy(counts: np.ndarray) -> np.ndarray:
    """Accuracy of every class, percent, float64 [classes]; NaN for a class without samples."""
    return _percent(np.diag(counts), counts.sum(axis=1))


def _bounds(sizes: Sequence[int], tasks: int) -> list[tuple[int, int]]:
    """Class range of each of the first `tasks` tasks."""
    ends = np.cumsum(sizes[:tasks]).tolist()
    return list(zip([0, *ends[:-1]], ends))


def _check_history(where: str, history: Sequence[np.ndarray], sizes: Sequence[int]) -> None:
    if not history or len(history) > len(sizes):
        raise ValueError(
            f"{where}: expected history to hold 1..{len(sizes)} confusion matrices, got {len(history)} "
            f"(one per finished task)"
        )
    for t, ((_, seen), counts) in enumerate(zip(_bounds(sizes, len(history)), history), start=1):
        if counts.shape != (seen, seen):
            raise ValueError(
                f"{where}: expected history[{t - 1}] of shape [{seen}, {seen}], got {list(counts.shape)} "
                f"(all classes seen after task {t})"
            )


def accuracy_matrix(history: Sequence[np.ndarray], sizes: Sequence[int]) -> np.ndarray:
    """a[t, j], percent, float64 [T, T] for T = len(history); NaN above the diagonal.

    `history[t]` is the confusion matrix over all classes seen after task t, `sizes` the classes per task.
    """
    _check_history("accuracy_matrix", history, sizes)
    matrix = np.full((len(history), len(history)), np.nan)
    for t, counts in enumerate(history):
        for j, (low, high) in enumerate(_bounds(sizes, t + 1)):
            matrix[t, j] = _percent(np.diag(counts)[low:high].sum(), counts[low:high].sum())
    return matrix


def class_accuracy_matrix(history: Sequence[np.ndarray]) -> np.ndarray:
    """Accuracy of every class after every task, percent, float64 [T, C]; NaN for unseen classes."""
    matrix = np.full((len(history), len(history[-1])), np.nan)
    for t, counts in enumerate(history):
        matrix[t, : len(counts)] = class_accuracy(counts)
    return matrix


def forgetting_chaudhry(a: np.ndarray) -> float:
    """Mean over old tasks of the best earlier accuracy minus the current one (Chaudhry 2018); may be negative."""
    old = len(a) - 1
    return _mean([np.nanmax(a[:old, j]) - a[old, j] for j in range(old)])


def forgetting_max_incl(a: np.ndarray) -> float:
    """As `forgetting_chaudhry` with the current task inside the maximum; never negative."""
    old = len(a) - 1
    return _mean([np.nanmax(a[:, j]) - a[old, j] for j in range(old)])


def forgetting_init(a: np.ndarray) -> float:
    """Mean over old tasks of the accuracy right after learning the task minus the current one (= -BWT)."""
    old = len(a) - 1
    return _mean(np.diag(a)[:old] - a[old, :old])


def forgetting_relative(a: np.ndarray) -> float:
    """Mean over old tasks with best > 0 of 1 - current / best: a fraction, not percent (Kim 2020, Jha 2021)."""
    old = len(a) - 1
    best = [np.nanmax(a[:, j]) for j in range(old)]
    return _mean([1.0 - a[old, j] / best[j] for j in range(old) if best[j] > 0])


def forgetting_class_best(classes: np.ndarray, *, hdqt_rounding: bool = False) -> float:
    """Mean over all seen classes of best minus current accuracy (HDQT's tables); NaN after the first task.

    `classes` is `class_accuracy_matrix`. New classes add 0 and so dilute the value. `hdqt_rounding` rounds class
    accuracies and the result to two digits, as the authors' code does.
    """
    if len(classes) < 2:
        return float("nan")
    table = np.round(classes, 2) if hdqt_rounding else classes
    value = _mean(np.nanmax(table, axis=0, initial=-np.inf, where=~np.isnan(table)) - table[-1])
    return round(value, 2) if hdqt_rounding else value


def forgetting_class_best_old(classes: np.ndarray, old_classes: int) -> float:
    """`forgetting_class_best` over the first `old_classes` classes only: the headline number."""
    return forgetting_class_best(classes[:, :old_classes]) if old_classes else float("nan")


def bwt(a: np.ndarray) -> float:
    """Backward transfer: mean over old tasks of current accuracy minus the one right after learning the task."""
    return -forgetting_init(a)


def fwt(a: np.ndarray, untrained: Sequence[float]) -> float:
    """Forward transfer: mean over j >= 2 of a[j-1, j] - untrained[j].

    Needs accuracies on tasks not trained yet (above the diagonal of `a`) and those of an untrained net; a
    class-incremental run never tests on unseen classes, so its own table has none and raises ValueError.
    """
    ahead = np.diag(a, k=1)
    if len(a) < 2 or np.isnan(ahead).any():
        raise ValueError("fwt: expected a to hold a[j-1, j] for every task j >= 2, got a table without these entries")
    if len(untrained) != len(a):
        raise ValueError(f"fwt: expected untrained to hold {len(a)} accuracies, got {len(untrained)}")
    return _mean(ahead - np.asarray(untrained, dtype=np.float64)[1:])


def intransigence(joint: Sequence[float], a: np.ndarray) -> np.ndarray:
    """joint[t] - a[t, t] for every task, float64 [T]; `joint` are the accuracies of joint training on task t."""
    if len(joint) != len(a):
        raise ValueError(f"intransigence: expected joint to hold {len(a)} accuracies, got {len(joint)}")
    return np.asarray(joint, dtype=np.float64) - np.diag(a)


def auc(megabytes: Sequence[float], accuracies: Sequence[float]) -> float:
    """Area under accuracy (as a fraction) over memory in MB, trapezoidal (CIL_Survey).

    With `avg_inc_acc` values it is `auc_a`, with `last_acc` values `auc_l`. Memory counts model and exemplars.
    """
    if len(megabytes) != len(accuracies) or len(megabytes) < 2:
        raise ValueError(
            f"auc: expected two or more points of memory and accuracy, got {len(megabytes)} and {len(accuracies)}"
        )
    order = np.argsort(megabytes)
    return float(np.trapezoid(np.asarray(accuracies, dtype=np.float64)[order] / 100.0, np.asarray(megabytes)[order]))


def macro_f1(counts: np.ndarray) -> float:
    """Unweighted class mean of F1, percent. A class that is neither true nor predicted anywhere is left out."""
    hits = np.diag(counts)
    return _mean(_percent(2.0 * hits, counts.sum(axis=0) + counts.sum(axis=1)))


def task_metrics(history: Sequence[np.ndarray], sizes: Sequence[int], *, hdqt_rounding: bool = False) -> dict:
    """All numbers of the table of [CIL 3] after the last task of `history`, by their printed names.

    Returns floats (NaN where undefined) and `per_class`, a list. `history` and `sizes` as in `accuracy_matrix`.
    """
    a, classes, counts = accuracy_matrix(history, sizes), class_accuracy_matrix(history), history[-1]
    tasks, seen = len(history), len(counts)
    old = seen - sizes[tasks - 1]
    accuracies = [accuracy(each) for each in history]
    backward = bwt(a)
    return {
        "acc": accuracies[-1],
        "avg_inc_acc": _mean(accuracies),
        "avg_inc_acc_excl_first": _mean(accuracies[1:]),
        "task_mean_acc": _mean(a[-1]),
        "weighted_acc": float(np.dot(sizes[:tasks], a[-1]) / seen),
        "forgetting_chaudhry": forgetting_chaudhry(a),
        "forgetting_max_incl": forgetting_max_incl(a),
        "forgetting_init": forgetting_init(a),
        "forgetting_class_best": forgetting_class_best(classes, hdqt_rounding=hdqt_rounding),
        "forgetting_class_best_old": forgetting_class_best_old(classes, old),
        "forgetting_relative": forgetting_relative(a),
        "bwt": backward,
        "bwt_plus": max(0.0, backward) if backward == backward else backward,
        "acc_old": float(_percent(np.diag(counts)[:old].sum(), counts[:old].sum())),
        "acc_new": float(_percent(np.diag(counts)[old:].sum(), counts[old:].sum())),
        "pred_new_share": float(_percent(counts[:, old:].sum(), counts.sum())),
        "macro_f1": macro_f1(counts),
        "per_class": classes[-1].tolist(),
    }
