#!/usr/bin/env bash
# The learners of HDQT's tables on a sensor data set: float32 and HDQT on the same splits, 20 seeds of iCaRL and BiC, 5 of the
# others. About an hour on two cores (dsads; hapt two).
# usage: scripts/reproduce/har_learners.sh dsads|hapt DATA_ROOT [--jobs N] [--results_dir DIR] [--out PATH]
# Repeat the command after an interruption: finished seeds are skipped.
set -euo pipefail
here="$(cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
python="${PYTHON:-$here/../../.venv/bin/python}"
if [[ ! -x "$python" ]]; then python=python3; fi
data="${1:?give dsads or hapt as the first argument}"
root="${2:?give the folder with the data set as the second argument}"
exec "$python" "$here/har_table.py" "$data" "$root" --learners lwf icarl bic bic-compat der memo --seeds 5 --bic_seeds 20 "${@:3}"
