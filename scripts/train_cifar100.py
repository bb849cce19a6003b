#!/usr/bin/env python3
"""Class-incremental training on CIFAR-100 with ResNet-32.

Without further options it follows the HDQT authors' protocol (preset hdqt-cifar100): five tasks of 20 classes, 170
epochs each, 2000 exemplars, learning rate 0.05 falling at 60, 100 and 140.

    python scripts/train_cifar100.py --data_root DIR                                # float32
    python scripts/train_cifar100.py --data_root DIR --quant hdqt                   # 4-bit operands, 8-bit accumulators
    python scripts/train_cifar100.py --data_root DIR --init_cls 10 --increment 10 --class_order icarl --seed 1993
    python scripts/train_cifar100.py --data_root DIR --epochs 2 --seed 42467 --quant hdqt     # a first look
    python scripts/train_cifar100.py --smoke --quant hdqt                           # a minute, no data needed

Both heads are reported: the linear classifier (CNN) and the nearest mean of exemplars (NME). Results:
<results_dir>/<exp_name>/cifar100_<method>_B<first>_Inc<later>[_<scheme>]/seed<k>/, and report.md with curves in
<results_dir>/<exp_name>. A finished seed is kept when the command is repeated. --download fetches the data.
"""

from __future__ import annotations

import sys

from quintil.cli.options import RunParser
from quintil.cli.train import base_config
from quintil.continual.train import train


def main() -> int:
    parser = RunParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="two epochs of ResNet-20 on generated images")
    args = parser.add_run_arguments().parse_args()
    base = base_config("cifar100")
    if args.smoke:
        base = base.replace(
            dataset="synthetic:cifar",
            model="resnet20",
            init_cls=10,
            increment=10,
            epochs=2,
            milestones=(),
            seeds=(0,),
            memory_size=60,
            batch_size=40,
            exp_name="smoke",
        )
    return train(args, base)


if __name__ == "__main__":
    sys.exit(main())
