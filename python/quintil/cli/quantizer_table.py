"""How far quantised weights are from their numbers: measured, as markdown, and as pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from quintil import functional as F
from quintil.bits.rivals import RIVALS, Numbers

Row = dict[str, Any]
ALL = "all weights"
SEARCHING = ["VecQ, searched", *(name for name, rival in RIVALS.items() if rival.searches)]
_HEAD = ["weight", "bits", "quantiser", "MSE", "cosine", "orientation loss", "modulus loss", "bytes"]
_PICTURES = (
    ("ratio", "MSE of VecQ = 1", "squared error of every weight as a multiple of VecQ's with its step from the table"),
    ("mse", "normalised MSE", "squared error as a share of the weight's squares"),
    ("orientation_loss", "orientation loss", "1 - cosine of the angle between a weight and its quantised form"),
    ("modulus_loss", "modulus loss", "squared distance of a weight and its quantised form"),
)


def measured(name: str, weight: Tensor, bits: Sequence[int], search: bool) -> list[Row]:
    """A row for every width and quantiser; ValueError for NaN or Inf."""
    weight = weight.float()
    try:
        numbers = Numbers(weight)
    except ValueError as error:
        raise ValueError(f"{error} (in {name!r})") from None
    rows = []
    for width in bits:
        for mode, title in (("table", "VecQ"), ("search", "VecQ, searched"))[: 1 + search]:
            step = F.vecq_step(weight, width, lambda_mode=mode)
            y, _, _ = F.vecq_quantize(weight, width, step=step)
            rows.append(_row(name, width, title, weight, y, 1))
        for title, rival in RIVALS.items():
            if width >= rival.least_bits:
                y = rival.quantized(numbers, width).reshape(weight.shape).float()
                rows.append(_row(name, width, title, weight, y, rival.parameters(width)))
    return rows


def _row(name: str, bits: int, quantizer: str, weight: Tensor, y: Tensor, parameters: int) -> Row:
    orientation, modulus, _ = F.vecq_losses(weight, y)
    w, y = weight.double().flatten(), y.double().flatten()
    size = math.ceil(weight.numel() * bits / 8) + 4 * parameters
    return {
        "weight": name, "numbers": weight.numel(), "bits": bits, "quantiser": quantizer, "bytes": size,
        "ww": float(w @ w), "wy": float(w @ y), "yy": float(y @ y), "mse": float(modulus) / float(w @ w),
        "cosine": 1.0 - float(orientation), "orientation_loss": float(orientation), "modulus_loss": float(modulus),
    }  # fmt: skip


def together(rows: Sequence[Row]) -> list[Row]:
    """All weights as one vector, for every width and quantiser."""
    groups: dict[tuple[int, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["bits"], row["quantiser"]), []).append(row)
    found = []
    for (bits, quantizer), parts in groups.items():
        keys = ("numbers", "bytes", "ww", "wy", "yy", "modulus_loss")
        sums = {key: sum(part[key] for part in parts) for key in keys}
        norms = math.sqrt(sums["ww"] * sums["yy"])
        cosine = sums["wy"] / norms if norms else 0.0
        found.append(
            {
                **sums, "weight": ALL, "bits": bits, "quantiser": quantizer, "mse": sums["modulus_loss"] / sums["ww"],
                "cosine": cosine, "orientation_loss": 1.0 - cosine,
            }
        )  # fmt: skip
    return found


def table(rows: Sequence[Row]) -> str:
    """Markdown, a row for every one given; bold is the smallest error of a weight and width found without a search."""
    best: dict[tuple[str, int], float] = {}
    for row in rows:
        if row["quantiser"] in SEARCHING:
            continue
        key = (row["weight"], row["bits"])
        best[key] = min(best.get(key, math.inf), row["mse"])
    lines = [_HEAD, ["---"] * 2 + ["---"] + ["---:"] * 5]
    for row in rows:
        mse = f"{row['mse']:.3e}"
        smallest = row["quantiser"] not in SEARCHING and row["mse"] == best[row["weight"], row["bits"]]
        cells = [
            f"`{row['weight']}`" if row["weight"] != ALL else ALL, str(row["bits"]), row["quantiser"],
            f"**{mse}**" if smallest else mse, f"{row['cosine']:.6f}", f"{row['orientation_loss']:.3e}",
            f"{row['modulus_loss']:.4g}", f"{row['bytes']:,}",
        ]  # fmt: skip
        lines.append(cells)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def draw_quantizers(rows: Sequence[Row], stem: Path) -> list[Path]:
    """<stem>_<what>.png and .svg: each loss over the weights, a panel for every width, and error against size.

    Returns the PNGs; ModuleNotFoundError without matplotlib.
    """
    from quintil.report.render import Panel, Picture, draw

    names = list(dict.fromkeys(row["weight"] for row in rows))
    table_mse = {(row["weight"], row["bits"]): row["mse"] for row in rows if row["quantiser"] == "VecQ"}
    rows = [{**row, "ratio": row["mse"] / (table_mse[row["weight"], row["bits"]] or math.inf)} for row in rows]
    widths = list(dict.fromkeys(row["bits"] for row in rows))
    pictures = []
    for key, title, formula in _PICTURES:
        panels = [
            Panel(f"{width} bits" if width > 1 else "1 bit", partial(_over_weights, rows, names, width, key, title))
            for width in widths
        ]
        size = (max(3.6, min(9.0, 1.2 + 0.16 * len(names))), 3.3)
        pictures.append(
            Picture(key, title[0].upper() + title[1:], formula, panels, 3, size, left=1.0, heat=key != "ratio")
        )
    formula = "squared error of all weights as a share of their squares, against the bytes of codes, scales and levels"
    panel = Panel("", partial(_against_size, together(rows)))
    pictures.append(Picture("size", "Error and size of all weights", formula, [panel], 1, (6.2, 3.6), left=0.8))
    for picture in pictures:
        draw(picture, stem.with_name(f"{stem.name}_{picture.name}"))
    return [stem.with_name(f"{stem.name}_{picture.name}.png") for picture in pictures]


def _over_weights(rows: Sequence[Row], names: Sequence[str], width: int, key: str, title: str, axes: Any) -> None:
    for quantizer, style in _styles(rows).items():
        values = {row["weight"]: row[key] for row in rows if (row["bits"], row["quantiser"]) == (width, quantizer)}
        points = [(place, values[name]) for place, name in enumerate(names, 1) if values.get(name, 0.0) > 0.0]
        if points:  # what is exact has no place on a logarithmic axis
            axes.plot(*zip(*points), label=quantizer, **style)
    axes.set_yscale("log")
    axes.set_xlabel("weight, in the order of the table")
    axes.set_ylabel(title)
    axes.xaxis.get_major_locator().set_params(integer=True)


def _against_size(rows: Sequence[Row], axes: Any) -> None:
    for quantizer, style in _styles(rows).items():
        points = [(r["bytes"] / 1000, r["mse"]) for r in rows if r["quantiser"] == quantizer and r["mse"] > 0.0]
        if points:
            axes.plot(*zip(*sorted(points)), label=quantizer, **style)
    axes.set_yscale("log")
    axes.set_xlabel("kB")
    axes.set_ylabel("normalised MSE")


def _styles(rows: Sequence[Row]) -> Mapping[str, dict[str, Any]]:
    """Line and mark of every quantiser, the same in all panels; VecQ's in front."""
    from quintil.report.render import COLOURS

    marks = "osv^DPX"
    names = list(dict.fromkeys(row["quantiser"] for row in rows))
    ranks = {name: place for place, name in enumerate(["VecQ", "VecQ, searched", *RIVALS])}
    return {
        name: {
            "color": COLOURS[ranks[name]], "marker": marks[ranks[name]], "ms": 6, "linewidth": 1.4,
            "markerfacecolor": None if name == "VecQ" else "none",  # marks on one spot stay visible
            "linestyle": "-" if name.startswith("VecQ") else "--",
        }
        for name in names
    }  # fmt: skip
