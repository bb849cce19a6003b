"""Reports of finished runs, from their files alone; run it again at any time, equal files give equal bytes.

  quintil report runs/default                      # every run below a folder
  quintil report runs/a/x runs/b/y --out compared  # runs of several experiments together
  quintil report runs/default --export qc          # also the CSV layout of the PyCIL family
  quintil report runs/default --tensorboard logs   # also event files: tensorboard --logdir logs

Runs with equal settings stand together; a quantised run is paired seed by seed with the float32 run of the same
settings. Written are report.html (one file, readable offline), report.md, report.json, and every picture as PNG and
SVG: accuracy per task, each forgetting, old against new classes, confusion matrices, differences with their 95 %
intervals, time and memory, saturation where it was counted.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from quintil.continual.arguments import metric_help


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="quintil report",
        description=__doc__,
        epilog=metric_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help="run directories, or folders that hold some")
    parser.add_argument("--out", metavar="DIR", help="folder for the report (default: the PATH, or what all share)")
    parser.add_argument(
        "--export", choices=("qc",),
        help="qc: <out>/results/<prefix>/{cnn,nme}_{top1,top5}/<data>_<seed>_<net>_B<init>_Inc<inc>.csv",
    )  # fmt: skip
    parser.add_argument(
        "--prefix", default="benchmark", help="folder of the export (benchmark); fair and auc add the memory size"
    )
    parser.add_argument("--tensorboard", metavar="DIR", help="write event files (needs the extra quintil[tensorboard])")
    options = parser.parse_args(arguments)
    try:
        return _report(options)
    except ModuleNotFoundError:  # which `quintil.cli.main` words for every command
        raise
    except (ImportError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _report(options: argparse.Namespace) -> int:
    from quintil import report
    from quintil.metrics import read_run

    runs = list(dict.fromkeys(run for path in options.paths for run in report.find_runs(path)))
    out = Path(options.out) if options.out else _shared_folder(options.paths)
    page = report.write_report(runs, out)
    print(report.plain_table([read_run(run) for run in runs]))
    print(f"\nreport: {page.with_suffix('.html')}, {page}")
    if options.export:
        files = report.export_qc(runs, out, prefix=options.prefix)
        print(f"export: {len(files)} files below {out / 'results'}")
    if options.tensorboard:
        files = report.export_tensorboard(runs, options.tensorboard)
        print(f"tensorboard: {len(files)} event files below {options.tensorboard}")
    return 0


def _shared_folder(paths: Sequence[str]) -> Path:
    """The folder itself, or the deepest one that holds all of several."""
    return Path(paths[0]) if len(paths) == 1 else Path(os.path.relpath(os.path.commonpath(map(os.path.abspath, paths))))
