"""Checks the compiled half of the dependency rules: what lies in the objects of a build folder, and how they were made.

usage: check_objects.py BUILD          (a build folder of CMake; prints one line per finding, exit code 1 if any)

D8   libquintil.so needs no Python symbol and no libpython
D9   objects of ISA folders hold no weak symbol and no static initialiser; only ISA folders get ISA flags; no LTO
N3   -ffp-contract=off for every file, -ffast-math for none
Needs nm and readelf (binutils come with every g++).
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

WEAK = "WwVvu"  # nm's letters: weak, weak object, unique global
INITIALISER = re.compile(r"\s\.(init_array|ctors|preinit_array)\S*")
ISA_FLAG = re.compile(r"-m(?!tune=|64$)\S+")
FORBIDDEN = ("-ffast-math", "-Ofast", "-flto", "-funsafe-math-optimizations", "-march=native")

Finding = tuple[str, str, str]


def tool_output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def object_findings(path: Path) -> Iterator[Finding]:
    """D9 for one object file of an ISA folder."""
    for line in tool_output("nm", "--demangle", str(path)).splitlines():
        kind, _, name = line[17:].partition(" ")
        if kind and kind in WEAK:
            yield "D9", path.name, f"weak symbol {name}: its code could be the copy that runs on an older CPU"
    for line in tool_output("readelf", "--sections", "--wide", str(path)).splitlines():
        if INITIALISER.search(line):
            yield "D9", path.name, "static initialiser: it runs before the CPU is asked"
            break


def library_findings(path: Path) -> Iterator[Finding]:
    """D8 for libquintil.so."""
    for line in tool_output("nm", "--dynamic", "--undefined-only", str(path)).splitlines():
        symbol = line.split()[-1]
        if symbol.startswith(("Py", "_Py")):
            yield "D8", path.name, f"needs the Python symbol {symbol}"
    for line in tool_output("readelf", "--dynamic", "--wide", str(path)).splitlines():
        if "(NEEDED)" in line and re.search(r"libpython|libtorch_python", line):
            yield "D8", path.name, f"needs {line.split('[')[-1].rstrip(']')}"


def isa_of(source: str) -> str | None:
    """Name of the ISA folder that a source file lies in; None outside of them and for scalar."""
    match = re.search(r"csrc/kernels/(\w+)/[^/]+\.cpp$", source)
    return match.group(1) if match and match.group(1) != "scalar" else None


def flag_findings(compile_commands: list[dict[str, str]]) -> Iterator[Finding]:
    """D9 and N3 for the commands of compile_commands.json; sources outside of csrc/ are not ours to judge."""
    for entry in compile_commands:
        source = entry["file"]
        if "/csrc/" not in source:
            continue
        name = "csrc/" + source.rpartition("/csrc/")[2]
        flags = shlex.split(entry["command"])
        if isa_of(source) is None:
            for flag in filter(ISA_FLAG.fullmatch, flags):
                yield "D9", name, f"compiled with {flag}: ISA flags belong to ISA folders"
        for flag in flags:
            if flag.startswith(FORBIDDEN):
                yield "D9" if "lto" in flag or "march" in flag else "N3", name, f"compiled with {flag}"
        if "-ffp-contract=off" not in flags:
            yield "N3", name, "compiled without -ffp-contract=off"


def findings(build: Path) -> list[Finding]:
    """Every breach in a build folder. Raises FileNotFoundError if it holds no objects to look at."""
    commands = build / "compile_commands.json"
    libraries = sorted(build.glob("libquintil.so"))
    objects = [path for path in sorted(build.rglob("*.o")) if isa_of(str(path).removesuffix(".o"))]
    for what, present in (
        ("compile_commands.json", commands.is_file()),
        ("libquintil.so", libraries),
        ("objects", objects),
    ):
        if not present:
            raise FileNotFoundError(
                f"check_objects: expected {build} to hold {what} of quintil, got none (build first)"
            )
    found = list(flag_findings(json.loads(commands.read_text(encoding="utf-8"))))
    for path in objects:
        found += object_findings(path)
    for path in libraries:
        found += library_findings(path)
    return found


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    found = findings(Path(arguments[0]))
    for rule, where, line in found:
        print(f"{rule} {where}: {line}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
