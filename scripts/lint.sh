#!/usr/bin/env bash
# Formatting and lint, changing nothing: clang-format, black, ruff and bash -n where they are installed (pip: the extra
# `lint`), and the dependency rules. Exit code 1 if anything is found.
set -uo pipefail
cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
PATH="$PWD/.venv/bin:$PATH"
python=python3
[[ -x .venv/bin/python ]] && python=.venv/bin/python
status=0

check() {
  if command -v "$1" >/dev/null; then "$@" || status=1; else echo "lint: $1 is not installed, left out" >&2; fi
}

mapfile -d '' -t cpp < <(find csrc tests examples -name '*.h' -print0 -o -name '*.cpp' -print0)
check clang-format --dry-run --Werror "${cpp[@]}"
check black --check --quiet .
check ruff check --quiet .
for script in scripts/demo scripts/test scripts/*.sh .ci/run; do
  bash -n "$script" || status=1
done
"$python" scripts/check_layers.py || status=1
exit "$status"
