#!/usr/bin/env bash
# Double Rounding on CIFAR-100 in short: pre-activation ResNet-20, widths {8,6,4,2}, batches of 64, 78 of them (a tenth of
# the images) per epoch. One float32 network is trained for 40 epochs; all that follows starts from it and has the same
# 10 epochs: float32 again, a network per width (LSQ), one network for all widths with and without rates per width (ALRS)
# and distillation; then a super-net of 5 epochs and a search. About three hours on one core.
# usage: scripts/reproduce/double_rounding_cifar100.sh DATA [SEED...]      (DATA holds cifar-100-binary; default seed 0)
#   Published length (CIFAR-10 in the paper: 92.25/92.32/92.09/90.19 against 92.30), days on a CPU:
#     scripts/train_double_rounding.py --stage float --dataset cifar100 --data_root DATA --epochs 200
#     scripts/train_double_rounding.py --start runs/widths/cifar100_resnet20_float/seed0 --dataset cifar100 \
#       --data_root DATA --epochs 200 --bits 8,6,4,2
# Repeat the command after an interruption: it goes on where it stopped.
set -euo pipefail
here="$(cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
data="${1:?usage: double_rounding_cifar100.sh DATA [SEED...]}"
shift
seeds=("${@:-0}")
python="${PYTHON:-$here/../../.venv/bin/python}"
if [[ ! -x "$python" ]]; then python=python3; fi
results=runs/reproduce/double_rounding_cifar100

train() {
  local name="$1"
  shift
  "$python" "$here/../train_double_rounding.py" --dataset cifar100 --data_root "$data" --batch_size 64 --limit_batches 78 \
    --test_every 10 --threads 1 --trace_images 512 --trace_draws 10 --results_dir "$results" --exp_name "$name" "$@"
}

for seed in "${seeds[@]}"; do
  train start --stage float --epochs 40 --lr 1e-3 --seed "$seed"
  float="$results/start/cifar100_resnet20_float/seed$seed"
  short=(--start "$float" --epochs 10 --seed "$seed")
  train plain "${short[@]}" --stage float --trace_images 0
  train plain "${short[@]}"
  for bits in 2 4 6 8; do
    train plain "${short[@]}" --method lsq --bits "$bits"
  done
  train no_alrs "${short[@]}" --lr_mode none
  train distilled "${short[@]}" --distillation previous_epoch
  multi="$results/plain/cifar100_resnet20_multi_double_rounding_w8642/seed$seed"
  train plain --stage mixed --start "$multi" --epochs 5 --lr 1e-4 --mix_warmup 0 --seed "$seed"
  mixed="$results/plain/cifar100_resnet20_mixed_double_rounding_w8642/seed$seed"
  "$python" "$here/../search_bits.py" "$mixed" --data_root "$data" --sweep 2 8 0.5
  train alrs_rel "${short[@]}" --lr_mode alrs_rel
done
"$python" "$here/width_table.py" "$results"/{plain,no_alrs,distilled,alrs_rel}
