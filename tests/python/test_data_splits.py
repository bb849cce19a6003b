"""Splits by person, scaling, and what `load` asserts of every data set."""

import dataclasses
import json
import math
import random

import numpy as np
import pytest
import quintil.data
import torch
from data_trees import rng
from quintil.data.normalise import default_normalisation, normalise
from quintil.data.registry import check, dataset
from quintil.data.splits import split_persons, stratified

SEEDS = (42467, 88801, 91280, 1056, 27534)


def persons_of(mask, subjects):
    return sorted(set(subjects[mask].tolist()))


@pytest.mark.parametrize(
    ("persons", "train_count"),
    [(list(range(1, 9)), 7), ([1, 2, 5, 6, 7, 8], 5), ([p for p in range(1, 31) if p not in (7, 28)], 23)],
    ids=["dsads", "pamap2", "hapt"],
)
@pytest.mark.parametrize("seed", SEEDS)
def test_hdqt_split(persons, train_count, seed):
    order = persons[::-1]  # order of first appearance, not sorted order, is what the draw runs over
    subjects = np.array(order + order)
    train, test = split_persons("set", "hdqt", subjects, seed)
    drawn = random.Random(seed).sample(order, math.ceil(0.8 * len(order)))
    assert persons_of(train, subjects) == sorted(drawn) and len(drawn) == train_count
    assert (train ^ test).all()


def test_other_splits(tmp_path):
    subjects = np.array([4, 4, 2, 9, 2, 7])
    assert persons_of(split_persons("s", "loso:9", subjects, 0)[1], subjects) == [9]
    assert [persons_of(split_persons("s", "loso", subjects, seed)[1], subjects) for seed in range(5)] == [
        [4], [2], [9], [7], [4],
    ]  # fmt: skip
    train, test = split_persons("s", "official", subjects, 0, official_test=(2, 7, 11))
    assert persons_of(train, subjects) == [4, 9] and persons_of(test, subjects) == [2, 7]
    lists = json.dumps({"train": [4], "test": [7, 9]})
    (tmp_path / "lists.json").write_text(lists)
    for argument in (lists, tmp_path / "lists.json"):
        train, test = split_persons("s", f"subjects:{argument}", subjects, 0)
        assert train.tolist() == [True, True, False, False, False, False]
        assert test.tolist() == [False, False, False, True, False, True]


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("random", "s: expected split to be one of hdqt, loso, loso:<person>, subjects:<json>, got 'random'"),
        ("official", "subjects:<json>, got 'official'"),
        ("hdqt:3", "got 'hdqt:3'"),
        ("loso:5", "s: expected persons of [1, 2, 3], got [5] (split 'loso:5')"),
        ("loso:x", "s: expected the person of split loso to be a number, got 'x'"),
        ("subjects:", "got 'subjects:'"),
        ('subjects:{"train": [1]}', "s: expected subjects as JSON like"),
        ('subjects:{"train": [1, "2"], "test": [3]}', "s: expected subjects as JSON like"),
        ('subjects:{"train": [1, 2], "test": [2]}', "s: expected no person on both sides, got [2]"),
        (
            'subjects:{"train": [1, 2], "test": []}',
            "s: expected persons on both sides, got 2 train and 0 test",
        ),
        ('subjects:{"train": [1, 4], "test": [2]}', "s: expected persons of [1, 2, 3], got [4]"),
    ],
)
def test_bad_splits(split, message):
    with pytest.raises(ValueError) as caught:
        split_persons("s", split, np.array([1, 2, 3]), 0)
    assert message in str(caught.value)


def test_a_subjects_file_that_is_absent():
    with pytest.raises(FileNotFoundError, match="expected the subjects file nowhere.json to exist"):
        split_persons("s", "subjects:nowhere.json", np.array([1, 2]), 0)


def test_stratified_split():
    labels = np.repeat([5, 1, 8], [10, 3, 2])
    train, test = stratified(labels, seed=3)
    assert (train ^ test).all() and [int(test[labels == c].sum()) for c in (5, 1, 8)] == [2, 1, 1]
    assert (stratified(labels, seed=3)[1] == test).all() and (stratified(labels, seed=4)[1] != test).any()


