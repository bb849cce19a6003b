#!/usr/bin/env python3
"""Weights quantised after training, without any more of it: error and accuracy of VecQ beside other quantisers.

usage: vecq_post.py RUNS --data_root DIR [--bits 8 6 4] [--skip_searches] [--out docs/results/vecq_post_training.md]
RUNS: a folder below which `scripts/train_vecq.py --stage float` left runs (their config.json and last.pt); the nets
of one kind follow each other by seed. Every weight of two dimensions or more is a layer; biases and BatchNorms stay.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import torch
from quintil import functional as F
from quintil.bits import evaluate
from quintil.bits.rivals import RIVALS, STEPS, Numbers
from quintil.cli.stage_run import read_checkpoint
from quintil.cli.vecq_config import VecQRun, make_batches, make_model
from quintil.cli.vecq_run import VecQStage
from torch import Tensor, nn

HEADING = """# Weights quantised after training: VecQ and others

Numbers of `{command}`.

**The same levels**: y = length * v with one float32 length for a weight and v one of the 2^k half-integers from
-(2^k - 1)/2 to (2^k - 1)/2, symmetric, without zero. *VecQ* takes its step from the table and fits the length;
*searched* takes the step of the smallest orientation loss on the weight, so that of the smallest error. Beside them the
closed forms *min-max* (length 2 max|w| / (2^k - 1)), *LSQ initialisation* (2 mean|w| / sqrt(2^(k-1) - 1)) and *uL2Q*
(its table times the standard deviation). **Their own levels**: the same forms as published, min-max between the
smallest and the largest weight, LSQ with a level at 0, uL2Q around the mean. **Searches** over free ends or free levels
are shown apart.

Columns: squared error |w - y|^2 of all layers together; layers (of those there are) where the error of VecQ, and of
VecQ searched, is not above that of the row's quantiser; test accuracy with weights replaced, nothing trained.
"""
Quantizer = Callable[[Tensor, int], Tensor]


def _vecq(mode: str) -> Quantizer:
    return lambda w, bits: F.vecq_quantize(w, bits, step=F.vecq_step(w, bits, lambda_mode=mode))[0]


def _same_levels(name: str) -> Quantizer:
    return lambda w, bits: F.vecq_quantize(w, bits, step=STEPS[name](w.double(), bits).float(), drive="none")[0]


def _own_levels(name: str) -> Quantizer:
    return lambda w, bits: RIVALS[name].quantized(Numbers(w), bits).reshape(w.shape).float()


VECQ = {"VecQ": _vecq("table"), "VecQ, searched": _vecq("search")}
QUANTIZERS: dict[str, dict[str, Quantizer]] = {
    "same levels": {**VECQ, **{name: _same_levels(name) for name in STEPS}},
    "own levels": {name: _own_levels(name) for name, rival in RIVALS.items() if not rival.searches},
    "searches": {name: _own_levels(name) for name, rival in RIVALS.items() if rival.searches},
}


def runs_below(folder: Path) -> Iterator[tuple[Path, dict]]:
    """Float runs, by name and seed, and their options."""
    for file in sorted(folder.rglob("config.json")):
        config = json.loads(file.read_text())
        if config.get("stage") == "float" and (file.parent / "last.pt").is_file():
            yield file.parent, config


@torch.no_grad()
def rows_of(net: nn.Module, tested: Callable[[], float], widths: list[int], kinds: list[str]) -> list[list[str]]:
    layers = {name: p.detach().clone() for name, p in net.named_parameters() if p.dim() > 1}
    rows = [["32", "", "float32", "0", "", "", f"{tested():.2f}"]]
    for bits in widths:
        own: dict[str, list[float]] = {}
        for kind, quantizers in [(kind, QUANTIZERS[kind]) for kind in kinds]:
            for name, quantize in quantizers.items():
                errors = []
                for layer, w in layers.items():
                    y = quantize(w, bits)
                    errors.append(float((w.double() - y.double()).square().sum()))
                    net.get_parameter(layer).copy_(y)
                if name in VECQ:
                    own[name] = errors
                counts = [
                    "" if name in VECQ else f"{sum(a <= b for a, b in zip(own[mine], errors))} of {len(layers)}"
                    for mine in VECQ
                ]
                rows.append([str(bits), kind, name, f"{sum(errors):.4g}", *counts, f"{tested():.2f}"])
    for layer, w in layers.items():
        net.get_parameter(layer).copy_(w)
    return rows


def section(
    folder: Path, config: dict, data_root: str, widths: list[int], kinds: list[str], test_batches: int | None
) -> str:
    """The table of one net."""
    names = ("dataset", "model", "stage", "batch_size", "seed", "limit_batches")
    run = VecQRun(**{name: config[name] for name in names}, data_root=data_root)
    batches = make_batches(run)
    net = make_model(run, batches).eval()
    content = read_checkpoint(folder, VecQStage.kind)
    net.load_state_dict(content["state"]["model"])
    head = ["bits", "levels", "quantiser", "squared error", "VecQ not above", "searched not above", "accuracy"]
    table = [head, ["---:", "---", "---", "---:", "---:", "---:", "---:"]]
    table += rows_of(net, lambda: evaluate(net, islice(batches.test(), test_batches)), widths, kinds)
    bound = f", {run.limit_batches} batches each" if run.limit_batches else ""
    lines = ["| " + " | ".join(row) + " |" for row in table]
    epochs = len(content["rows"])
    what = f"{run.model} on {run.dataset}, seed {run.seed}: {epochs} epoch{'s' if epochs > 1 else ''}{bound}"
    what += f", tested on {test_batches} batches" if test_batches else ""
    return "\n".join([f"## {what}", "", *lines])


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", metavar="RUNS", type=Path)
    parser.add_argument("--data_root", metavar="DIR")
    parser.add_argument("--bits", type=int, nargs="+", default=[8, 6, 4], metavar="K", help="2..8 (8 6 4)")
    parser.add_argument("--skip_searches", action="store_true", help="leave out what takes minutes for a large layer")
    parser.add_argument("--test_batches", type=int, metavar="N", help="accuracy of the first N test batches (all)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the tables there")
    options = parser.parse_args(arguments)
    try:
        if not all(2 <= bits <= 8 for bits in options.bits):
            raise ValueError(f"vecq_post: expected bits in 2..8, got {options.bits}")
        if options.test_batches is not None and options.test_batches < 1:
            raise ValueError(f"vecq_post: expected test_batches of at least 1, got {options.test_batches}")
        kinds = [kind for kind in QUANTIZERS if kind != "searches" or not options.skip_searches]
        sections = [
            section(*run, options.data_root, options.bits, kinds, options.test_batches)
            for run in runs_below(options.runs)
        ]
        if not sections:
            raise ValueError(f"vecq_post: expected float runs below {options.runs}, got none")
    except (ImportError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    widths, skipped = " ".join(map(str, options.bits)), " --skip_searches" if options.skip_searches else ""
    tested = f" --test_batches {options.test_batches}" if options.test_batches else ""
    command = f"scripts/reproduce/vecq_post.py RUNS --data_root DIR --bits {widths}{skipped}{tested}"
    text = "\n\n".join([HEADING.format(command=command).rstrip(), *sections]) + "\n"
    print(text, end="")
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
