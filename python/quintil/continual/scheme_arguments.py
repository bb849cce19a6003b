"""Command-line options of the quantisation scheme, and the scheme they describe [CIL 6]."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from quintil.schemes import FP134, HDQT, LUQ, Scheme
from quintil.schemes.hdqt import DC_ROWS, WEIGHT_QUANTIZERS

from .method_arguments import Flag

_QUANT_ALIASES = {"noq": "none", "ours": "hdqt", "luq_corrected": "luq"}
_BASELINES = {
    "luq": LUQ(),
    "luq_og": LUQ(levels="original"),
    "fp134": FP134(),
    "fp130_8": FP134(weights="fp130"),
    "fp130_4": FP134(weights="fp130", activations="fp130"),
}
_BASELINE_OPTIONS = {LUQ: ("bits", "accumulator_bits", "tile_size", "luq_samples"), FP134: ("fp134_full",)}
_RENAMED = {"luq_samples": "samples", "fp134_full": "full"}
_SITES = {
    "quant_fwd_wgt": "fw", "quant_fwd_act": "fa", "quant_bwd_wgt": "b1w",
    "quant_bwd_grad1": "b1g", "quant_bwd_act": "b2a", "quant_bwd_grad2": "b2g",
}  # fmt: skip
# Options that are fields of HDQT.
_PLAIN = (
    "bits", "accumulator_bits", "tile_size", "range_fraction", "requantize", "weight_quantizer", "dc_row",
    "backward_accumulator_bits", "weight_gradient_accumulator_bits",
)  # fmt: skip
_HDQT_OPTIONS = (*_PLAIN, "paper_compat", "hadamard_off", "acc_fwd", "acc_bwd", *_SITES)
_SITE_FLAGS = {
    "quant_fwd_wgt": ("--quantFWDWgt", "-qfwdw"), "quant_fwd_act": ("--quantFWDAct", "-qfwda"),
    "quant_bwd_wgt": ("--quantBWDWgt", "-qbwdw"), "quant_bwd_act": ("--quantBWDAct", "-qbwda"),
    "quant_bwd_grad1": ("--quantBWDGrad1", "-qbwdg1"), "quant_bwd_grad2": ("--quantBWDGrad2", "-qbwdg2"),
}  # fmt: skip


def add_scheme_arguments(group: Any, flag: Flag) -> None:
    """Add the options; flag(group, *names, help=...) adds one that takes true or false."""
    group.add_argument(
        "--quant", "--quantMethod", "-qmethod", default="none",
        choices=("none", "hdqt", "hdqt-paper", "hdqt-best", *_BASELINES, *_QUANT_ALIASES),
        help="none (alias noq): float32; hdqt (alias ours): integer forward and backward; hdqt-paper: the authors' "
        "published arithmetic, HDQT.paper(); hdqt-best: HDQT.best(); "
        "the baselines luq (alias luq_corrected), luq_og (LUQ as published), "
        "fp134, fp130_8 (weights FP130) and fp130_4 (all FP130)",
    )  # fmt: skip
    group.add_argument("--bits", "--quantBits", type=int, help="operand bits (4)")
    group.add_argument(
        "--accumulator_bits", "--acc_bits", "--quantAccBits", type=int, help="accumulator bits (8; luq 32)"
    )
    group.add_argument("--tile_size", "--quantBlockSize", type=int, help="products per accumulator tile (32; luq 0)")
    group.add_argument("--range_fraction", "--quantile", type=float, help="clipped share of max|x| (0.975)")
    group.add_argument("--weight_quantizer", choices=WEIGHT_QUANTIZERS, help="what a weight's codes are (absmax)")
    group.add_argument(
        "--dc_row", choices=DC_ROWS,
        help="separate: the first row of every Hadamard block of the weight gradient in 8-bit codes (together)",
    )  # fmt: skip
    for name, product in (("backward", "both gradients"), ("weight_gradient", "the weight gradient alone")):
        group.add_argument(
            f"--{name}_accumulator_bits", type=int, help=f"accumulator bits of {product} (--accumulator_bits)"
        )
    group.add_argument("--luq_samples", type=int, help="luq: draws of a gradient per backward (1)")
    flag(group, "--fp134_full", help="fp134, fp130_8, fp130_4: round inputs and weights of layers too (false)")
    flag(
        group,
        "--paper_compat",
        help="another name of --quant hdqt-paper",
    )
    for dest, aliases in _SITE_FLAGS.items():
        group.add_argument(f"--{dest}", *aliases, dest=dest, choices=("int", "stoch"), help=argparse.SUPPRESS)
    flag(group, "--hadamard_off", "--quantHadOff", help="no Hadamard transform")
    flag(group, "--requantize", "--quantRequantize", help="re-quantise transformed codes (true)")
    for name, alias in (("--acc_fwd", "--quantAccFWD"), ("--acc_bwd", "--quantAccBWD")):
        where = "forward" if name == "--acc_fwd" else "backward"
        group.add_argument(name, alias, choices=("int", "noq"), help=f"noq: no accumulator limit in the {where}")


def scheme_from(args: argparse.Namespace) -> Scheme | None:
    """The quantisation scheme of parsed options, None for float32.

    ValueError for options of another scheme; `--quant noq` ignores them, as in the authors' commands.
    """
    quant = _QUANT_ALIASES.get(args.quant, args.quant)
    if quant in _BASELINES:
        return _baseline_from(args, quant)
    for option, needed in (("luq_samples", "luq"), ("fp134_full", "fp134")):
        if getattr(args, option) and args.quant != "noq":
            raise ValueError(f"config_from: expected quant to be {needed} with {option}, got {args.quant}")
    return _hdqt_from(args, quant)


def _baseline_from(args: argparse.Namespace, quant: str) -> Scheme:
    base = _BASELINES[quant]
    own = _BASELINE_OPTIONS[type(base)]
    foreign = [
        name for name in (*_HDQT_OPTIONS, "luq_samples", "fp134_full") if name not in own and _is_given(args, name)
    ]
    if foreign:
        raise ValueError(
            f"config_from: expected quant to be another scheme with {', '.join(foreign)}, got {args.quant}"
        )
    changes = {_RENAMED.get(name, name): getattr(args, name) for name in own if getattr(args, name) is not None}
    return dataclasses.replace(base, **changes)


def _is_given(args: argparse.Namespace, name: str) -> bool:
    return getattr(args, name) not in (None, False) or (name in _PLAIN and getattr(args, name) is not None)


def _hdqt_from(args: argparse.Namespace, quant: str) -> HDQT | None:
    changes = {name: getattr(args, name) for name in _PLAIN if getattr(args, name) is not None}
    if quant == "none":
        given = [name for name in _HDQT_OPTIONS if _is_given(args, name)]
        if given and args.quant == "none":
            raise ValueError(f"config_from: expected quant to be hdqt with {', '.join(given)}, got none")
        return None
    base = HDQT.best() if quant == "hdqt-best" else HDQT()
    if args.paper_compat or quant == "hdqt-paper":
        base = HDQT.paper(**{name: changes.pop(name) for name in ("bits", "accumulator_bits") if name in changes})
    if args.hadamard_off:
        changes["hadamard"] = "none"
    rounding = {site: getattr(args, flag) for flag, site in _SITES.items() if getattr(args, flag) is not None}
    if rounding:
        sites = [s for s in _SITES.values() if rounding.get(s, "stoch" if s in base.stochastic else "int") == "stoch"]
        changes["stochastic"] = tuple(sites)
    limit = changes.get("accumulator_bits", base.accumulator_bits)
    if args.acc_bwd == "noq":
        changes["backward_accumulator_bits"] = 32
        changes.setdefault("weight_gradient_accumulator_bits", None)
    if args.acc_fwd == "noq":
        changes.setdefault("backward_accumulator_bits", base.backward_accumulator_bits or limit)
        changes["accumulator_bits"] = 32
    return dataclasses.replace(base, **changes)
