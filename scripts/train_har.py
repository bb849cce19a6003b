#!/usr/bin/env python3
"""Class-incremental training on sensor data: DSADS, PAMAP2, HAPT, synthetic, or your own table.

Without further options it follows the HDQT authors' published protocol (preset hdqt-<data set>): an MLP as wide as
its input, two classes per task, 100 epochs, 200 exemplars, persons split by the seed.

    python scripts/train_har.py --dataset dsads --data_root DIR                     # float32
    python scripts/train_har.py --dataset dsads --data_root DIR --quant hdqt        # 4-bit operands, 8-bit accumulators
    python scripts/train_har.py --dataset hapt_raw --data_root DIR --seed 1 2 3 --preset intended
    python scripts/train_har.py --dataset custom:mine.npz --epochs 50 --memory_size 100 --quant hdqt
    python scripts/train_har.py --smoke --quant hdqt                                # seconds, no data needed

Both heads are reported: the linear classifier (CNN in file names, whatever the net) and the nearest mean of exemplars
(NME). Results: <results_dir>/<exp_name>/<data set>_<method>_B<first>_Inc<later>[_<scheme>]/seed<k>/, and report.md
with curves in <results_dir>/<exp_name>. A finished seed is kept when the command is repeated.
"""

from __future__ import annotations

import sys

from quintil.cli.options import RunParser
from quintil.cli.train import base_config
from quintil.continual import PRESETS
from quintil.continual.train import train


def main() -> int:
    parser = RunParser(description=__doc__)
    parser.add_argument(
        "--preset",
        choices=("as_published", "intended"),
        default="as_published",
        help="intended: learning rate x0.1 at epoch 50, columns scaled by the training persons only",
    )
    parser.add_argument("--smoke", action="store_true", help="a few epochs on generated data")
    args = parser.add_run_arguments().parse_args()
    base = base_config(args.dataset or ("synthetic" if args.smoke else "dsads"))
    if args.preset == "intended":
        intended = PRESETS.get(f"hdqt-{base.dataset.replace('_', '-')}-intended", base.replace(milestones=(50,)))
        base = base.replace(milestones=intended.milestones, normalise=intended.normalise)
    if args.smoke:
        base = base.replace(epochs=3, seeds=(0,), memory_size=48, threads=1, exp_name="smoke")
    return train(args, base)


if __name__ == "__main__":
    sys.exit(main())
