#!/usr/bin/env python3
"""Learners on a sensor data set by the HDQT authors' protocol: float32 against integers on the same splits.

Every (learner, arithmetic, seed) is one job with one thread; jobs run side by side in `--jobs` processes, and finished
ones are skipped when the command is repeated. Writes <out>.json (all numbers, also by seed) and <out>.md (the tables:
our values beside the published ones, and paired differences to float32), and report.md with curves beside the runs.

bic-compat is the HDQT authors' variant of BiC, which their published rows come from; bic is the paper's.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import quintil
from quintil import report
from quintil.continual import RunConfig, preset, sweep
from quintil.metrics import RunResult, estimate, paired_difference, read_run
from quintil.report.published import PUBLISHED, Published
from tqdm import tqdm

LEARNERS = ("lwf", "icarl", "bic", "bic-compat", "der", "memo")
SCHEMES = {"float32": None, "hdqt": quintil.HDQT(), "hdqt-paper": quintil.HDQT.paper()}
COLUMNS = {
    "last_acc_cnn": "last, linear",
    "avg_inc_acc_cnn": "average, linear",
    "forgetting_class_best_cnn": "forgetting, linear",
    "last_acc_nme": "last, NME",
    "avg_inc_acc_nme": "average, NME",
}
NOTES = {
    "dsads": "Features computed from the raw recordings; the authors' table of 405 features is not public.",
    "hapt": "The 561 features are those of X_train.txt and X_test.txt where these files are there, else computed from "
    "the raw signals by the publisher's description.",
    "hapt_raw": "The published rows use the 561 features of the data set's authors; ours are 216 features computed "
    "from the raw signals, so the two differ in their input.",
}
HEADER = ("learner", "arithmetic", "seeds", *COLUMNS.values())


def configurations(args: argparse.Namespace) -> list[RunConfig]:
    """One per learner and arithmetic; each learner in an experiment folder of its own, so that variants do not meet."""
    configs = []
    for learner in args.learners:
        base = preset(f"hdqt-{args.dataset}").replace(
            method=learner.removesuffix("-compat"),
            bic_compat=learner.endswith("-compat"),
            data_root=args.data_root,
            results_dir=args.results_dir,
            exp_name=f"{args.dataset}_{learner}",
        )
        count = args.bic_seeds if learner in ("icarl", "bic") else args.seeds
        seeds = base.seeds[args.first_seed : args.seeds if count is None else count]
        configs += [base.replace(scheme=SCHEMES[name], seeds=seeds) for name in args.schemes]
    return configs


def train(configs: Sequence[RunConfig], processes: int) -> list[RunResult]:
    """All jobs, seeds outermost, so that an interrupted table has whole pairs; returns the finished runs."""
    with tqdm(total=sum(len(config.seeds) for config in configs), unit="run", disable=None) as bar:
        paths = sweep(configs, workers=processes, on_job=lambda job, result: bar.update())
    runs = [read_run(path) for path in paths]
    return [dataclasses.replace(r, seeds={s: r.seeds[s] for s in c.seeds}) for r, c in zip(runs, configs)]


def markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]) + "\n"


def values_row(learner: str, run: RunResult) -> list[str]:
    cells = [str(estimate(list(run.values(name).values()))) if run.values(name) else "" for name in COLUMNS]
    return [learner, run.label, str(len(run.seeds)), *cells]


def published_row(learner: str, scheme: str, dataset: str) -> list[str] | None:
    """What the authors print: last ± std, average and forgetting of the linear head, last and average of NME."""
    rows = PUBLISHED[dataset.removesuffix("_raw"), learner.removesuffix("-compat")]
    heads: dict[str, Published] = {row.head: row for row in rows if row.arithmetic == scheme}
    if not heads:
        return None
    linear, nme = heads["cnn"], heads.get("nme")
    forgetting = "" if linear.forgetting is None else f"{linear.forgetting:.2f}"
    cells = [f"{linear.last:.2f} ± {linear.std:.2f}", f"{linear.average:.2f}", forgetting]
    cells += [f"{nme.last:.2f}", f"{nme.average:.2f}"] if nme else ["", ""]
    return [learner, f"published {scheme}", str(linear.seeds), *cells]


def difference_row(learner: str, run: RunResult, float32: RunResult) -> list[str]:
    cells = []
    for name in COLUMNS:
        ours, theirs = run.values(name), float32.values(name)
        if not ours:
            cells.append("")
            continue
        d = paired_difference(ours, theirs)
        cells.append(f"{d.mean:+.2f}" if d.std is None else f"{d.mean:+.2f} [{d.low:+.2f}, {d.high:+.2f}]")
    return [learner, f"{run.label} − float32", str(len(run.seeds)), *cells]


def tables(args: argparse.Namespace, runs: Sequence[RunResult]) -> str:
    values: list[Sequence[str]] = [HEADER]
    differences: list[Sequence[str]] = [HEADER]
    width = len(args.schemes)
    for place, learner in enumerate(args.learners):
        mine = dict(zip(args.schemes, runs[place * width : (place + 1) * width]))
        for scheme, run in mine.items():
            published = published_row(learner, scheme, args.dataset)
            values += [values_row(learner, run), *([published] if published else [])]
            if scheme != "float32" and "float32" in mine:
                differences.append(difference_row(learner, run, mine["float32"]))
    return "\n".join([markdown(values), markdown(differences), NOTES[args.dataset] + "\n"])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=sorted(NOTES))
    parser.add_argument("data_root", help="folder with the publisher's files")
    parser.add_argument("--learners", nargs="+", choices=LEARNERS, default=["icarl"], metavar="NAME", help="(icarl)")
    parser.add_argument("--schemes", nargs="+", choices=SCHEMES, default=["float32", "hdqt"], help="(float32 hdqt)")
    parser.add_argument("--seeds", type=int, default=5, help="the first so many of the protocol's 20 seeds (5)")
    parser.add_argument("--bic_seeds", type=int, help="the same for icarl and bic (default: --seeds)")
    parser.add_argument("--first_seed", type=int, default=0, help="leave out so many, which another table has (0)")
    parser.add_argument("--jobs", type=int, default=2, help="processes with one thread each (2)")
    parser.add_argument("--results_dir", default="runs/reproduce")
    parser.add_argument("--out", help="path without ending (default: <results_dir>/<dataset>)")
    args = parser.parse_args()
    if not 0 <= args.first_seed < min(args.seeds, args.bic_seeds or args.seeds):
        parser.error(
            f"expected --first_seed in 0..{min(args.seeds, args.bic_seeds or args.seeds) - 1}, got {args.first_seed}"
        )
    return args


def main() -> int:
    args = parse()
    out = Path(args.out or Path(args.results_dir) / args.dataset)
    try:
        runs = train(configurations(args), args.jobs)
    except KeyboardInterrupt:
        print("\nstopped; finished runs are kept and skipped next time", file=sys.stderr)
        return 130
    folder = Path(args.results_dir) / f"{args.dataset}_report"
    page = report.write_report([run.path for run in runs], folder)
    text = tables(args, runs)
    content = json.loads((page.parent / "report.json").read_text(encoding="utf-8"))
    out.parent.mkdir(parents=True, exist_ok=True)
    Path(f"{out}.json").write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    Path(f"{out}.md").write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
