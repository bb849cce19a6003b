#!/usr/bin/env bash
# VecQ on IMDB: convolution and LSTM over 100 words, in float32, then fine-tuned from it at W/A 2/32, 4/32, 8/32 and 2/8,
# 4/8, 8/8. Published: 84.98 in float32; 85.54, 86.24, 85.53; 85.40, 84.67, 85.72; 10.07 MiB; 0.63, 1.26, 2.52 MiB.
# usage: scripts/reproduce/vecq_imdb.sh DATA [SEED...]      (DATA holds aclImdb/; default seeds 0 1 2)
# Repeat the command after an interruption: it goes on where it stopped.
set -euo pipefail
here="$(cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
data="${1:?usage: vecq_imdb.sh DATA [SEED...]}"
shift
seeds=("$@")
if [[ $# -eq 0 ]]; then seeds=(0 1 2); fi
python="${PYTHON:-$here/../../.venv/bin/python}"
if [[ ! -x "$python" ]]; then python=python3; fi
results=runs/reproduce/vecq_imdb

train() {
  "$python" "$here/../train_vecq.py" --dataset imdb --model cnn_lstm --data_root "$data" --batch_size 32 --threads 1 \
    --seed "${seeds[@]}" --results_dir "${results%/*}" --exp_name "${results##*/}" "$@"
}

train --stage float --epochs "${FLOAT_EPOCHS:-2}" --lr 1e-3
start=(--start "$results/imdb_cnn_lstm_float")
train --stage float "${start[@]}" --epochs "${EPOCHS:-1}" --lr 2e-4 # the pair of the fine-tuned: as many epochs
for bits in 2 4 8; do
  train --stage vecq "${start[@]}" --weight_bits "$bits" --epochs "${EPOCHS:-1}" --lr 2e-4
  train --stage vecq "${start[@]}" --weight_bits "$bits" --activation_bits 8 --epochs "${EPOCHS:-1}" --lr 2e-4
done
"$python" "$here/vecq_table.py" "$results"
