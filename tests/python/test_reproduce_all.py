"""`scripts/reproduce/all.sh`: it runs every study, each file that it hands on is one that was made, and it stops at a failure."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from quintil.experiments import STUDIES

ROOT = Path(__file__).resolve().parents[2]
RECORDER = """#!/usr/bin/env bash
echo "$*" >> "$(dirname "$0")/calls"
[[ "$*" != *"${FAILS:-nothing}"* ]]
"""


def calls(folder: Path, *words: str, fails: str = "nothing") -> tuple[int, list[str]]:
    """Exit status, and every command that the script would run in place of Python."""
    python = folder / "python"
    python.write_text(RECORDER)
    python.chmod(0o755)
    done = subprocess.run(
        [ROOT / "scripts" / "reproduce" / "all.sh", "DATA", folder / "out", *words],
        cwd=folder, env={**os.environ, "PYTHON": str(python), "FAILS": fails}, capture_output=True, text=True,
    )  # fmt: skip
    return done.returncode, (folder / "calls").read_text().splitlines()


@pytest.mark.parametrize("length", [[], ["--quick"]], ids=["full", "quick"])
def test_every_study_and_every_file_that_a_table_reads(tmp_path, length):
    status, asked = calls(tmp_path, *length)
    assert status == 0
    studies = [line.split() for line in asked if line.startswith("-m quintil study")]
    left_out = {"cifar-table"} if length else set()  # hours
    assert {words[3] for words in studies} == set(STUDIES) - left_out
    assert all((words[-1] == "--quick") == bool(length) for words in studies)
    made = [f"{words[words.index('--out') + 1]}.json" for words in studies]
    assert len(set(made)) == len(made)
    (table,) = [line.split()[1:] for line in asked if "ablation_table.py" in line]
    assert set(table) <= set(made) and len(table) == 8
    assert not any(STUDIES[re.search(r"study_([a-z-]+)\.json", file)[1]].measure for file in table)
    for script in {line.split()[0] for line in asked if not line.startswith("-")}:
        assert Path(script).is_file(), script


def test_a_failure_ends_it(tmp_path):
    status, asked = calls(tmp_path, "--quick", fails="study bit-sweep")
    assert status == 1 and "study bit-sweep" in asked[-1]
