"""How far quantised weights are from their numbers: VecQ beside other ways to choose 2^k levels, without any data.

  quintil compare-quantizers net.pt                            # a state dict, checkpoint or TorchScript
  quintil compare-quantizers net.safetensors --bits 3 4 --search --out compared.json
  quintil compare-quantizers lenet5 --summary                  # a network of quintil.models, weights freshly drawn

MODEL: a file that `torch.save` wrote (a state dict, also below state_dict, model or net; checkpoints of `quintil train`
and of scripts/train_double_rounding.py), a TorchScript, a safetensors file, or a name: @NAMES@.
Compared are all float tensors of two dimensions or more, each quantised as a whole.

Quantisers, all with 2^k levels at k bits (how each finds them; float32 numbers stored beside the codes):
  VecQ                 direction first: a step from a table, made for the normal distribution, times the standard
                       deviation; then the length by least squares. No search. (1)
  VecQ, searched       the same, with the step of the smallest orientation loss on these weights; --search (1)
  min-max              equal distances from the smallest to the largest weight (2)
  LSQ initialisation   multiples of 2 mean|w| / sqrt(2^(k-1)-1), where LSQ's training starts; from 2 bits (1)
  uL2Q                 VecQ's predecessor: mean and deviation times a table, not fitted to the weights (2)
  MSE-optimal uniform  equal distances with the smallest squared error, both ends searched (2)
  Lloyd-Max            free levels with the smallest squared error, found by search: matmuls need floats (2^k)

Columns, for weights w and their quantised form y:
  MSE                  |w - y|^2 / |w|^2: 0.01 means that the error has a hundredth of the weights' energy
  cosine               of the angle between w and y
  orientation loss     1 - cosine, which no scale changes: what VecQ's first step minimises
  modulus loss         |w - y|^2: what its second step minimises
  bytes                k bits a weight, and the float32 numbers above
Bold is the smallest MSE of a weight and width that takes no search. A search has to be repeated after every training
step; its rows show how much a closed form gives away. Of trained weights with numbers far out, a table made for the
normal distribution clips too much at 8 bits: compare with --search.

Written with --out FILE.json: all numbers, and pictures beside it (PNG and SVG, extra quintil[report]): MSE as a
multiple of VecQ's, each loss over the weights, and error against size.

Exit status: 0, or 2 for a model or option that cannot be used.
"""

from __future__ import annotations

import argparse
import fnmatch
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def parser() -> argparse.ArgumentParser:
    from .weight_files import network_names

    made = argparse.ArgumentParser(
        prog="quintil compare-quantizers",
        usage="%(prog)s MODEL [options]",
        description=__doc__.replace("@NAMES@", ", ".join(network_names())),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("model", metavar="MODEL", help="a file with weights, or a name of quintil.models")
    made.add_argument("--bits", type=int, nargs="+", default=[2, 4, 8], metavar="K", help="widths, 1..16 (2 4 8)")
    made.add_argument("--search", action="store_true", help="also VecQ with its step searched")
    made.add_argument("--only", nargs="+", metavar="GLOB", help="weights whose names match one of these ('conv*')")
    made.add_argument("--summary", action="store_true", help="print only the table of all weights together")
    made.add_argument("--seed", type=int, default=0, help="of freshly drawn weights (0)")
    made.add_argument("--out", metavar="FILE", help="write JSON, and pictures beside it")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        return _compare(options)
    except (ImportError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _compare(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from quintil.continual.rundir import pretty, write_atomic

    from .quantizer_table import draw_quantizers, measured, table, together
    from .weight_files import read_weights

    bits = list(dict.fromkeys(options.bits))
    for width in bits:
        if not 1 <= width <= 16:
            raise ValueError(f"compare_quantizers: expected bits in 1..16, got {width}")
    if options.out and not Path(options.out).parent.is_dir():
        raise ValueError(f"compare_quantizers: expected out to be in a folder that exists, got {options.out}")
    weights, origin = read_weights(options.model, options.seed)
    weights, left_out = _chosen(weights, options.only, origin)
    rows = []
    for name, weight in tqdm(weights.items(), desc="weights", leave=False, disable=None):
        rows += measured(name, weight, bits, options.search)
    whole = together(rows)
    count = f"{len(weights)} weight{'s' if len(weights) > 1 else ''}"
    print(f"{origin}: {count}, {sum(w.numel() for w in weights.values()):,} numbers\n")
    if left_out:
        print(f"Left out, since empty or all zero: {', '.join(left_out)}\n")
    if not options.summary:
        print(f"{table(rows)}\n")
    print(table(whole))
    if options.out:
        out = Path(options.out)
        found: dict[str, Any] = {"model": origin, "bits": bits, "left_out": left_out, "weights": rows, "all": whole}
        write_atomic(out, pretty(found))
        print(f"\nresults {out}")
        try:
            for picture in draw_quantizers(rows, out.with_suffix("")):
                print(f"picture {picture}")
        except ModuleNotFoundError:
            print("no pictures: they take matplotlib (pip install 'quintil[report]')")
    return 0


def _chosen(weights: dict[str, Any], globs: Sequence[str] | None, origin: str) -> tuple[dict[str, Any], list[str]]:
    """Weights that are asked for and have something to quantise, and the names of those that have nothing."""
    asked = {n: w for n, w in weights.items() if globs is None or any(fnmatch.fnmatchcase(n, g) for g in globs)}
    if not asked:
        raise ValueError(
            f"compare_quantizers: expected only to match names, got {' '.join(globs or [])} (there are "
            f"{', '.join(list(weights)[:8])}{', ..' if len(weights) > 8 else ''})"
        )
    left_out = [name for name, weight in asked.items() if not bool(weight.any())]
    if len(left_out) == len(asked):
        raise ValueError(f"compare_quantizers: expected weights that are not zero, got none (in {origin})")
    return {name: weight for name, weight in asked.items() if name not in left_out}, left_out
