"""The command line: `python -m quintil COMMAND` and the console script `quintil`.

A command's module is imported when the command is called; the list of commands alone needs none of them.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import sys
from collections.abc import Sequence

COMMANDS = {
    "train": "train a learner task by task and report it",
    "sweep": "data sets x learners x schemes x seeds, side by side",
    "predict": "labels for new samples from a checkpoint",
    "study": "questions about the arithmetic: arms on equal seeds, a table and a picture",
    "report": "tables, pictures and exports of finished runs",
    "compare-quantizers": "errors of VecQ and of other quantisers on a network's weights",
    "energy": "operations and energy of a training step, layer by layer, beside float32",
    "datasets": "data sets: names, shapes, files and where to get them",
    "info": "version, instruction sets, torch, build",
}
_EXTRAS = {"matplotlib": "report", "tqdm": "data"}  # packages without which a command cannot be imported
_EPILOG = """\
A first run, seconds, no data needed:
  quintil train --preset digits
  quintil train --preset digits --quant hdqt
  quintil report runs/default

`quintil COMMAND --help` explains the options of a command and defines every metric.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status: 0, 2 for options or data that cannot be used, 130 after Ctrl-C."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0].startswith("-"):
        return _top(arguments)
    command, *rest = arguments
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        print(f"quintil: error: expected one of {', '.join(COMMANDS)}, got {command!r}{hint}", file=sys.stderr)
        return 2
    try:
        return importlib.import_module(f"quintil.cli.{command.replace('-', '_')}").main(rest)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRAS:
            raise
        install = f"pip install 'quintil[{_EXTRAS[package]}]'"
        print(f"error: {command}: expected the package {package}, got none ({install})", file=sys.stderr)
        return 2


def _top(arguments: Sequence[str]) -> int:
    """Help and version."""
    from quintil._library import _bindings

    rows = "\n".join(f"  {name:<20}{what}" for name, what in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="quintil",
        usage="quintil COMMAND [options]",
        description=f"Quantized integer incremental learning on CPUs.\n\ncommands:\n{rows}",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"quintil {_bindings.build_flags()['version']}")
    parser.parse_args(arguments)
    parser.print_help(sys.stderr if arguments == [] else sys.stdout)
    return 2
