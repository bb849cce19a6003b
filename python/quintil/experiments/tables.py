"""Studies of whole runs: the tables of HDQT's paper, and networks beyond it."""

from __future__ import annotations

import dataclasses

from quintil.report.published import PUBLISHED

from .arms import BEST, DEFAULT, FLOAT, PAPER, TWENTY_CLASSES
from .study import Study


def _published() -> dict[tuple[str, str, str], str]:
    """The authors' tables: last accuracy of the linear head, of the same learner in both arithmetics."""
    found = {}
    for (dataset, method), rows in PUBLISHED.items():
        for row in rows:
            if row.head == "cnn":
                cell = f"{row.last:.2f} ± {row.std:.2f}"
                names = ("float32",) if row.arithmetic == "float32" else (DEFAULT.label, PAPER.label)
                learners = (method, "bic-compat") if method == "bic" else (method,)
                found.update({(dataset, learner, name): cell for learner in learners for name in names})
    return found


def har_table() -> Study:
    return Study(
        "har-table",
        "Class-incremental learning on sensor data",
        "Do 4-bit operands with 8-bit accumulators learn as well as float32?",
        (FLOAT, DEFAULT, PAPER),
        datasets=("dsads", "hapt"),
        learners=("lwf", "icarl", "bic", "bic-compat", "der", "memo"),
        published=_published(),
    )


def cifar_table() -> Study:
    return dataclasses.replace(
        har_table(),
        name="cifar-table",
        title="Class-incremental learning on CIFAR-100",
        datasets=("cifar100",),
        learners=("icarl", "bic"),
    )


def best() -> Study:
    return Study(
        "best",
        "HDQT.best() beside HDQT() and the published arithmetic",
        "How much of the gap to float32 do ranges and tiles close that were chosen together, and what do they cost?",
        (FLOAT, PAPER, DEFAULT, BEST),
        datasets=("dsads", "hapt"),
        learners=("icarl", "bic"),
        energy=True,
    )


def best_cifar() -> Study:
    return dataclasses.replace(
        best(),
        name="best-cifar",
        title="HDQT.best() on 20 classes of CIFAR-100",
        question="The same on images: ResNet-20, 6 epochs, 20 classes at once; the search never saw this test side",
        datasets=("cifar100",),
        learners=("icarl",),
        seeds=3,
        common=TWENTY_CLASSES,
    )


def lstm_har() -> Study:
    return Study(
        "lstm-har",
        "An LSTM on windows of raw signals",
        "Beyond the paper: does HDQT train a recurrent network, whose state passes through 32 quantised products?",
        (FLOAT, DEFAULT, PAPER, BEST),
        datasets=("hapt_windows",),
        learners=("icarl", "bic"),
    )
