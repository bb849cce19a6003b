#!/usr/bin/env python3
"""Instructions that each main kernel executes at a fixed shape, beside the committed numbers.

Times need a quiet machine; counts do not. For one compiler they are the same on any machine and under any load, so a
change that makes a kernel execute more shows at once:

  cmake --build build/cmake --target count_kernels     (configured with -DQUINTIL_BUILD_TESTS=ON)
  scripts/count_instructions.py                        table: count, committed count, change in percent
  scripts/count_instructions.py --kernels 'gemm*'      some of them, by name or pattern
  scripts/count_instructions.py --check                status 1 if a count grew by more than 2 %
  scripts/count_instructions.py --update               writes the counts of this tree, to be committed with the change

tests/cpp/count_kernels.cpp makes one call per case; valgrind's callgrind counts inside that call alone. Counts are
compared where processor, compiler, flags and C library (memcpy and memset are called) equal the committed ones; where
not, this is said and --check passes.

What counts do not show: valgrind cannot execute AVX-512, so there are numbers for the tables scalar and avx2; the files
of avx512vnni follow the same algorithms, a change to them alone is seen by bench_kernels only. An instruction is not a
time: a division counts as much as an addition, a cache miss as nothing.

status: 0; 1 a count grew (--check); 2 something is missing, one line says what
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMITTED = ROOT / "docs/results/instruction_counts.json"
BUILD = Path(os.environ.get("QUINTIL_BUILD_DIR", ROOT / "build/cmake"))
ISAS = ("scalar", "avx2")
LIMIT = 2.0  # percent
MUST_EQUAL = ("processor", "compiler", "flags", "libc")
LACKS_ISA = 77  # status of count_kernels where the CPU has not the instruction set


def collected(profile: str) -> int:
    """Instructions in the text of a callgrind output file."""
    found = re.search(r"^summary: (\d+)$", profile, re.MULTILINE)
    if found is None or found[1] == "0":
        raise RuntimeError("expected callgrind to collect inside measured_call, got no instruction")
    return int(found[1])


def count(program: Path, isa: str, name: str) -> int | None:
    """Instructions of one case; None where the CPU lacks the instruction set."""
    with tempfile.TemporaryDirectory() as folder:
        profile = Path(folder) / "profile"
        options = ["--tool=callgrind", "--collect-atstart=no", "--toggle-collect=measured_call*"]
        done = subprocess.run(
            ["valgrind", "-q", *options, f"--callgrind-out-file={profile}", str(program), isa, name],
            capture_output=True, text=True, env={**os.environ, "LD_BIND_NOW": "1"},  # no symbol look-up while counting
        )  # fmt: skip
        if done.returncode == LACKS_ISA:
            return None
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise RuntimeError(f"valgrind: expected {isa} {name} to run, got status {done.returncode}: {last}")
        return collected(profile.read_text())


def answers(program: Path, question: str) -> dict[str, str]:
    """What count_kernels prints for `list` or `facts`: name and text, one pair per line."""
    output = subprocess.run([str(program), question], capture_output=True, text=True, check=True).stdout
    return dict(line.split("\t") for line in output.splitlines())


def facts(program: Path) -> dict[str, str]:
    """What the counts depend on, and the version of valgrind."""
    valgrind = subprocess.run(["valgrind", "--version"], capture_output=True, text=True, check=True).stdout
    here = {"processor": platform.machine(), **answers(program, "facts"), "libc": " ".join(platform.libc_ver())}
    return {**here, "valgrind": valgrind.strip().removeprefix("valgrind-")}


def change(now: dict, before: dict, isa: str) -> float | None:
    """Percent by which a case grew; None where one side has no number or the shape is another one."""
    if now.get("shape") != before.get("shape") or now.get(isa) is None or before.get(isa) is None:
        return None
    return 100 * (now[isa] - before[isa]) / before[isa]


def verdict(measured: dict, committed: dict) -> tuple[int, list[str]]:
    """The status of --check and the lines that explain it."""
    here, there = measured["facts"], committed["facts"]
    other = [f"{key} {there.get(key)} there, {here[key]} here" for key in MUST_EQUAL if here[key] != there.get(key)]
    if other:
        return 0, ["the comparison with the committed counts is not meaningful: " + "; ".join(other)]
    lines, status = [], 0
    for name, now in measured["counts"].items():
        before = committed["counts"].get(name, {})
        for isa in (key for key in now if key != "shape"):
            percent = change(now, before, isa)
            if percent is None:
                why = "this CPU lacks the instruction set" if now[isa] is None else "no committed count of this shape"
                lines.append(f"not compared: {name} {isa}, {why}")
            elif percent > LIMIT:
                status = 1
                lines.append(f"grew by more than {LIMIT:g} %: {name} {isa}, {before[isa]:,} -> {now[isa]:,}")
    return status, lines if status else [*lines, f"no count grew by more than {LIMIT:g} %"]


def table_row(name: str, now: dict, before: dict, isas: list[str]) -> str:
    cells = f"{name:<25} {now['shape']:<27}"
    for isa in isas:
        percent, numbers = change(now, before, isa), (now[isa], before.get(isa))
        cells += "".join(f"{'-' if n is None else format(n, ','):>11}" for n in numbers)
        cells += f"{'-' if percent is None else format(percent, '+.1f'):>8}"
    return cells


def measure(program: Path, names: dict[str, str], isas: list[str], committed: dict) -> dict:
    """Counts every case and prints its row as soon as it is known."""
    print(f"{'kernel':<25} {'shape':<27}" + "".join(f"{isa:>11}{'committed':>11}{'%':>8}" for isa in isas))
    measured: dict = {"facts": facts(program), "counts": {}}
    for name, shape in names.items():
        row = {"shape": shape, **{isa: count(program, isa, name) for isa in isas}}
        measured["counts"][name] = row
        print(table_row(name, row, committed["counts"].get(name, {}), isas), flush=True)
    return measured


def main(line: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernels", nargs="+", metavar="NAME", help="names or patterns of `count_kernels list` (all)")
    parser.add_argument("--isas", nargs="+", choices=ISAS, help="instruction sets (all)")
    parser.add_argument("--build", type=Path, default=BUILD, help="build folder ($QUINTIL_BUILD_DIR or build/cmake)")
    parser.add_argument(
        "--file", type=Path, default=COMMITTED, help=f"committed counts ({COMMITTED.relative_to(ROOT)})"
    )
    parser.add_argument("--check", action="store_true", help=f"exit with 1 if a count grew by more than {LIMIT:g} %%")
    parser.add_argument("--update", action="store_true", help="write the counts of this tree")
    args = parser.parse_args(line)
    program = args.build / "tests/cpp/count_kernels"
    try:
        return run(args, program)
    except (OSError, RuntimeError, ValueError, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def run(args: argparse.Namespace, program: Path) -> int:
    if args.update and (args.kernels or args.isas or args.check):
        raise ValueError("--update writes every count, it takes no --kernels, --isas or --check")
    if shutil.which("valgrind") is None:
        raise RuntimeError(
            "valgrind is not installed, and it counts the instructions (Debian: apt-get install valgrind)"
        )
    if not program.is_file():
        raise RuntimeError(f"expected {program} to exist (cmake --build {args.build} --target count_kernels)")
    if not args.file.is_file() and not args.update:
        raise RuntimeError(f"expected {args.file} to exist (--update writes it)")
    committed = json.loads(args.file.read_text()) if args.file.is_file() else {"facts": {}, "counts": {}}
    names, patterns = answers(program, "list"), args.kernels or ["*"]
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise ValueError(f"--kernels: expected one of {', '.join(names)} or a pattern of them, got {pattern}")
    wanted = {name: shape for name, shape in names.items() if any(fnmatch.fnmatch(name, p) for p in patterns)}
    measured = measure(program, wanted, args.isas or list(ISAS), committed)
    if args.update:
        lacking = {isa for row in measured["counts"].values() for isa in ISAS if row[isa] is None}
        if lacking:
            raise RuntimeError(
                f"--update: expected a CPU with every instruction set, this one lacks {', '.join(lacking)}"
            )
        args.file.write_text(json.dumps(measured, indent=2) + "\n")
        print(f"wrote {args.file}")
        return 0
    status, lines = verdict(measured, committed)
    print("\n".join(lines))
    return status if args.check else 0


if __name__ == "__main__":
    sys.exit(main())
