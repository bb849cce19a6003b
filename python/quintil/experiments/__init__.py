"""Studies: a question about the arithmetic, arms that differ in one thing, equal seeds, a table and a picture.

`quintil study NAME` runs one; `STUDIES` holds them by name. Arms are class-incremental runs (`quintil.continual`), and
arms that are equal in two studies are trained once.
"""

from __future__ import annotations

from .catalogue import STUDIES, study
from .results import ArmResult, as_json, from_json, groups, markdown, pooled, result, rows
from .study import Arm, Cell, Study, cells

__all__ = [
    "STUDIES",
    "Arm",
    "ArmResult",
    "Cell",
    "Study",
    "as_json",
    "cells",
    "from_json",
    "groups",
    "markdown",
    "pooled",
    "result",
    "rows",
    "study",
]
