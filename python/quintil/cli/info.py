"""Facts about this installation: what to paste into a question or a bug report."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Sequence


def facts() -> dict[str, object]:
    import numpy
    import torch

    from quintil._library import _bindings, active_isa, runnable_isas

    build = _bindings.build_flags()
    return {
        "version": build["version"],
        "isa": active_isa(),
        "runnable_isas": runnable_isas(),
        "forced_isa": os.environ.get("QUINTIL_ISA"),
        "cpu_features": _bindings.cpu_features(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "build": build,
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "platform": platform.platform(),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="quintil info", description=__doc__)
    parser.add_argument("--json", action="store_true", help="as JSON")
    options = parser.parse_args(arguments)
    found = facts()
    if options.json:
        print(json.dumps(found, indent=2, sort_keys=True))
        return 0
    for name, value in found.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {part}" for key, part in value.items())
        elif isinstance(value, (list, tuple)):
            value = ", ".join(map(str, value))
        print(f"{name:<15}{'-' if value is None else value}")
    return 0
