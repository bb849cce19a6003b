"""What all Python tests share: a fixed random state per test, exact comparison, and fresh processes."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest
import quintil  # noqa: F401  (registers the ops for every test file)
import torch
from torch import Tensor

hypothesis.settings.register_profile("quintil", derandomize=True, deadline=None, max_examples=40, database=None)
hypothesis.settings.load_profile("quintil")

SCALAR = (
    os.environ.get("QUINTIL_ISA") == "scalar"
)  # the slow instruction set: tests that only need volume take less of it
PACKAGE_ROOT = Path(importlib.util.find_spec("quintil").origin).parents[1]  # of the package under test


@pytest.fixture(autouse=True)
def fixed_random_state():
    """Every test starts from the same generator state and leaves the thread count as it was."""
    threads = torch.get_num_threads()
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def small_cifar(monkeypatch):
    """The loader of CIFAR-100 expects as few images as `data_trees` writes."""
    from data_trees import CIFAR_COUNTS
    from quintil.data import cifar100

    monkeypatch.setattr(cifar100, "COUNTS", CIFAR_COUNTS)


def assert_same(got: Tensor, want: Tensor, what: str = "result") -> None:
    """Equal with `==` (NaN equals NaN), same shape; integers of different widths may be compared."""
    assert got.shape == want.shape, f"{what}: shape {list(got.shape)}, expected {list(want.shape)}"
    got, want = got.detach(), want.detach()
    if not got.is_floating_point():
        got, want = got.to(torch.int64), want.to(torch.int64)
    same = (got == want) | ((got != got) & (want != want))
    if not bool(same.all()):
        where = (~same).nonzero()
        first = tuple(where[0].tolist())
        pytest.fail(f"{what}: {len(where)} of {same.numel()} differ, at {first}: {got[first]}, expected {want[first]}")


def same_bits(got: Tensor, want: Tensor) -> bool:
    """Bit for bit, signs of zeros included."""
    words = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    if got.is_floating_point():
        got, want = (t.detach().contiguous().view(words[t.element_size()]) for t in (got, want))
    return got.dtype == want.dtype and torch.equal(got, want)


def activations(*shape: int, signed: bool = True) -> Tensor:
    """Gaussian values, after a ReLU if not `signed`."""
    values = torch.randn(*shape)
    return values if signed else values.relu()


def weights(*shape: int) -> Tensor:
    return torch.rand(*shape) * 2 - 1


def run_python(*arguments: str, **environment: str) -> str:
    """Output of a fresh Python process that can import the package and these tests."""
    here = str(Path(__file__).resolve().parent)
    path = os.pathsep.join(p for p in (str(PACKAGE_ROOT), here, os.environ.get("PYTHONPATH", "")) if p)
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": path, **environment},
    )
    assert done.returncode == 0, f"{arguments}: exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def heed_ctrl_c() -> None:
    """As preexec_fn of a process: Ctrl-C works in it even where the tests run in a shell's background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
