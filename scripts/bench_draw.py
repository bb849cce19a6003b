"""What bench_step.py measured, as markdown tables and as pictures (matplotlib, extra `report`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench_nets import OURS

NAMES = {
    OURS: "HDQT",
    "layers": "HDQT, not fused",
    "best": "HDQT.best()",
    "paper": "HDQT, paper",
    "float32": "float32",
    "bfloat16": "bfloat16",
    "compile": "torch.compile",
    "simulation": "simulation",
}
Result = dict[str, Any]


# ---- markdown ----------------------------------------------------------------------------------------------


def table(rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]) + "\n"


def threads_of(entries: Sequence[Result]) -> list[int]:
    return sorted({entry["threads"] for entry in entries})


def sides_of(entries: Sequence[Result]) -> list[str]:
    return [side for side in NAMES if any(side in entry["sides"] for entry in entries)]


def counted(threads: int) -> str:
    return f"{threads} thread" + "s" * (threads > 1)


def number(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio >= 0.095 else f"{ratio:.3f}"


def step_table(rows: Sequence[Result]) -> str:
    """One line per net, one column per arithmetic and thread count: HDQT's time over the other's."""
    columns = [(side, t) for side in sides_of(rows) if side != OURS for t in threads_of(rows)]
    found = {(row["row"], row["threads"]): row for row in rows}
    heads = [f"{NAMES[side]}, {counted(t)}" for side, t in columns]
    lines = [["whole training step, HDQT's time over that of", *heads]]
    for name, what in dict((row["row"], row["what"]) for row in rows).items():
        sides = [found.get((name, t), {"sides": {}})["sides"].get(side) for side, t in columns]
        lines.append([what, *(number(side["ratio"]) if side else "" for side in sides)])
    return table(lines)


def growth_table(curves: Sequence[Result]) -> str:
    """Growth per unit of work at its worst."""
    lines = [["step", "grows with", "threads", *(f"{NAMES[s]}, at worst" for s in curves[0]["sides"])]]
    for curve in curves:
        cells = [f"{side['surprise']:.2f} ({side['at']})" for side in curve["sides"].values()]
        lines.append([curve["what"], curve["axis"], str(curve["threads"]), *cells])
    return table(lines)


def memory_table(entries: Sequence[Result]) -> str:
    """MiB of every arithmetic, by net; in brackets where the C library's heap keeps freed blocks."""
    sides = [side for side in NAMES if any(e["arithmetic"] == side for e in entries)]
    found = {(e["row"], e["arithmetic"]): f"{e['peak_mib']:.0f} ({e['heap_peak_mib']:.0f})" for e in entries}
    lines = [["peak memory of a step, MiB", *(NAMES[side] for side in sides)]]
    for name, what in dict((e["row"], e["what"]) for e in entries).items():
        lines.append([what, *(found.get((name, side), "") for side in sides)])
    return table(lines)


def markdown(result: Result) -> str:
    """The table of a stored result."""
    kind, make = _kind(result, {"rows": step_table, "growth": growth_table, "memory": memory_table})
    return make(result[kind])


def _kind(result: Result, makers: dict[str, Callable]) -> tuple[str, Callable]:
    for kind, make in makers.items():
        if result.get(kind):
            return kind, make
    raise ValueError(f"expected numbers of bench_step.py with one of {', '.join(makers)}, got {', '.join(result)}")


# ---- pictures ----------------------------------------------------------------------------------------------


def picture(result: Result, stem: Path) -> None:
    """Write <stem>.png and <stem>.svg; ModuleNotFoundError without matplotlib."""
    from quintil.report.render import draw

    kind, make = _kind(result, {"rows": _bars, "growth": _curves, "memory": _memory})
    facts = result["machine"]
    about = f"{facts['cpu']}, {facts['isa']}, torch {facts['torch']}, {facts['commit']}"
    stem.parent.mkdir(parents=True, exist_ok=True)
    draw(make(result[kind], about), stem)


def _colours() -> dict[str, str]:
    """An arithmetic has one colour in all pictures."""
    from quintil.report.render import COLOURS

    return dict(zip((OURS, "float32", "bfloat16", "simulation", "paper", "compile", "layers", "best"), COLOURS))


