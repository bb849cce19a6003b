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

import argparse
import sys

from quintil.continual import preset
from quintil.continual.arguments import add_arguments, metric_help
from quintil.continual.train import train

PRESETS = ("dsads", "hapt", "hapt_raw", "pamap2")


def main() -> int:
    parser = argparse.ArgumentParser(
        usage="%(prog)s [options]",
        description=__doc__,
        epilog=metric_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--preset",
        choices=("as_published", "intended"),
        default="as_published",
        help="intended: learning rate x0.1 at epoch 50, columns scaled by the training persons only",
    )
    parser.add_argument("--smoke", action="store_true", help="a few epochs on generated data")
    add_arguments(parser)
    args = parser.parse_args()
    dataset = args.dataset or ("synthetic" if args.smoke else "dsads")
    known = {"pamap": "pamap2"}.get(dataset, dataset)
    suffix = "-intended" if args.preset == "intended" else ""
    if known in PRESETS:
        base = preset(f"hdqt-{known}{suffix}")
    else:
        base = preset(f"hdqt-dsads{suffix}").replace(dataset=known, split=None, normalise=None, seeds=(0, 1, 2))
    if args.smoke:
        base = base.replace(epochs=3, seeds=(0,), memory_size=48, threads=1, exp_name="smoke")
    return train(args, base)


if __name__ == "__main__":
    sys.exit(main())
