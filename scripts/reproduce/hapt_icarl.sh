#!/usr/bin/env bash
# The README table of HAPT iCaRL on features of the raw signals: 6 tasks, 100 epochs, 200 exemplars, the protocol's first 5 seeds.
# usage: scripts/reproduce/hapt_icarl.sh DATA_ROOT [--seeds N] [--jobs N] [--results_dir DIR] [--out PATH]
# Repeat the command after an interruption: finished seeds are skipped.
set -euo pipefail
here="$(cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
python="${PYTHON:-$here/../../.venv/bin/python}"
if [[ ! -x "$python" ]]; then python=python3; fi
root="${1:?give the folder with the data set as the first argument}"
exec "$python" "$here/har_table.py" hapt_raw "$root" --seeds 5 "${@:2}"
