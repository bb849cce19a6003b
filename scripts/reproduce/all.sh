#!/usr/bin/env bash
# Every table and picture of the README and of docs/results again, into OUT: studies, CIFAR-100, Double Rounding, VecQ, speed.
# Days at full length on two cores; --quick is a first look of about two hours, whose numbers mean little.
# usage: scripts/reproduce/all.sh DATA OUT [--quick]     (DATA: folder with all data sets, see `quintil datasets`)
# Repeat the command after an interruption: finished runs are kept.
set -euo pipefail
here="$(cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
data="${1:?usage: all.sh DATA OUT [--quick]}"
out="${2:?usage: all.sh DATA OUT [--quick]}"
quick="${3:-}"
python="${PYTHON:-$here/../../.venv/bin/python}"
if [[ ! -x "$python" ]]; then python=python3; fi
export PYTHON="$python"
mkdir -p -- "$out"

study() { # NAME FILE [OPTION...]
  "$python" -m quintil study "$1" --data_root "$data" --out "$out/$2" "${@:3}" $quick
}

keep() { # FILE COMMAND...: what a script prints
  "${@:2}" | tee "$out/$1.md"
}

study har-table study_dsads --dataset dsads --seeds "${SEEDS:-20}"
study har-table study_hapt --dataset hapt --seeds "${SEEDS:-20}"
for name in baselines accumulator-sweep bit-sweep hadamard-ablation rounding-ablation requantize-ablation dc-row \
  learning-rate saturation gradient-statistics rounding-bias lstm-har hold-one-out best-search best best-cifar; do
  study "$name" "study_$name"
done
ablations=()
for name in accumulator-sweep hadamard-ablation rounding-ablation requantize-ablation dc-row baselines bit-sweep learning-rate; do
  ablations+=("$out/study_$name.json")
done
keep dsads_ablations "$python" "$here/ablation_table.py" "${ablations[@]}"

if [[ "$quick" == --quick ]]; then
  export FLOAT_EPOCHS=1 EPOCHS=1
else
  study cifar-table study_cifar-table
  keep cifar100_short "$here/cifar100_short.sh" "$data"
  keep double_rounding_cifar100 "$here/double_rounding_cifar100.sh" "$data"
fi
keep vecq_mnist "$here/vecq_mnist.sh" "$data"
keep vecq_imdb "$here/vecq_imdb.sh" "$data"
"$python" "$here/../bench_ops.py" --out "$out/bench_ops.json"
"$python" "$here/../bench_step.py" --out "$out/bench_step.json"
"$python" "$here/../bench_widths.py" --out "$out/bench_widths.json"
