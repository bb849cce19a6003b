"""The picture of a study: curves over its axis, or a bar per arm; a panel per data set and learner."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import cycle, product
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

from quintil.report.render import COLOURS, MUTED, Panel, Picture, draw

from .results import HEADLINE, ArmResult, groups
from .study import Study

_FORMULA = "accuracy over all classes after the last task, linear head, %; mean and one standard deviation over seeds"


def draw_study(study: Study, found: Sequence[ArmResult], stem: Path) -> Path:
    """Write <stem>.png and <stem>.svg; returns the PNG. Bytes depend on the numbers alone."""
    panels = [Panel(title, partial(_curves if study.axis else _points, study, arms)) for title, arms in groups(found)]
    if study.energy:
        panels += [Panel(f"{title}, energy", partial(_energies, arms)) for title, arms in groups(found)]
    longest = max(len(arm.label) for arm in found)
    if study.axis:
        size, left = (5.6, 3.8), 0.7
    else:
        count = max(len(arms) for _, arms in groups(found))
        left = 0.35 + 0.075 * longest
        size = (3.2 + left, 0.9 + 0.27 * count)
    picture = Picture("study", study.title, _FORMULA, panels, 2, size, left=left, heat=True)
    draw(picture, stem)
    return stem.with_name(f"{stem.name}.png")


def _energies(arms: Sequence[ArmResult], axes: Axes) -> None:
    """Accuracy against the energy of a run, a curve per line, float32 as a point."""
    counted = [arm for arm in arms if arm.joules is not None]
    for number, (line, colour) in enumerate(zip(dict.fromkeys(arm.line for arm in counted if arm.line), COLOURS)):
        own = [arm for arm in counted if arm.line == line]
        x, y = [arm.joules[0] for arm in own], [arm.estimate(HEADLINE).mean for arm in own]
        axes.plot(x, y, marker="o", markersize=4, linewidth=1.2, color=colour)
        ends = ((0, (-4, -10)), (-1, (4, -10 if number % 2 else 4)))  # what lies between stands in the other panel
        for i, beside in ends:
            axes.annotate(
                own[i].x, (x[i], y[i]), xytext=beside, textcoords="offset points", fontsize=7.5, color=colour,
                ha="right" if i == 0 else "left",
            )  # fmt: skip
    middle = math.sqrt(math.prod(f(arm.joules[0] for arm in counted) for f in (min, max))) if counted else 0.0
    alone = sorted((arm for arm in counted if not arm.line), key=lambda arm: arm.estimate(HEADLINE).mean)
    accuracies = [arm.estimate(HEADLINE).mean for arm in counted]
    apart, lift, below = 0.06 * (max(accuracies, default=0) - min(accuracies, default=0)), 0.0, -math.inf
    for arm in alone:  # its name on the side where there is room, above that of a point that lies close
        place, left = (arm.joules[0], arm.estimate(HEADLINE).mean), arm.joules[0] > middle
        lift = lift + 9 if place[1] - below < apart else 0.0
        below = place[1]
        axes.plot(*place, "s", color=MUTED, markersize=5)
        axes.annotate(
            arm.label, place, xytext=(-6 if left else 6, lift - 2.5), textcoords="offset points",
            ha="right" if left else "left", fontsize=7.5, color=MUTED,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.12, y=0.15)
    axes.set_xlabel("joules of a run's training steps, counted")
    axes.set_ylabel("last accuracy (%)")


def _points(study: Study, arms: Sequence[ArmResult], axes: Axes) -> None:
    """A line per arm, from the top in the order of the table, and the reference as a vertical line."""
    for place, arm in enumerate(arms):
        found = arm.estimate(HEADLINE)
        colour = MUTED if arm.label == study.reference else COLOURS[0]
        axes.errorbar(found.mean, place, xerr=found.std or 0.0, fmt="o", color=colour, markersize=4.5, capsize=2.5)
        for value in arm.numbers[HEADLINE].values():
            axes.plot(value, place, ".", color=colour, alpha=0.35, markersize=4)
        if arm.label == study.reference:
            axes.axvline(found.mean, color=MUTED, linewidth=0.9, linestyle="--")
    axes.set_yticks(range(len(arms)), [arm.label for arm in arms])
    axes.set_ylim(len(arms) - 0.5, -0.5)
    axes.set_xlabel("last accuracy (%)")


def by_number(place: str) -> float:
    """What a place of an axis is sorted by; words such as 'none' come last, in their order."""
    try:
        return float(place.split("/")[0])
    except ValueError:
        return math.inf


def _curves(study: Study, arms: Sequence[ArmResult], axes: Axes) -> None:
    """A curve per line over the places of the axis; arms beside it are horizontal lines."""
    places = sorted(dict.fromkeys(arm.x for arm in arms if arm.x is not None), key=by_number)
    lines = list(dict.fromkeys(arm.line for arm in arms if arm.x is not None))
    for line, colour in zip(lines, COLOURS):
        own = [(places.index(arm.x), arm.estimate(HEADLINE)) for arm in arms if arm.line == line and arm.x is not None]
        x, y = [place for place, _ in own], [found.mean for _, found in own]
        axes.errorbar(
            x, y, yerr=[found.std or 0.0 for _, found in own], color=colour, marker="o", markersize=4, linewidth=1.6,
            capsize=2.5, elinewidth=0.8,
        )  # fmt: skip
        axes.plot([], [], color=colour, marker="o", markersize=4, linewidth=1.6, label=line)
    beside = [arm for arm in arms if arm.x is None and arm.label != study.reference]
    looks = cycle(product(("-.", ":"), COLOURS[len(lines) :] or COLOURS))
    for arm, (dashes, colour) in zip(beside, looks):
        axes.axhline(arm.estimate(HEADLINE).mean, color=colour, linewidth=1.2, linestyle=dashes, label=arm.label)
    for arm in arms:
        if arm.label == study.reference:
            axes.axhline(arm.estimate(HEADLINE).mean, color=MUTED, linewidth=1.0, linestyle="--", label=arm.label)
    axes.set_xticks(range(len(places)), places)
    axes.margins(x=0.06)
    axes.set_xlabel(study.axis)
    axes.set_ylabel("last accuracy (%)")