# --- scaling ------------------------------------------------------------------


def test_normalisation_by_hand():
    train, test = np.array([[0.0, 5, 1], [10, 5, 3]]), np.array([[20.0, 6, 2]])
    for how, expected in {
        "none": ([[0, 5, 1], [10, 5, 3]], [[20, 6, 2]]),
        "minmax_train": ([[-1, 0, -1], [1, 0, 1]], [[3, 0, 0]]),
        "minmax_all": ([[-1, -1, -1], [0, -1, 1]], [[1, 1, 0]]),
        "zscore_train": ([[-1, 0, -1], [1, 0, 1]], [[3, 0, 0]]),
    }.items():
        got = normalise(train, test, how)
        assert all(part.dtype == np.float32 for part in got)
        for part, want in zip(got, expected, strict=True):
            np.testing.assert_allclose(part, want, err_msg=how)


def test_normalisation_of_series_is_per_channel():
    x = rng().normal(size=(6, 3, 20)) * np.array([1, 10, 0])[:, None] + 0.1
    train, test = normalise(x[:4], x[4:], "zscore_train")
    np.testing.assert_allclose(train.std(axis=(0, 2)), [1, 1, 0], atol=1e-6)
    assert (test[:, 2] == 0).all() and np.isfinite(test).all()


def test_default_scaling_leaves_scaled_tables_alone():
    assert default_normalisation(np.array([[-1.0, 1.0]])) == "none"
    assert default_normalisation(np.array([[-1.0, 1.001]])) == "minmax_train"


# --- load and check -----------------------------------------------------------

DATA = quintil.data.load("synthetic", split="loso:2")


def changed(**changes):
    return dataclasses.replace(DATA, **changes)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (
            changed(x_train=DATA.x_train.double()),
            TypeError,
            "expected x_train to be uint8, float32 or int64, got torch.float64",
        ),
        (changed(x_test=DATA.x_test[:0], y_test=DATA.y_test[:0]), ValueError, "got none in test"),
        (
            changed(y_train=DATA.y_train[1:]),
            ValueError,
            "expected y_train to be int64 [1008], got torch.int64 [1007]",
        ),
        (
            changed(y_test=DATA.y_test.int()),
            ValueError,
            "expected y_test to be int64 [144], got torch.int32 [144]",
        ),
        (
            changed(y_test=DATA.y_test.clamp(max=10)),
            ValueError,
            "every class on both sides of the split, got none of ['12'] in test",
        ),
        (changed(x_test=DATA.x_test[:, 1:]), ValueError, "equal sample shapes, got [1008, 64] and [144, 63]"),
        (
            changed(subject_test=DATA.subject_train[:144]),
            ValueError,
            "no person on both sides of the split, got [1, 3,",
        ),
        (
            changed(subject_test=DATA.subject_test[1:]),
            ValueError,
            "expected subject_test to be [144], got [143]",
        ),
        (
            changed(x_train=DATA.x_train / 0),
            ValueError,
            "finite values in x_train, got NaN or infinity (first in row 0)",
        ),
    ],
)
def test_what_check_refuses(data, error, message):
    with pytest.raises(error) as caught:
        check(data)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (dict(name="digit"), "load: expected name to be one of cifar100,"),
        (dict(name="digit"), "got 'digit' (did you mean 'digits'?)"),
        (dict(name="digits:big"), "load: expected no argument for data set 'digits', got 'big'"),
        (
            dict(name="digits", split="hdqt"),
            "load: expected split of 'digits' to be one of ('official',), got 'hdqt'",
        ),
        (dict(name="digits", normalise="zscore_train"), "digits: expected normalise to be none"),
        (
            dict(name="digits", normalise="z"),
            "load: expected normalise to be one of none, minmax_all, minmax_train, zscore_train, got 'z'",
        ),
        (
            dict(name="digits", subjects_drop=(1,)),
            "load: expected no subjects_drop for data set 'digits', got '(1,)'",
        ),
        (dict(name="synthetic:mnist"), "synthetic: expected variant har or cifar, got 'mnist'"),
        (dict(name="synthetic:cifar", split="loso"), "to be one of ('official',), got 'loso'"),
        (
            dict(name="synthetic", split="loso:9"),
            "synthetic: expected persons of [1, 2, 3, 4, 5, 6, 7, 8], got [9]",
        ),
        (
            dict(name="synthetic", subjects_drop=(11,)),
            "synthetic: expected subjects_drop of [1, 2, 3, 4, 5, 6, 7, 8], got [11]",
        ),
        (dict(name="synthetic", classes_drop=(0,)), "synthetic: expected classes_drop of [1, 2,"),
        (
            dict(name="synthetic", classes_drop=range(1, 13)),
            "synthetic: expected samples after the removals, got none",
        ),
        (
            dict(name="synthetic", subjects_drop=range(1, 8)),
            "synthetic: expected persons on both sides, got 0 train and 1 test",
        ),
    ],
)
def test_bad_calls_of_load(call, message):
    with pytest.raises(ValueError) as caught:
        quintil.data.load(**call)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["cifar100", "dsads", "hapt", "hapt_raw", "pamap2"])
