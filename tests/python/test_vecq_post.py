"""Post-training comparison at the same levels: the searched step has the smallest error, and the script counts it."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import quintil.functional as F
import torch
from quintil.bits.rivals import STEPS
from quintil.cli import train_vecq
from test_cmake_package import ROOT
from torch import Tensor

SCRIPT = str(ROOT / "scripts" / "reproduce" / "vecq_post.py")


def numbers(kind: str, count: int) -> Tensor:
    normal = torch.randn(count)
    return {
        "normal": normal,
        "laplace": normal * torch.rand(count).log().neg().sqrt(),
        "uniform": torch.rand(count) - 0.5,
        "shifted": normal + 2,
        "relu": normal.relu(),
        "heavy": normal / torch.randn(count),
        "one far out": torch.cat([normal[1:], torch.tensor([1000.0])]),
        "two values": normal.sign(),
    }[kind] * 0.1


def error_at(w: Tensor, length: Tensor | float, step: Tensor | float, bits: int) -> float:
    """Of length * half-integer, the nearest to w / step, in float64."""
    half = 2 ** (bits - 1)
    v = torch.round(w.double() / step - 0.5).clamp(-half, half - 1) + 0.5
    return float((w.double() - length * v).square().sum())


@pytest.mark.parametrize("count", [60, 4000])
@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize(
    "kind", ["normal", "laplace", "uniform", "shifted", "relu", "heavy", "one far out", "two values"]
)
def test_the_searched_step_wins_at_the_same_levels(kind, bits, count):
    """Against every closed form, each with its own length and with the best one for its step, and against the table."""
    for _ in range(3):
        w = numbers(kind, count)
        step = F.vecq_step(w, bits, lambda_mode="search")
        y, _, alpha = F.vecq_quantize(w, bits, step=step)
        own = float((w.double() - y.double()).square().sum())
        # The nearest float32 step, length and products are all there is to lose.
        allowed = 1e-9 * float(w.double().square().sum())
        x, top = w.double(), 2 ** (bits - 1) - 1
        steps = {
            "min-max": 2 * x.abs().max() / (2**bits - 1),
            "LSQ initialisation": 2 * x.abs().mean() / math.sqrt(top),
        }
        for name, rival in steps.items():
            assert float(STEPS[name](x, bits)) == pytest.approx(float(rival), rel=1e-12)
        for name, choose in STEPS.items():
            rival = float(choose(x, bits))
            assert own <= error_at(w, rival, rival, bits) * (1 + 1e-4) + allowed, name
            half = 2 ** (bits - 1)
            v = torch.round(x / rival - 0.5).clamp(-half, half - 1) + 0.5
            assert own <= error_at(w, float((v @ x) / (v @ v)), rival, bits) * (1 + 1e-4) + allowed, name
        table = F.vecq_quantize(w, bits)[0]
        assert own <= float((w.double() - table.double()).square().sum()) * (1 + 1e-6) + allowed
        assert float(alpha) > 0


def test_the_script(tmp_path):
    line = "--stage float --dataset digits --epochs 1 --batch_size 24 --limit_batches 3 --threads 1 --exp_name e"
    assert train_vecq.main([*line.split(), "--results_dir", str(tmp_path)]) == 0
    out = tmp_path / "table.md"
    command = [sys.executable, SCRIPT, str(tmp_path), "--bits", "8", "3", "--skip_searches", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stderr == "" and out.read_text() == done.stdout
    assert "## lenet5 on digits, seed 0: 1 epoch, 3 batches each" in done.stdout
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in done.stdout.splitlines() if row[:1] == "|"]
    found = {tuple(row[:3]): row[3:] for row in rows[2:]}
    assert len(found) == 1 + 2 * 8
    state = torch.load(tmp_path / "e/digits_lenet5_float/seed0/last.pt", weights_only=True)["state"]["model"]
    layers = [w for w in state.values() if w.dim() > 1]
    for bits in (8, 3):
        want = sum(
            error_at(w, step, step, bits) for w in layers for step in [2 * w.double().abs().max() / (2**bits - 1)]
        )
        assert float(found[str(bits), "same levels", "min-max"][0]) == pytest.approx(want, rel=1e-3)
        for (width, kind, name), (_, table, searched, _) in found.items():
            if width == str(bits) and kind == "same levels" and not name.startswith("VecQ"):
                assert searched == f"{len(layers)} of {len(layers)}", (width, kind, name)
                assert 0 <= int(table.split()[0]) <= len(layers)
    # At 8 bits weights are almost themselves.
    plain = float(found["32", "", "float32"][-1])
    assert float(found["8", "same levels", "VecQ, searched"][-1]) == pytest.approx(plain, abs=3)
    for refused, message in (
        ([str(tmp_path / "none")], "expected float runs below"),
        ([str(tmp_path), "--bits", "9"], "in 2..8"),
    ):
        done = subprocess.run([sys.executable, SCRIPT, *refused], capture_output=True, text=True, timeout=120)
        assert done.returncode == 1 and message in done.stderr
