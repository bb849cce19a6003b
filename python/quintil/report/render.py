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
    heat: bool = False  # tables of colours with their own bars and axes, instead of curves on common axes


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
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # the layout is found: once for both files
        figure.savefig(stem.with_name(stem.name + ".png"), dpi=_DPI, metadata={"Software": None})
        figure.savefig(stem.with_name(stem.name + ".svg"), metadata={"Date": None, "Creator": None})
        left = panels[0].get_position().x0 * figure.get_figwidth()
        limits = [panel.get_ylim() for panel in panels]
        keys = [Key(label, h.get_color(), str(h.get_linestyle())) for label, h in _handles(panels).items()]
        svgs = [_alone(picture, panel, limit, left) for panel, limit in zip(picture.panels, limits)]
    return Drawn(picture, svgs, keys)


def _together(picture: Picture) -> tuple[Figure, list[Axes]]:
    columns = min(picture.columns, len(picture.panels))
    rows = -(-len(picture.panels) // columns)
    width, height = picture.size
    figure = Figure(figsize=(width * columns, height * rows + 0.7), layout="constrained", facecolor="white")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.06)
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, sharey=not picture.heat, squeeze=False).flatten().tolist()
    for axes in grid[len(picture.panels) :]:
        axes.set_visible(False)
    panels = grid[: len(picture.panels)]
    for number, (axes, panel) in enumerate(zip(panels, picture.panels)):
        panel.draw(axes)
        axes.set_title(panel.title)
        if not picture.heat and number % columns:
            axes.set_ylabel("")
    lines = f"{picture.title}\n{picture.formula}" if picture.formula else picture.title
    figure.suptitle(_wrap(lines, width * columns), fontsize=9.5, color=MUTED)
    handles = _handles(panels)
    if handles:
        fitting = int(width * columns * 12.5 / (max(map(len, handles)) + 7))
        ncols = max(1, min(fitting, len(handles)))
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=ncols)
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


def _alone(picture: Picture, panel: Panel, limit: tuple[float, float], left: float) -> str:
    """SVG text of one panel without a background, for a page; text stays text and uses the page's fonts.

    left: inches that the labels of the y axis take. Panels with a colour bar are laid out on their own.
    """
    width, height = picture.size
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        figure = Figure(figsize=picture.size, layout="constrained" if picture.heat else None, facecolor="none")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        if not picture.heat:
            top = 0.28 if panel.title else 0.08
            figure.subplots_adjust(left / width, 0.52 / height, 1 - 0.1 / width, 1 - top / height)
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
