#!/usr/bin/env python3
"""Tables of har_table.py with different seeds of one protocol, put together: means and paired differences over all.

  har_table.py hapt DATA --learners icarl bic --seeds 9                                    on one machine
  har_table.py hapt DATA --learners icarl bic --seeds 20 --first_seed 9 --out more         on another
  pool_seeds.py hapt.json more.json --out hapt_20                                          writes hapt_20.md

PyTorch adds floats in another order on another CPU, so equal seeds end differently there; a seed is taken as a whole,
float32 and integers on one machine, and so is each difference. Reads the files only.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from har_table import markdown
from quintil.metrics import estimate, paired_difference

COLUMNS = {
    "last_acc_cnn": "last, linear",
    "avg_inc_acc_cnn": "average, linear",
    "forgetting_class_best_old_cnn": "forgetting of old classes, linear",
    "last_acc_nme": "last, NME",
    "avg_inc_acc_nme": "average, NME",
}
Seeds = dict[int, float]
Pool = dict[tuple[str, str], dict[str, Seeds]]  # (learner, arithmetic) -> number -> seed -> value


def pooled(paths: Sequence[Path]) -> Pool:
    """All numbers by learner and arithmetic; ValueError where two files hold the same seed."""
    pool: Pool = defaultdict(lambda: defaultdict(dict))
    for path in paths:
        for entry in json.loads(path.read_text(encoding="utf-8")):
            setting = entry["setting"]
            learner = f"{setting['dataset']} {setting['method']}{' (compat)' * setting['bic_compat']}"
            for name, seeds in entry["by_seed"].items():
                known = pool[learner, entry["label"]][name]
                twice = sorted(known.keys() & {int(seed) for seed in seeds})
                if twice:
                    raise ValueError(
                        f"pool_seeds: expected different seeds in each file, got {twice[0]} twice ({learner}, {path})"
                    )
                known |= {int(seed): value for seed, value in seeds.items()}
    return pool


def tables(pool: Pool) -> str:
    """Means and standard deviations, then differences to float32 with their 95 % intervals."""
    header = ["learner", "arithmetic", "seeds", *COLUMNS.values()]
    values, differences = [header], [header]
    for (learner, label), numbers in pool.items():
        count = str(len(numbers["last_acc_cnn"]))
        cells = [str(estimate(list(numbers[name].values()))) if numbers.get(name) else "" for name in COLUMNS]
        values.append([learner, label, count, *cells])
        float32 = pool.get((learner, "float32"))
        if label == "float32" or float32 is None:
            continue
        cells = []
        for name in COLUMNS:
            if not numbers.get(name):
                cells.append("")
                continue
            d = paired_difference(numbers[name], float32[name])
            cells.append(f"{d.mean:+.2f}" if d.std is None else f"{d.mean:+.2f} [{d.low:+.2f}, {d.high:+.2f}]")
        differences.append([learner, f"{label} − float32", count, *cells])
    return f"{markdown(values)}\n{markdown(differences)}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="+", type=Path, metavar="JSON", help="what har_table.py wrote")
    parser.add_argument("--out", type=Path, help="path without ending; the tables are printed in any case")
    args = parser.parse_args()
    try:
        text = tables(pooled(args.tables))
    except (OSError, ValueError, KeyError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if args.out:
        args.out.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
