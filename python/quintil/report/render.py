"""Pictures as files and as parts of a page: PNG, SVG, and one SVG per panel that takes its colours from the page.

The bytes depend on the content alone: no dates, and identifiers are hashed with a fixed salt.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, MUTED, GRID = "#1a1a1b", "#5c5c61", "#e3e3e7"
COLOURS = ("#1f5fa8", "#d1661c", "#2f8f5b", "#8d4bab", "#7a6a58", "#c2356b", "#1a9a9a", "#9a8a12")
# Names of the same colours on the page, where a dark scheme replaces them.
VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid", **{c: f"--c{n}" for n, c in enumerate(COLOURS)}}
_STYLE = {
    "font.size": 9.5,
    "text.color": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "svg.hashsalt": "quintil",
}
_DPI = 150
# Inches. A fixed layout: finding one by measuring all texts takes longer than drawing.
_TITLE, _BELOW, _LINE, _GAP = 0.28, 0.52, 0.19, 0.1


@dataclass(frozen=True)
class Panel:
    """One pair of axes: its title and what draws into it."""

    title: str
    draw: Callable[[Axes], None]


@dataclass(frozen=True)
class Picture:
    """Panels of one kind beside and below each other. `name` ends the file's name; `formula` says what is drawn."""

    name: str
    title: str
    formula: str
    panels: Sequence[Panel]
    columns: int
    size: tuple[float, float] = (4.6, 3.3)  # of one panel, inches
    left: float = 0.66  # inches for what stands beside the axes of a panel
    right: float = 0.14
    heat: bool = False  # axes of their own, of tables of colours or of curves in ranges far apart, not common ones


@dataclass(frozen=True)
class Key:
    """One entry of a legend, for the page."""

    label: str
    colour: str
    dashes: str


@dataclass(frozen=True)
class Drawn:
    """A picture as parts of a page: an SVG per panel and the legend they share."""

    picture: Picture
    svgs: list[str]
    keys: list[Key]


def draw(picture: Picture, stem: Path) -> Drawn:
    """Write <stem>.png and <stem>.svg with all panels and return the parts for a page."""
    with matplotlib.rc_context(_STYLE):
        figure, panels = _together(picture)
        figure.savefig(stem.with_name(stem.name + ".png"), dpi=_DPI, metadata={"Software": None})
        figure.savefig(stem.with_name(stem.name + ".svg"), metadata={"Date": None, "Creator": None})
        limits = [panel.get_ylim() for panel in panels]
        keys = [Key(label, h.get_color(), str(h.get_linestyle())) for label, h in _handles(panels).items()]
        svgs = [_alone(picture, panel, limit) for panel, limit in zip(picture.panels, limits)]
    return Drawn(picture, svgs, keys)


def _together(picture: Picture) -> tuple[Figure, list[Axes]]:
    """All panels in a grid, what they mean above, their common legend below."""
    columns = min(picture.columns, len(picture.panels))
    rows = -(-len(picture.panels) // columns)
    width, height = picture.size[0] * columns, picture.size[1] * rows
    about = _wrap(f"{picture.title}\n{picture.formula}" if picture.formula else picture.title, width)
    above = _LINE * (about.count("\n") + 1) + 2 * _GAP
    figure = Figure(facecolor="white")
    FigureCanvasAgg(figure)
    panels: list[Axes] = []
    for number, panel in enumerate(picture.panels):
        axes = figure.add_subplot(rows, columns, number + 1, sharey=panels[0] if panels and not picture.heat else None)
        panels.append(axes)
        panel.draw(axes)
        axes.set_title(panel.title)
        if not picture.heat and number % columns:
            axes.set_ylabel("")
            axes.tick_params(labelleft=False)
    handles = _handles(panels)
    fitting = int(width * 12.5 / (max(map(len, handles)) + 7)) if handles else 1
    ncols = max(1, min(fitting, len(handles)))
    below = (-(-len(handles) // ncols) * _LINE + _GAP) if handles else 0.0
    whole = height + above + below
    figure.set_size_inches(width, whole)
    title = _TITLE if any(panel.title for panel in picture.panels) else 0.08
    for number, axes in enumerate(panels):
        row, column = divmod(number, columns)
        left, top = column * picture.size[0] + picture.left, above + row * picture.size[1] + title
        inner = picture.size[0] - picture.left - picture.right, picture.size[1] - title - _BELOW
        axes.set_position((left / width, 1 - (top + inner[1]) / whole, inner[0] / width, inner[1] / whole))
    figure.text(0.5, 1 - _GAP / whole, about, ha="center", va="top", fontsize=9.5, color=MUTED)
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="lower center", ncols=ncols, borderaxespad=0.3)
    return figure, panels


def _handles(panels: Sequence[Axes]) -> dict:
    """Label -> line of all panels, first of each label."""
    found: dict = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels()):
            found.setdefault(label, handle)
    return found


def _wrap(text: str, inches: float) -> str:
    """Break lines that are wider than the figure, at spaces."""
    width, lines = int(inches * 13.5), []
    for line in text.split("\n"):
        row = ""
        for word in line.split(" "):
            if row and len(row) + len(word) >= width:
                lines.append(row)
                row = word
            else:
                row = f"{row} {word}" if row else word
        lines.append(row)
    return "\n".join(lines)


def _alone(picture: Picture, panel: Panel, limit: tuple[float, float]) -> str:
    """SVG text of one panel without a background, for a page; text stays text and uses the page's fonts."""
    width, height = picture.size
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        figure = Figure(figsize=picture.size, facecolor="none")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        top = _TITLE if panel.title else 0.08
        figure.subplots_adjust(picture.left / width, _BELOW / height, 1 - picture.right / width, 1 - top / height)
        panel.draw(axes)
        axes.set_title(panel.title)
        axes.set_ylim(limit)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return _for_page(buffer.getvalue(), f"{picture.title}, {panel.title}")


def _for_page(svg: str, title: str) -> str:
    """Only the <svg> element, as wide as its place, with named colours and no names that other panels also have."""
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>\s*", "", svg, flags=re.DOTALL)
    head, rest = svg.split(">", 1)
    view = re.search(r'viewBox="[^"]*"', head).group(0)
    name = title.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    head = f'<svg {view} role="img" aria-label="{name}" xmlns:xlink="http://www.w3.org/1999/xlink"'
    rest = re.sub(r'<g id="[^"]*"', "<g", rest)
    rest = re.sub(r"<!--.*?-->\s*", "", rest, flags=re.DOTALL)
    rest = re.sub(r"font: ([^']*?px) [^;\"]*", r"font: \1 var(--font)", rest)
    for colour, variable in VARIABLES.items():
        rest = rest.replace(colour, f"var({variable})")
    return f"{head}>{rest}"
