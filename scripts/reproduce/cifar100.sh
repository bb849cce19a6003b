#!/usr/bin/env bash
# CIFAR-100 at full length by the HDQT authors' protocol: ResNet-32, 5 tasks of 20 classes, 170 epochs each, 2000 exemplars,
# 5 seeds; every learner of their table in float32 and HDQT. Days on two cores: choose with --method, --quant, --seed.
# usage: scripts/reproduce/cifar100.sh DATA_ROOT [options of `quintil sweep`]
#   bic is the paper's; the authors' variant, which their row comes from: --method bic --bic_compat --exp_name cifar100_compat
# Repeat the command after an interruption: it goes on where it stopped.
set -euo pipefail
here="$(cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
python="${PYTHON:-$here/../../.venv/bin/python}"
if [[ ! -x "$python" ]]; then python=python3; fi
root="${1:?give the folder with the data set as the first argument}"
exec "$python" -m quintil sweep --preset hdqt-cifar100-intended --data_root "$root" --method lwf icarl bic der memo \
  --quant none hdqt --results_dir runs/reproduce --exp_name cifar100 "${@:2}"
