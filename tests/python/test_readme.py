"""What the README shows is true: its Python runs, its files, scripts and options exist."""

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, re.S)


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: block.splitlines()[0][:40])
def test_python_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"torch": torch, "x": torch.rand(8, 64), "weight": torch.rand(10, 64, requires_grad=True), "bias": None}
    exec(compile(block, "README.md", "exec"), names)


def test_a_plain_training_loop_learns_after_the_swap():
    """The first example, repeated: the loss of a loop that knows nothing of quintil falls."""
    import quintil

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
    quintil.quantize_(model, quintil.HDQT())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    centres = torch.randn(10, 64)
    losses = []
    for _ in range(80):
        y = torch.randint(0, 10, (32,))
        loss = torch.nn.functional.cross_entropy(model(centres[y] + 0.3 * torch.randn(32, 64)), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.2 * sum(losses[:10])


def test_files_and_scripts_exist():
    named = set(re.findall(r"\]\(([\w/.]+)\)", README)) | set(
        re.findall(r"(?:\./|\s|`)((?:scripts|tests|csrc)/[\w/.]+\w)", README)
    )
    assert len(named) > 6
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_options_exist():
    import argparse

    from quintil.cli import search_widths, train_widths
    from quintil.continual.arguments import add_arguments

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    parser.add_argument("--smoke", "--preset")
    own = {"train_double_rounding": train_widths.parser(), "search_bits": search_widths.parser()}
    checked = 0
    for line in README.splitlines():
        for name in re.findall(r"scripts/(train_\w+|search_bits)\.py", line):
            known = {option for action in own.get(name, parser)._actions for option in action.option_strings}
            used = set(re.findall(r"(--\w+)", line))
            assert used - {"--help"} <= known, line
            checked += len(used)
    assert checked > 10
