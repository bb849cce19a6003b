#!/usr/bin/env bash
# VecQ on MNIST: LeNet-5 in float32, then fine-tuned at W/A 2/8, 4/8 and 8/8 (published 99.4; 99.43, 99.53, 99.44) from
# the float32 network of the same seed, and quantised without training at 8, 6 and 4 bits, with and without activations, by steps
# of the table and by searched ones.
# usage: scripts/reproduce/vecq_mnist.sh DATA [SEED...]      (DATA holds the idx files, or mnist/; default seeds 0 1 2)
# The decay of weights was chosen among 0, 5e-4 and 2e-3 with --validation, which tests on a part of the training images.
# Repeat the command after an interruption: it goes on where it stopped.
set -euo pipefail
here="$(cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
data="${1:?usage: vecq_mnist.sh DATA [SEED...]}"
shift
seeds=("$@")
if [[ $# -eq 0 ]]; then seeds=(0 1 2); fi
python="${PYTHON:-$here/../../.venv/bin/python}"
if [[ ! -x "$python" ]]; then python=python3; fi
results=runs/reproduce/vecq_mnist

train() {
  "$python" "$here/../train_vecq.py" --dataset mnist --model lenet5 --data_root "$data" --threads 1 \
    --seed "${seeds[@]}" --results_dir "${results%/*}" --exp_name "${results##*/}" "$@"
}

decay=(--weight_decay "${WEIGHT_DECAY:-2e-3}")
train --stage float --epochs "${FLOAT_EPOCHS:-10}" "${decay[@]}"
start=(--start "$results/mnist_lenet5_float")
train --stage float "${start[@]}" --epochs "${EPOCHS:-5}" --lr 5e-4 "${decay[@]}" # the pair of the fine-tuned: as many epochs
for bits in 2 4 8; do
  train --stage vecq "${start[@]}" --weight_bits "$bits" --activation_bits 8 --epochs "${EPOCHS:-5}" "${decay[@]}"
done
for bits in 8 6 4; do
  for steps in table search; do
    train --stage post "${start[@]}" --weight_bits "$bits" --lambda_mode "$steps"
    train --stage post "${start[@]}" --weight_bits "$bits" --lambda_mode "$steps" --activation_bits 8
  done
done
"$python" "$here/vecq_table.py" "$results"
