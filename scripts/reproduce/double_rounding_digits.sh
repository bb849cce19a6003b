#!/usr/bin/env bash
# Double Rounding on handwritten digits: pre-activation ResNet-20 on 8x8 images, widths {8,6,4,2}, beside the methods it is
# compared with, all from the same float32 network; then a super-net and a search. About 20 minutes on one core.
# usage: scripts/reproduce/double_rounding_digits.sh [options of train_double_rounding.py, such as --seed 1]
# Repeat the command after an interruption: it goes on where it stopped.
set -euo pipefail
here="$(cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
python="${PYTHON:-$here/../../.venv/bin/python}"
if [[ ! -x "$python" ]]; then python=python3; fi
results=runs/reproduce/double_rounding_digits

train() {
  "$python" "$here/../train_double_rounding.py" --dataset digits --epochs 15 --threads 1 --results_dir "${results%/*}" \
    --exp_name "${results##*/}" "$@"
}

train --stage float "$@"
for float in "$results"/digits_resnet20_float/seed*; do
  seed="${float##*seed}"
  for method in double_rounding own_steps adabits any_precision; do
    train --start "$float" --method "$method" "$@" --seed "$seed"
  done
  for bits in 8 6 4 2; do
    train --start "$float" --method lsq --bits "$bits" "$@" --seed "$seed"
  done
  multi="$results/digits_resnet20_multi_double_rounding_w8642/seed$seed"
  train --stage mixed --start "$multi" --epochs 10 --lr 2e-4 --mix_warmup 0 "$@" --seed "$seed"
  mixed="$results/digits_resnet20_mixed_double_rounding_w8642/seed$seed"
  "$python" "$here/../search_bits.py" "$mixed" --mean_bits 3 4 5
done
"$python" "$here/width_table.py" "$results"
