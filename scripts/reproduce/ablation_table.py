#!/usr/bin/env python3
"""One table of several studies, from their JSON files: what each arm loses against float32, beside what is published.

    python scripts/reproduce/ablation_table.py docs/results/study_*.json > docs/results/dsads_ablations.md

Data set and learner are chosen by --dataset and --learner. Differences are paired by seed with the float32 of the same
study, since float32 depends on the CPU: its products altogether, a quantised run where PyTorch's loss does. HDQT() gave
equal accuracies for equal seeds on an Intel CPU with AMX and an AMD one with AVX-512, others on one with AVX2 alone.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from quintil.experiments import STUDIES, from_json
from quintil.experiments.results import HEADLINE, ArmResult
from quintil.report.tables import markdown

NOTE = """Accuracy over all classes after the last task, linear head, %; mean ± standard deviation over seeds, and
differences paired by seed with 95 % intervals. Commands stand below the tables of the single studies in this folder."""
HEADER = ["study", "arm", "seeds", "last, linear", "− float32", "published"]


def table(paths: list[Path], dataset: str, learner: str) -> list[list[str]]:
    """A row per arm, study after study; files that hold no accuracies of this data set and learner are left out."""
    found = [HEADER]
    for path in paths:
        content = json.loads(path.read_text())
        arms = [arm for arm in from_json(content) if (arm.dataset, arm.learner) == (dataset, learner)]
        reference = next((arm for arm in arms if arm.label == "float32" and arm.estimate(HEADLINE)), None)
        if reference is not None:
            title = STUDIES[content["study"]].title
            found += [row(title if i == 0 else "", arm, reference) for i, arm in enumerate(arms)]
    return found


def row(title: str, arm: ArmResult, reference: ArmResult) -> list[str]:
    gap = "" if arm is reference else arm.difference(reference, HEADLINE)
    signed = "" if gap in ("", None) else f"{gap.mean:+.2f} [{gap.low:+.2f}, {gap.high:+.2f}]"
    return [title, arm.label, str(len(arm.seeds)), str(arm.estimate(HEADLINE)), signed, arm.published]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path, metavar="JSON", help="files that `quintil study` wrote")
    parser.add_argument("--dataset", default="dsads", help="dsads")
    parser.add_argument("--learner", default="icarl", help="icarl")
    args = parser.parse_args()
    print(f"# Ablations and baselines: {args.dataset}, {args.learner}\n")
    print(NOTE + "\n")
    print(markdown(table(args.results, args.dataset, args.learner)))


if __name__ == "__main__":
    main()