def _horizontal(axes: Any, labels: Sequence[str], sides: Sequence[str], value: Callable, start: float) -> None:
    """Groups of bars from `start`, the first label on top; the values stand at their ends."""
    colours, height = _colours(), 0.8 / len(sides)
    for i, side in enumerate(sides):
        axes.plot([], [], color=colours[side], linewidth=6, label=NAMES[side])
        for j in range(len(labels)):
            ratio = value(j, side)
            if ratio is None:
                continue
            y = j - 0.4 + (i + 0.5) * height
            axes.barh(y, ratio - start, 0.9 * height, left=start, color=colours[side])
            text = dict(va="center", fontsize=7, textcoords="offset points")
            right = ratio >= start
            axes.annotate(
                number(ratio) if ratio < 10 else f"{ratio:.0f}",
                (ratio, y), xytext=(3 if right else -3, 0), ha="left" if right else "right", **text,
            )  # fmt: skip
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.grid(False, axis="y")


def _bars(rows: Sequence[Result], about: str) -> Any:
    from matplotlib.ticker import LogLocator, NullFormatter
    from quintil.report.render import INK, Panel, Picture

    sides = [side for side in sides_of(rows) if side != OURS]
    what = dict((row["row"], row["what"]) for row in rows)
    found = {(row["row"], row["threads"]): row["sides"] for row in rows}
    every = [s["ratio"] for row in rows for name, s in row["sides"].items() if name != OURS]

    def panel(threads: int) -> Any:
        def draw(axes: Any) -> None:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
            values = [found.get((name, threads), {}) for name in what]
            _horizontal(axes, list(what.values()), sides, lambda j, s: values[j].get(s, {}).get("ratio"), 1.0)
            axes.set_xlim(min(0.5, min(every)) / 2, max(2.0, max(every)) * 2)
            axes.axvline(1.0, color=INK, linewidth=0.8)
            axes.set_xlabel("time of HDQT / time of the other (left of 1: HDQT is faster)")

        return Panel(counted(threads), draw)

    height = 0.9 + 0.17 * len(what) * max(3, len(sides))
    panels = [panel(threads) for threads in threads_of(rows)]
    return Picture("step", "Whole training steps", about, panels, 2, size=(7.1, height), left=2.6)


def _curves(curves: Sequence[Result], about: str) -> Any:
    from quintil.report.render import MUTED, Panel, Picture

    def panel(curve: Result) -> Any:
        def draw(axes: Any) -> None:
            sizes, order = curve["sizes"], curve["order"]
            colours = _colours()
            for side, numbers in curve["sides"].items():
                axes.plot(sizes, numbers["us_per_sample"], color=colours[side], marker="o", ms=3, label=NAMES[side])
            ours = curve["sides"][OURS]["us_per_sample"]
            least = min(t / n**order for n, t in zip(sizes, ours))
            line = dict(color=MUTED, linestyle=":", label="in proportion to the work")
            axes.plot(sizes, [least * n**order for n in sizes], **line)
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.set_xlabel(curve["axis"])
            axes.set_ylabel("µs per sample")

        return Panel(f"{curve['what']}, {counted(curve['threads'])}", draw)

    panels = [panel(curve) for curve in curves]
    return Picture("growth", "Time per sample of a training step", about, panels, 3, heat=True)


def _memory(entries: Sequence[Result], about: str) -> Any:
    from quintil.report.render import Panel, Picture

    sides = [side for side in NAMES if any(e["arithmetic"] == side for e in entries)]
    what = dict((e["row"], e["what"]) for e in entries)
    found = {(e["row"], e["arithmetic"]): e["peak_mib"] for e in entries}

    def draw(axes: Any) -> None:
        names = list(what)
        _horizontal(axes, list(what.values()), sides, lambda j, side: found.get((names[j], side)), 0.0)
        axes.margins(x=0.12)
        axes.set_xlabel("MiB above the process before the step")

    height = 0.9 + 0.25 * len(what) * max(3, len(sides))
    return Picture("memory", "Peak memory of a training step", about, [Panel("", draw)], 1, (7.1, height), left=2.6)
