"""The comparison behind scripts/demo: float32 against HDQT, iCaRL, both heads, one table.

    python -m quintil.continual.demo [--dataset digits|hapt|dsads|cifar100] [--data-root DIR]

HDQT here means 4-bit operands, 8-bit accumulators, tiles of 32. Results, report.md and the curves go to runs/demo.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from quintil import report
from quintil.metrics import read_run
from quintil.schemes import HDQT

from .config import RunConfig
from .console import Console
from .presets import preset
from .run import run
from .train import USER_ERRORS

# Settings short enough to wait for; the published lengths are the presets named hdqt-<data set>.
DEMOS: dict[str, tuple[RunConfig, str]] = {
    "digits": (preset("digits"), "the preset digits in full"),
    "dsads": (
        preset("hdqt-dsads").replace(epochs=20, seeds=preset("hdqt-dsads").seeds[:3]),
        "the preset hdqt-dsads with 20 epochs per task instead of 100 and 3 seeds instead of 20",
    ),
    "hapt": (
        preset("hdqt-hapt-raw").replace(epochs=20, seeds=preset("hdqt-hapt-raw").seeds[:3]),
        "the preset hdqt-hapt-raw with 20 epochs per task instead of 100 and 3 seeds instead of 20",
    ),
    "cifar100": (
        preset("hdqt-cifar100").replace(epochs=2, milestones=(), seeds=preset("hdqt-cifar100").seeds[:1]),
        "the preset hdqt-cifar100 with 2 epochs per task instead of 170, constant rate, and 1 seed instead of 5",
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit status (130 after Ctrl-C, 2 for unusable data or options)."""
    parser = argparse.ArgumentParser(prog="quintil.continual.demo", description=__doc__.split("\n\n")[0])
    parser.add_argument("--dataset", choices=sorted(DEMOS), default="digits")
    parser.add_argument("--data-root", help="folder with the publisher's files (digits needs none)")
    parser.add_argument("--download", action="store_true", help="fetch absent files into the data root")
    parser.add_argument("--results_dir", default="runs", help="folder for the results (runs)")
    parser.add_argument("--seed", type=int, nargs="+", help="other seeds than the demo's own")
    parser.add_argument("--resume", action="store_true", help="go on where an earlier call stopped")
    options = parser.parse_args(arguments)
    config, what = DEMOS[options.dataset]
    config = config.replace(
        data_root=options.data_root,
        download=options.download,
        results_dir=options.results_dir,
        exp_name="demo",
        seeds=config.seeds if options.seed is None else tuple(options.seed),
    )
    print(f"setting: {what}")
    start = time.perf_counter()
    console = Console()
    try:
        paths = [run(each, console, force=not options.resume) for each in (config, config.replace(scheme=HDQT()))]
    except KeyboardInterrupt:
        console.close()
        print(
            f"\nstopped; what is finished is kept in {Path(options.results_dir) / 'demo'}, --resume goes on from here",
            file=sys.stderr,
        )
        return 130
    except USER_ERRORS as error:
        console.close()
        print(f"error: {error}", file=sys.stderr)
        return 2
    page = report.write_report(paths, Path(options.results_dir) / "demo")
    print(f"\n{options.dataset}, iCaRL, percent, mean ± std over seeds; differences paired, with 95 % interval\n")
    print(report.plain_table([read_run(path) for path in paths]))
    print(f"\nreport and curves: {page} ({time.perf_counter() - start:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
