"""The arms that several studies share."""

from __future__ import annotations

from typing import Any

from quintil.schemes import HDQT

from .study import Arm

# A short run that shows differences: 20 classes of CIFAR-100 at once.
TWENTY_CLASSES = {
    "model": "resnet20", "classes_drop": tuple(range(20, 100)), "init_cls": 20, "increment": 20, "epochs": 6,
    "milestones": (4, 5),
}  # fmt: skip
UNLIMITED = 32  # accumulator bits that limit nothing
FLOAT = Arm("float32", None)
DEFAULT = Arm("HDQT", HDQT())
BEST = Arm("HDQT.best()", HDQT.best())
PAPER = Arm("HDQT, paper", HDQT.paper())


def hdqt(label: str, *, line: str = "", x: str | None = None, **fields: Any) -> Arm:
    """HDQT() with some fields changed."""
    return Arm(label, HDQT(**fields), line=line, x=x)
