"""`import quintil` refuses an instruction set that nobody knows."""

import os
import subprocess
import sys

from conftest import PACKAGE_ROOT


def test_unknown_instruction_set_is_refused_at_import():
    done = subprocess.run(
        [sys.executable, "-c", "import quintil"],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "QUINTIL_ISA": "abacus", "PYTHONPATH": str(PACKAGE_ROOT)},
    )
    assert done.returncode == 1, "an exception, not a crash"
    assert "abacus" in done.stderr and "scalar" in done.stderr
