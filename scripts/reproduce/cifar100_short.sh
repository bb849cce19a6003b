#!/usr/bin/env bash
# CIFAR-100, ResNet-32, 5 tasks of 20 classes, iCaRL and BiC, float32 and HDQT, one seed, 6 epochs per task instead of 170:
# under 90 minutes on two cores (two processes of one thread).
# usage: scripts/reproduce/cifar100_short.sh DATA_ROOT [options of `quintil sweep`]
# Repeat the command after an interruption: it goes on where it stopped.
set -euo pipefail
here="$(cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
root="${1:?give the folder with the data set as the first argument}"
exec "$here/cifar100.sh" "$root" --method icarl bic --epochs 6 --milestones 4 5 --seed 42467 --exp_name cifar100_short "${@:2}"