def test_absent_files_name_the_path_the_flag_and_the_way_without(name, tmp_path, monkeypatch):
    monkeypatch.setenv("QUINTIL_DATA_ROOT", str(tmp_path / "from_environment"))
    for root, shown in ((tmp_path / "given", "given"), (None, "from_environment")):
        with pytest.raises(FileNotFoundError) as caught:
            quintil.data.load(name, root)
        text = str(caught.value)
        assert text.startswith(f"{name}: expected {tmp_path / shown}")
        assert "download=True" in text and "'synthetic'" in text


def test_removals_renumber_the_classes():
    data = quintil.data.load("synthetic", classes_drop=(1, 5), subjects_drop=(2,), split="loso:1")
    assert data.class_names == ("2", "3", "4", "6", "7", "8", "9", "10", "11", "12")
    assert data.y_train.unique().tolist() == list(range(10)) and 2 not in data.subject_train


def test_a_name_is_registered_once():
    with pytest.raises(ValueError, match="expected a new name, got 'digits'"):
        dataset("digits")(lambda request: DATA)


def test_tensors_are_of_the_promised_types():
    assert DATA.x_train.dtype == torch.float32 and DATA.y_train.dtype == torch.int64
    assert DATA.subject_train.dtype == torch.int64 and DATA.x_train.is_contiguous()


# --- validation ---------------------------------------------------------------


def test_validation_holds_back_whole_persons_of_the_training_side():
    whole, held = (quintil.data.load("synthetic", split="loso:2", seed=3, validation=on) for on in (False, True))
    before, parts = set(whole.subject_train.tolist()), [
        set(held.subject_train.tolist()),
        set(held.subject_test.tolist()),
    ]
    assert (
        parts[0] | parts[1] == before and not parts[0] & parts[1] and len(parts[1]) == max(1, round(0.2 * len(before)))
    )
    for side in ("train", "test"):
        persons = getattr(held, f"subject_{side}")
        for name in ("x", "y"):
            rows = torch.isin(whole.subject_train, persons)
            assert torch.equal(getattr(held, f"{name}_{side}"), getattr(whole, f"{name}_train")[rows])
    others = [quintil.data.load("synthetic", split="loso:2", validation=True, seed=seed) for seed in range(8)]
    assert len({tuple(other.subject_test.unique().tolist()) for other in others}) > 1


def test_validation_without_persons_takes_a_fifth_of_every_class():
    whole, held = (quintil.data.load("digits", validation=on) for on in (False, True))
    counts = [torch.bincount(y) for y in (whole.y_train, held.y_test, held.y_train)]
    assert torch.equal(counts[1], (counts[0] * 0.2).round().long()) and torch.equal(counts[1] + counts[2], counts[0])
    rows = {tuple(row) for row in whole.x_test.flatten(1).tolist()}
    assert not any(tuple(row) in rows for row in held.x_test.flatten(1).tolist())


def test_validation_needs_a_second_training_person():
    persons = sorted(set(DATA.subject_train.tolist()))
    split = f'subjects:{{"train": [{persons[0]}], "test": [{persons[1]}]}}'
    with pytest.raises(ValueError, match="synthetic: expected training persons to hold some back, got 1"):
        quintil.data.load("synthetic", split=split, validation=True)
