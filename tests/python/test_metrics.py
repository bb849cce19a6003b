"""Accuracy, forgetting and statistics, all from confusion counts, against the worked examples of [CIL 3]."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from quintil import metrics
from quintil.metrics import Estimate, estimate, paired_difference, task_metrics

ROWS = ([90], [95, 80], [75, 82, 85])


def history(rows, sizes, samples=100, seed=0) -> list[np.ndarray]:
    """Confusion counts with `samples` per class and the given accuracies per task; errors fall anywhere else."""
    generator, matrices = np.random.default_rng(seed), []
    for row in rows:
        accuracies = np.repeat(row, sizes[: len(row)])
        true, predicted = [], []
        for label, value in enumerate(accuracies):
            hits = round(samples * value / 100)
            others = [k for k in range(len(accuracies)) if k != label]
            true += [label] * samples
            predicted += [label] * hits + generator.choice(others, samples - hits).tolist()
        matrices.append(metrics.confusion_counts(np.array(true), np.array(predicted), len(accuracies)))
    return matrices


EXAMPLE = {
    2: {
        "acc": 87.5,
        "avg_inc_acc": 88.75,
        "avg_inc_acc_excl_first": 87.5,
        "task_mean_acc": 87.5,
        "weighted_acc": 87.5,
        "forgetting_chaudhry": -5,
        "forgetting_max_incl": 0,
        "forgetting_init": -5,
        "forgetting_class_best": 0,
        "forgetting_class_best_old": 0,
        "forgetting_relative": 0,
        "bwt": 5,
        "bwt_plus": 5,
        "acc_old": 95,
        "acc_new": 80,
    },
    3: {
        "acc": 242 / 3,
        "avg_inc_acc": (90 + 87.5 + 242 / 3) / 3,  # 86.056
        "avg_inc_acc_excl_first": (87.5 + 242 / 3) / 2,  # 84.083
        "task_mean_acc": 242 / 3,
        "weighted_acc": 242 / 3,
        "forgetting_chaudhry": 9.0,
        "forgetting_max_incl": 10.0,
        "forgetting_init": 6.5,
        "forgetting_class_best": 20 / 3,
        "forgetting_class_best_old": 10.0,
        "forgetting_relative": (1 - 75 / 95) / 2,  # .10526
        "bwt": -6.5,
        "bwt_plus": 0.0,
        "acc_old": 78.5,
        "acc_new": 85.0,
    },
}


@pytest.mark.parametrize("per_task", [2, 5])
@pytest.mark.parametrize("tasks", [2, 3])
def test_worked_example(tasks, per_task):
    found = task_metrics(history(ROWS[:tasks], [per_task] * 3), [per_task] * 3)
    want = EXAMPLE[tasks]
    assert {name: found[name] for name in want} == pytest.approx(want, abs=1e-9)
    assert found["per_class"] == pytest.approx(np.repeat(ROWS[tasks - 1], per_task).tolist())


def test_first_task_has_no_forgetting():
    found = task_metrics(history(ROWS[:1], [2]), [2])
    assert found["acc"] == found["avg_inc_acc"] == found["acc_new"] == 90.0
    undefined = {name for name, value in found.items() if isinstance(value, float) and math.isnan(value)}
    forgetting = {name for name in found if name.startswith("forgetting")}
    assert undefined == {*forgetting, "bwt", "bwt_plus", "acc_old", "avg_inc_acc_excl_first"}


def test_unequal_task_sizes():
    found = task_metrics(history(ROWS, [2, 2, 1]), [2, 2, 1])
    assert found["acc"] == pytest.approx(79.8)
    assert found["weighted_acc"] == pytest.approx(79.8)
    assert found["task_mean_acc"] == pytest.approx(242 / 3)


def test_tables():
    counts = history(ROWS, [2, 2, 1])
    a = metrics.accuracy_matrix(counts, [2, 2, 1])
    nan = math.nan
    np.testing.assert_allclose(a, [[90, nan, nan], [95, 80, nan], [75, 82, 85]])
    classes = metrics.class_accuracy_matrix(counts)
    np.testing.assert_allclose(classes, [[90, 90, nan, nan, nan], [95, 95, 80, 80, nan], [75, 75, 82, 82, 85]])
    assert metrics.forgetting_chaudhry(a) == pytest.approx(9.0)


def test_hdqt_forgetting_and_its_rounding():
    counts = history(ROWS, [2] * 3)
    classes = metrics.class_accuracy_matrix(counts)
    assert metrics.forgetting_class_best(classes) == pytest.approx(20 / 3)
    assert metrics.forgetting_class_best(classes, hdqt_rounding=True) == 6.67
    assert task_metrics(counts, [2] * 3, hdqt_rounding=True)["forgetting_class_best"] == 6.67
    thirds = [np.array([[2, 1], [0, 3]]), np.array([[1, 1, 1, 0], [0, 3, 0, 0], [0, 0, 3, 0], [0, 0, 0, 3]])]
    classes = metrics.class_accuracy_matrix(thirds)
    assert metrics.forgetting_class_best(classes) == pytest.approx(100 / 3 / 4)  # 8.3333
    assert metrics.forgetting_class_best(classes, hdqt_rounding=True) == pytest.approx(8.34)  # (66.67 - 33.33) / 4
    assert task_metrics(thirds, [2, 2], hdqt_rounding=True)["forgetting_class_best_old"] == pytest.approx(100 / 6)


def test_recency_bias():
    counts = [np.array([[4]]), np.array([[1, 2, 1], [0, 3, 1], [1, 1, 6]])]
    found = task_metrics(counts, [1, 2])
    assert found["pred_new_share"] == pytest.approx(100 * 14 / 16)
    assert found["acc_old"] == 25.0 and found["acc_new"] == pytest.approx(100 * 9 / 12)


def test_macro_f1():
    generator = np.random.default_rng(1)
    for absent in ((), (2,), (0, 4)):
        kept = [c for c in range(5) if c not in absent]
        true, predicted = generator.choice(kept, 200), generator.choice(kept, 200)
        counts = metrics.confusion_counts(true, predicted, 5)
        want = 100 * sklearn.metrics.f1_score(true, predicted, average="macro")
        assert metrics.macro_f1(counts) == pytest.approx(want)
    never_hit = np.array([[3, 0, 0], [2, 0, 0], [0, 0, 4]])  # class 1 is always taken for class 0: F1 = 0, counted
    assert metrics.macro_f1(never_hit) == pytest.approx((75 + 0 + 100) / 3)
    only_predicted = np.array([[2, 1, 0], [0, 0, 0], [0, 0, 4]])  # class 1 has no sample, but is predicted once
    assert metrics.macro_f1(only_predicted) == pytest.approx((80 + 0 + 100) / 3)
    assert math.isnan(metrics.class_accuracy(only_predicted)[1])


def test_confusion_counts_and_accuracy():
    counts = metrics.confusion_counts(np.array([0, 0, 1, 2]), np.array([0, 2, 1, 1]), 3)
    assert counts.tolist() == [[1, 0, 1], [0, 1, 0], [0, 1, 0]] and counts.dtype == np.int64
    assert metrics.accuracy(counts) == 50.0
    np.testing.assert_allclose(metrics.class_accuracy(counts), [50, 100, 0])


def test_formulas_name_every_number():
    found = task_metrics(history(ROWS, [2] * 3), [2] * 3)
    assert set(found) - {"per_class"} <= set(metrics.FORMULAS)
    assert {"last_acc", "top5", "fwt", "intransigence"} == set(metrics.FORMULAS) - set(found)


def test_numbers_that_need_a_second_run():
    a = np.array([[90.0, 20.0, math.nan], [85.0, 80.0, 30.0], [75.0, 70.0, 85.0]])
    assert metrics.fwt(a, [10, 10, 10]) == pytest.approx((10 + 20) / 2)
    assert metrics.intransigence([92, 88, 86], a).tolist() == [2, 8, 1]
    assert metrics.auc([3, 1, 2], [80, 40, 60]) == pytest.approx(0.5 + 0.7)
    own = metrics.accuracy_matrix(history(ROWS, [2] * 3), [2] * 3)
    for call, message in [
        (
            lambda: metrics.fwt(own, [1, 1, 1]),
            "fwt: expected a to hold a[j-1, j] for every task j >= 2, got a table",
        ),
        (lambda: metrics.fwt(a, [1]), "fwt: expected untrained to hold 3 accuracies, got 1"),
        (lambda: metrics.intransigence([1], a), "intransigence: expected joint to hold 3 accuracies, got 1"),
        (
            lambda: metrics.auc([1], [1]),
            "auc: expected two or more points of memory and accuracy, got 1 and 1",
        ),
    ]:
        with pytest.raises(ValueError, match="^" + re.escape(message)):
            call()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: metrics.confusion_counts(np.zeros(3, int), np.zeros(2, int), 2),
         "confusion_counts: expected predicted to have the one-dimensional shape of true, got [2] and [3]"),
        (lambda: metrics.confusion_counts(np.array([0, 2]), np.array([0, 1]), 2),
         "confusion_counts: expected true in 0..1, got 0..2"),
        (lambda: metrics.confusion_counts(np.array([0, 1]), np.array([-1, 1]), 2),
         "confusion_counts: expected predicted in 0..1, got -1..1"),
        (lambda: metrics.accuracy_matrix([], [2]), "accuracy_matrix: expected history to hold 1..1 confusion matrices, "
         "got 0 (one per finished task)"),
        (lambda: metrics.accuracy_matrix([np.eye(2), np.eye(2)], [2, 2]), "accuracy_matrix: expected history[1] of "
         "shape [4, 4], got [2, 2] (all classes seen after task 2)"),
        (lambda: estimate([]), "estimate: expected at least one value, got none"),
        (lambda: metrics.t_quantile(0), "t_quantile: expected degrees of at least 1, got 0"),
        (lambda: paired_difference({1: 2.0, 3: 1.0}, {1: 1.0}),
         "paired_difference: expected the same seeds on both sides, got [1, 3] and [1]"),
    ],
)  # fmt: skip
def test_refused(call, message):
    with pytest.raises(ValueError) as caught:
        call()
    assert str(caught.value) == message


def test_quantiles_are_those_of_student():
    for degrees in (*range(1, 12), 19, 29, 100):
        for confidence in (0.5, 0.9, 0.95, 0.99):
            want = scipy.stats.t.ppf(0.5 + confidence / 2, degrees)
            assert metrics.t_quantile(degrees, confidence) == pytest.approx(want, rel=1e-9)


def test_estimates():
    values = [43.76, 42.33, 45.07, 42.24, 42.58]
    found = estimate(values)
    low, high = scipy.stats.t.interval(0.95, 4, np.mean(values), scipy.stats.sem(values))
    assert (found.mean, found.std, found.n) == pytest.approx((np.mean(values), np.std(values, ddof=1), 5))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert str(found) == "43.20 ± 1.21"
    assert estimate([7]) == Estimate(7.0, None, 1, None, None) and str(estimate([7])) == "7.00"
    assert estimate([7, 7]) == Estimate(7.0, 0.0, 2, 7.0, 7.0)


def test_differences_are_paired_by_seed():
    ours, theirs = {3: 70.0, 1: 50.0, 2: 60.0}, {1: 51.0, 2: 61.5, 3: 70.5}
    found = paired_difference(ours, theirs)
    assert found == estimate([-1.0, -1.5, -0.5])
    assert (found.mean, found.std) == pytest.approx((-1.0, 0.5))  # the spread of the gaps, not of the accuracies


def test_reading_a_damaged_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="^read_run: expected seed folders with a config.json, got none"):
        metrics.read_run(tmp_path)
    with pytest.raises(FileNotFoundError, match="^read_seed: expected the file config.json, got nothing"):
        metrics.read_seed(tmp_path / "seed0")
    (tmp_path / "seed0").mkdir()
    (tmp_path / "seed0" / "config.json").write_text(json.dumps({"seed": 0}))
    (tmp_path / "seed0" / "metrics.jsonl").write_text('{"task": 1}\n{"task": 2')
    with pytest.raises(ValueError, match="^read_seed: expected metrics.jsonl to be JSON, got .*metrics.jsonl, line 2"):
        metrics.read_run(tmp_path)
