#!/usr/bin/env bash
# The README table of DSADS iCaRL: 10 tasks, 100 epochs, 200 exemplars, the protocol's 20 seeds.
# usage: scripts/reproduce/dsads_icarl.sh DATA_ROOT [--seeds N] [--jobs N] [--results_dir DIR] [--out PATH]
# Repeat the command after an interruption: finished seeds are skipped.
set -euo pipefail
here="$(cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
python="${PYTHON:-$here/../../.venv/bin/python}"
if [[ ! -x "$python" ]]; then python=python3; fi
root="${1:?give the folder with the data set as the first argument}"
exec "$python" "$here/har_table.py" dsads "$root" --schemes float32 hdqt hdqt-paper --seeds 20 "${@:2}"
