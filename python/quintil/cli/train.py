"""Class-incremental training: tasks of new classes one after the other, tested on all classes seen so far.

Start from a preset or a data set, then change what you like; every option given overrides the preset:

  quintil train --preset digits                               # seconds; needs no data
  quintil train --preset hdqt-dsads --data_root DIR --quant hdqt --seed 1 2 3
  quintil train --preset pycil-b0-inc10 --data_root DIR --method finetune
  quintil train --dataset custom:mine.npz --epochs 50 --memory_size 100
  quintil train --config run.yaml --lr 0.02                   # the command line wins over the file

A run is one learner on one stream of tasks, repeated for every seed. To compare float32 with integers, run the same
command with and without --quant hdqt: splits, class orders and initial weights are the same, and the report pairs
them seed by seed.

Results: <results_dir>/<exp_name>/<data set>_<method>_B<first>_Inc<later>[_<scheme>]/seed<k>/, and report.md,
report.html and the pictures in <results_dir>/<exp_name>. Finished seeds are kept when the command is repeated.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from quintil.continual import PRESETS, RunConfig, find_learner, preset
from quintil.continual.train import train

from .options import RunParser

_DATASETS = {"pamap": "pamap2"}


def base_config(dataset: str | None, *, name: str | None = None, method: str | None = None) -> RunConfig:
    """What the options of a run start from: a preset by name, or the one that fits the data set.

    A data set without a preset of its own gets the network and schedule of hdqt-dsads, three seeds, and its default
    split. ValueError if neither is given, or for unknown names.
    """
    learner = None if method is None else find_learner(method).name
    if name is not None:
        return preset(name, learner)
    if dataset is None:
        raise ValueError(f"train: expected --preset or --dataset, got neither (presets: {', '.join(sorted(PRESETS))})")
    known = _DATASETS.get(dataset, dataset)
    for candidate in (known, f"hdqt-{known.replace('_', '-')}"):
        if candidate in PRESETS:
            return preset(candidate, learner)
    generic = {"split": None, "normalise": None, "seeds": (0, 1, 2), "model": None}
    return preset("hdqt-dsads", learner).replace(dataset=known, **generic)


def preset_parser(prog: str, description: str) -> RunParser:
    """A parser with --config and --preset, before the options of a run are added."""
    made = RunParser(prog=prog, description=description)
    names = ", ".join(sorted(PRESETS))
    made.add_argument(
        "--preset",
        metavar="NAME",
        help=f"published settings to start from (default: the ones that fit --dataset): {names}",
    )
    return made


def parser() -> RunParser:
    return preset_parser("quintil train", __doc__).add_run_arguments()


def main(arguments: Sequence[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    try:
        base = base_config(args.dataset, name=args.preset, method=args.method)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return train(args, base)
