# Sourced by scripts/demo and scripts/test (bash): everything between a fresh clone and a built package.
# Sets ROOT, PY (the Python of .venv) and BUILD_DIR, and defines
#   need_packages PACKAGE...   Debian packages, installed where root or password-free sudo is available
#   make_venv EXTRA            .venv with the dependencies of one extra of pyproject.toml
#   build OPTION... -- TARGET...   incremental CMake build; options go to cmake
# What is complete is remembered by a stamp written last, so an interrupted run is repeated and never half used.

ROOT="$(cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="$ROOT/.venv"
PY="$VENV/bin/python"
BUILD_DIR="$ROOT/build/cmake"
# pip and matplotlib want a writable home; the project's own folders serve where there is none.
if [[ -z "${HOME:-}" || ! -w "${HOME:-/}" ]]; then
  export HOME="$ROOT/build/home"
  mkdir -p "$HOME"
fi
export PIP_DISABLE_PIP_VERSION_CHECK=1

say() { printf 'quintil: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

need_packages() {
  local package missing=() as_root=()
  for package in "$@"; do
    case "$package" in
      g++ | cmake) command -v "$package" >/dev/null || missing+=("$package") ;;
      ninja-build) command -v ninja >/dev/null || missing+=("$package") ;;
      catch2) [[ -d /usr/include/catch2 || -d /usr/local/include/catch2 ]] || missing+=("$package") ;;
      python3) find_python >/dev/null || missing+=("$package") ;;
      python3-venv) "$(find_python)" -c 'import ensurepip' 2>/dev/null || missing+=("$package") ;;
      python3-dev) has_python_headers || missing+=("$package") ;;
      *) die "need_packages: no rule for $package" ;;
    esac
  done
  (( ${#missing[@]} )) || return 0
  if (( EUID != 0 )); then
    sudo -n true 2>/dev/null || die "please install: ${missing[*]} (as root: apt-get install ${missing[*]})"
    as_root=(sudo -n)
  fi
  command -v apt-get >/dev/null || die "please install what Debian calls: ${missing[*]} (there is no apt-get here)"
  say "installing ${missing[*]}"
  "${as_root[@]}" apt-get update -q >&2 || say "apt-get update failed, going on with the package lists at hand"
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}" >&2 ||
    die "apt-get could not install: ${missing[*]}"
}

find_python() {
  local candidate
  for candidate in python3.11 python3 python3.12 python3.13; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  return 1
}

has_python_headers() {
  "$(find_python)" -c 'import os, sys, sysconfig
sys.exit(not os.path.isfile(os.path.join(sysconfig.get_path("include"), "Python.h")))' 2>/dev/null
}

# The dependencies of the project and of one extra, one per line; extras of quintil inside extras are followed.
requirements() {
  "$1" - "$ROOT/pyproject.toml" "$2" <<'PYTHON'
import re
import sys
import tomllib

with open(sys.argv[1], "rb") as f:
    project = tomllib.load(f)["project"]
wanted, todo = set(project["dependencies"]), [sys.argv[2]]
while todo:
    for line in project["optional-dependencies"][todo.pop()]:
        own = re.fullmatch(r"quintil\[(.*)\]", line)
        todo += own.group(1).split(",") if own else []
        wanted |= set() if own else {line}
print("\n".join(sorted(wanted)))
PYTHON
}

make_venv() {
  local python extra="$1" stamp fresh=0
  need_packages python3 python3-venv python3-dev
  python="$(find_python)" || die "please install Python 3.11 or newer"
  local -a list
  mapfile -t list < <(requirements "$python" "$extra")
  stamp="$VENV/complete-$(printf '%s\n' "$ROOT" "$("$python" --version)" "${list[@]}" | sha256sum | cut -c 1-16)"
  [[ -f "$stamp" ]] && "$PY" -c '' 2>/dev/null && return 0

  # Without any stamp, or moved here from another place: not a whole environment of this clone.
  if ! compgen -G "$VENV/complete-*" >/dev/null || ! grep -qF "$VENV" "$VENV/bin/activate" || ! "$PY" -c '' 2>/dev/null; then
    fresh=1
    rm -rf "$VENV"
    trap 'rm -rf "$VENV"; exit 130' INT TERM HUP
    say "making $VENV"
    "$python" -m venv "$VENV" >&2 || { rm -rf "$VENV"; die "$python -m venv failed"; }
  fi
  say "installing Python packages: ${list[*]}"
  if ! "$PY" -m pip install --quiet "${list[@]}" >&2; then
    (( fresh )) && rm -rf "$VENV"
    die "pip could not install the packages above"
  fi
  # The package is used from the source tree: `.venv/bin/python` finds it from every directory.
  printf '%s\n' "$ROOT/python" >"$("$PY" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/quintil-source.pth"
  : >"$stamp"
  trap - INT TERM HUP
}

build() {
  local -a options=()
  while [[ "$1" != -- ]]; do options+=("$1"); shift; done
  shift
  need_packages g++ cmake ninja-build
  # A folder that was configured elsewhere (a moved or copied clone) cannot be reused.
  if [[ -f "$BUILD_DIR/CMakeCache.txt" ]] && ! grep -qxF "CMAKE_HOME_DIRECTORY:INTERNAL=$ROOT" "$BUILD_DIR/CMakeCache.txt"; then
    rm -rf "$BUILD_DIR"
  fi
  say "building (log: $BUILD_DIR/build.log)"
  mkdir -p "$BUILD_DIR"
  if ! { cmake -G Ninja -S "$ROOT" -B "$BUILD_DIR" -DPython_EXECUTABLE="$PY" "${options[@]}" &&
         cmake --build "$BUILD_DIR" --target "$@"; } >"$BUILD_DIR/build.log" 2>&1; then
    tail -n 40 "$BUILD_DIR/build.log" >&2
    die "the build failed; the whole log is in $BUILD_DIR/build.log"
  fi
}
