"""scripts/count_instructions.py: help, what it reads, how it judges made-up counts, and a count or a refusal."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "count_instructions.py"
spec = importlib.util.spec_from_file_location("count_instructions", SCRIPT)
counts = importlib.util.module_from_spec(spec)
spec.loader.exec_module(counts)

FACTS = {"processor": "x86_64", "compiler": "GNU 12.2.0", "flags": "-O3", "libc": "glibc 2.36", "valgrind": "3.19.0"}
COMMITTED = {
    "facts": FACTS,
    "counts": {
        "absmax_f32": {"shape": "4000", "scalar": 10000, "avx2": 1000},
        "widen_u8s16": {"shape": "399", "scalar": 5000, "avx2": 500},
    },
}


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """The script as a process; torch is not needed, nor is the package."""
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, env=environment or None
    )


def judged(**changed: object) -> tuple[int, list[str]]:
    """The verdict on the committed counts with the given ones of absmax_f32."""
    measured = deepcopy(COMMITTED)
    measured["counts"]["absmax_f32"].update(changed)
    return counts.verdict(measured, COMMITTED)


def test_help_teaches():
    done = run("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for word in (
        "--check",
        "--update",
        "--kernels",
        "AVX-512",
        "2 %",
        "instruction_counts.json",
        "--target count_kernels",
    ):
        assert word in done.stdout


def test_profile_of_callgrind():
    assert counts.collected("events: Ir\nsummary: 4166437\n\nfn=(1) f\n12 3\ntotals: 4166437\n") == 4166437
    for text in ("summary: 0\ntotals: 0\n", "events: Ir\n"):
        with pytest.raises(RuntimeError, match="expected callgrind to collect inside measured_call"):
            counts.collected(text)


@pytest.mark.parametrize(
    "avx2, percent, status",
    [(1000, 0.0, 0), (1020, 2.0, 0), (1021, 2.1, 1), (1500, 50.0, 1), (700, -30.0, 0)],
)
def test_growth_beyond_the_limit_fails(avx2, percent, status):
    before = COMMITTED["counts"]["absmax_f32"]
    assert counts.change({**before, "avx2": avx2}, before, "avx2") == pytest.approx(percent)
    fine = ["no count grew by more than 2 %"]
    assert judged(avx2=avx2) == (
        status,
        [f"grew by more than 2 %: absmax_f32 avx2, 1,000 -> {avx2:,}"] if status else fine,
    )
    row = counts.table_row("absmax_f32", {**before, "avx2": avx2}, before, ["scalar", "avx2"])
    assert row.split()[-3:] == [f"{avx2:,}", "1,000", f"{percent:+.1f}"] and len(row) <= 120


def test_what_cannot_be_compared_is_said_and_passes():
    status, lines = judged(avx2=None)
    assert status == 0 and lines[0] == "not compared: absmax_f32 avx2, this CPU lacks the instruction set"
    status, lines = judged(shape="8000", avx2=9000)
    assert status == 0 and lines[:2] == [
        f"not compared: absmax_f32 {isa}, no committed count of this shape" for isa in ("scalar", "avx2")
    ]
    assert lines[2:] == ["no count grew by more than 2 %"]


@pytest.mark.parametrize("key, value", [("compiler", "GNU 13.2.0"), ("flags", "-O2"), ("libc", "glibc 2.41")])
def test_another_compiler_is_not_compared(key, value):
    measured = deepcopy(COMMITTED)
    measured["facts"][key] = value
    measured["counts"]["absmax_f32"]["avx2"] = 9000
    expected = f"the comparison with the committed counts is not meaningful: {key} {FACTS[key]} there, {value} here"
    assert counts.verdict(measured, COMMITTED) == (0, [expected])


def test_committed_counts_are_those_of_the_program():
    """Every case and shape of count_kernels.cpp, for both instruction sets, with the facts they depend on."""
    source = (ROOT / "tests/cpp/count_kernels.cpp").read_text()
    cases = dict(re.findall(r'^    \{"([^"]+)", "([^"]+)", ', source, re.MULTILINE))
    committed = json.loads(counts.COMMITTED.read_text())
    assert {name: row["shape"] for name, row in committed["counts"].items()} == cases and len(cases) > 20
    assert all(row["scalar"] > 0 and row["avx2"] > 0 for row in committed["counts"].values())
    assert set(committed["facts"]) == {*counts.MUST_EQUAL, "valgrind"} and committed["facts"]["flags"] == "-O3 -DNDEBUG"


def refusal(*arguments: str, **environment: str) -> str:
    done = run(*arguments, **environment)
    assert done.returncode == 2 and done.stdout == "" and len(done.stderr.splitlines()) == 1, done
    return done.stderr


def test_refusals(tmp_path):
    assert refusal(PATH=str(tmp_path)).startswith("error: valgrind is not installed")
    assert refusal("--update", "--isas", "avx2").startswith("error: --update writes every count")


def test_one_kernel(tmp_path):
    """The smallest case twice, the same both times; where valgrind is absent, the refusal."""
    command = ("--kernels", "pack_a_u8", "--isas", "scalar", "--build", str(counts.BUILD), "--check")
    if shutil.which("valgrind") is None:
        assert refusal(*command).startswith("error: valgrind is not installed")
        return
    done = run(*command)
    assert done.returncode == 0 and done.stderr == "", done
    row = next(line for line in done.stdout.splitlines() if line.startswith("pack_a_u8"))
    program = counts.BUILD / "tests/cpp/count_kernels"
    assert f"{counts.count(program, 'scalar', 'pack_a_u8'):,}" in row.split()
    assert "expected one of absmax_f32, " in refusal("--kernels", "gem")
    assert "--target count_kernels" in refusal("--build", str(tmp_path))
