"""Charts as inline SVG, drawn by matplotlib: text that can be selected, colours that follow the page's light and dark.

matplotlib is given colours that stand for the page's CSS variables, which take their place in what it writes.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.path import Path
from matplotlib.style import context
from matplotlib.ticker import FuncFormatter, MaxNLocator

ACCENT, SOFT, INK, QUIET, RULE, PAGE, PANEL = (f"#00000{number}" for number in range(1, 8))
VARIABLES = {
    ACCENT: "accent", SOFT: "accent-soft", INK: "ink", QUIET: "quiet", RULE: "rule", PAGE: "page", PANEL: "panel",
}  # fmt: skip
STYLE = {
    "svg.fonttype": "none", "font.size": 9.5, "text.color": INK, "axes.labelcolor": QUIET, "axes.edgecolor": RULE,
    "xtick.color": QUIET, "ytick.color": QUIET, "grid.color": RULE, "grid.linewidth": 0.8, "axes.axisbelow": True,
    "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False, "axes.spines.bottom": False,
    "xtick.major.size": 0, "ytick.major.size": 0, "xtick.labelsize": 8, "ytick.labelsize": 8,
}  # fmt: skip
ROW = 0.3
"""Inches of a row."""


@dataclass(frozen=True, slots=True)
class Dot:
    """A value with its interval, both in [0, 1]; ``muted`` for baselines."""

    label: str
    value: float
    low: float | None
    high: float | None
    muted: bool = False


def _svg(figure: Figure, title: str, css: str = "chart") -> Markup:
    """The figure as an element of the page: no outside request, no rule that reaches beyond it."""
    text = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    drawn = text.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    # Its style sheet would hold for every picture of the page, and the names of its groups stand in each of them.
    drawn = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r'<g id="[^"]*"', "<g", drawn)
    drawn = re.sub(r' xmlns(:xlink)?="[^"]*"', "", drawn).replace("xlink:href", "href")
    drawn = re.sub(r"font-family: [^;\"]*", "font-family: inherit", drawn)
    for colour, variable in VARIABLES.items():
        drawn = drawn.replace(colour, f"var(--{variable})")
    head = f'<svg role="img" aria-label="{escape(title)}" class="{css}" '
    # matplotlib escapes the texts that it is given.
    return Markup(head + drawn.removeprefix("<svg").lstrip())


def _rows(labels: Sequence[str], title: str) -> tuple[Figure, Axes]:
    """Axes with a row for each label, from the top, and 0 to 100 % from left to right."""
    figure = Figure(figsize=(7.4, ROW * len(labels) + 0.35), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_yticks(range(len(labels)), list(map(_plain, labels)), color=INK, fontsize=9.5)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.0f} %"))
    axes.grid(axis="x")
    return figure, axes


def _plain(text: str) -> str:
    """A text as it is: between dollar signs, matplotlib would read a formula."""
    return text.replace("$", r"\$")


def dots(rows: Sequence[Dot], title: str) -> Markup:
    """One row per model: a dot at its accuracy, a bar over its interval, the number beside it."""
    with context(STYLE):
        figure, axes = _rows([row.label for row in rows], title)
        for number, row in enumerate(rows):
            colour = QUIET if row.muted else ACCENT
            if row.low is not None and row.high is not None:
                axes.plot([row.low, row.high], [number] * 2, color=colour, alpha=0.3, lw=6, solid_capstyle="round")
            axes.plot(row.value, number, "o", color=colour, ms=7, mew=0)
            axes.text(1.06, number, f"{100 * row.value:.1f}", weight="bold", ha="right", va="center", fontsize=9.5)
    return _svg(figure, title)


MARKS = {
    "first": (ACCENT, ACCENT), "second": (SOFT, ACCENT), "third": (PAGE, ACCENT), "fourth": (QUIET, QUIET),
    "fifth": (PAGE, QUIET), "sixth": (PAGE, QUIET),
}  # fmt: skip
"""Class of a model's mark in the page's key → its face and its edge."""


def kinds(table: Mapping[str, Mapping[str, float]], models: Sequence[str], baseline: str | None, title: str) -> Markup:
    """Accuracy per scene kind: one row per kind, one mark per model, a tick for the best baseline.

    Args:
        table: model → kind → accuracy in [0, 1].
        models: drawn as dots, in this order; at most six.
        baseline: drawn as a tick.
        title: what a screen reader says.
    """
    names = sorted({kind for model in models for kind in table[model]})
    with context(STYLE):
        figure, axes = _rows([name.replace("_", " ") for name in names], title)
        for number, kind in enumerate(names):
            values = [table[model][kind] for model in models if kind in table[model]]
            axes.plot([min(values), max(values)], [number] * 2, color=RULE, lw=2)
            if baseline and kind in table.get(baseline, {}):
                axes.plot(table[baseline][kind], number, "|", color=QUIET, ms=13, mew=1.6)
            for model, (face, edge) in reversed(list(zip(models, MARKS.values(), strict=False))):
                if kind in table[model]:
                    axes.plot(table[model][kind], number, "o", mfc=face, mec=edge, ms=7.5, mew=1.6)
    return _svg(figure, title)


def smoothed(points: Sequence[tuple[float, float]], width: int) -> list[tuple[float, float]]:
    """Centred moving average over ``width`` points."""
    values = [y for _, y in points]
    result = []
    for i, (x, _) in enumerate(points):
        window = values[max(0, i - width // 2) : i + width // 2 + 1]
        result.append((x, sum(window) / len(window)))
    return result


def curve(
    points: Sequence[tuple[float, float]],
    title: str,
    *,
    x_label: str,
    y_label: str,
    smooth: int = 1,
    markers: bool = False,
    percent: bool = False,
) -> Markup:
    """One line chart: raw values faint, their moving average in the accent colour."""
    finite = [(x, y) for x, y in points if math.isfinite(y)]
    with context(STYLE):
        figure = Figure(figsize=(4.1, 2.4), layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(_plain(f"{title} · {y_label}" if finite else f"{title}: no values"), loc="left", fontsize=9.5)
        axes.set_xlabel(_plain(x_label), loc="right")
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.grid(axis="y")
        if percent:
            axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
        if finite:
            axes.set_ylim(*_limits([y for _, y in finite]))
            if smooth > 1:
                axes.plot(*zip(*finite, strict=True), color=ACCENT, alpha=0.25, lw=1)
            axes.plot(
                *zip(*smoothed(finite, smooth), strict=True),
                color=ACCENT, lw=1.6, marker="o" if markers else None, ms=5, clip_on=not markers,
            )  # fmt: skip
    return _svg(figure, title)


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """A first value far above the rest would flatten everything that follows: the top is the 98th percentile."""
    ordered = sorted(values)
    high = ordered[min(len(ordered) - 1, math.ceil(0.98 * len(ordered)) - 1 + (len(ordered) < 50))]
    low = ordered[0]
    pad = 0.06 * ((high - low) or abs(high) or 1.0)
    return low - pad, high + pad


@dataclass(frozen=True, slots=True)
class Node:
    """A box of the lineage graph: where it stands (column), its name, a second line, whom it comes from."""

    name: str
    column: int
    detail: str
    parents: tuple[str, ...] = ()


def graph(nodes: Sequence[Node], title: str) -> Markup:
    """Boxes in columns from left to right, with a curve from each parent."""
    wide, tall, gap_x, gap_y = 150, 44, 36, 14
    columns = sorted({node.column for node in nodes})
    places: dict[str, tuple[float, float]] = {}
    rows = max(sum(node.column == column for node in nodes) for column in columns)
    width, height = len(columns) * (wide + gap_x) - gap_x + 4, rows * (tall + gap_y) + gap_y
    for index, column in enumerate(columns):
        members = [node for node in nodes if node.column == column]
        start = (height - len(members) * (tall + gap_y) + gap_y) / 2
        for row, node in enumerate(members):
            places[node.name] = (index * (wide + gap_x) + 2, start + row * (tall + gap_y))
    with context(STYLE):
        figure = Figure(figsize=(width / 72, height / 72))
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
        axes.set_axis_off()
        for node in nodes:
            x, y = places[node.name]
            for px, py in (places[parent] for parent in node.parents if parent in places):
                a, b, middle, end = px + wide, py + tall / 2, (px + wide + x) / 2, y + tall / 2
                bend = Path([(a, b), (middle, b), (middle, end), (x, end)], [Path.MOVETO] + [Path.CURVE4] * 3)
                axes.add_patch(PathPatch(bend, fc="none", ec=QUIET, alpha=0.55))
        for node in nodes:
            x, y = places[node.name]
            box = FancyBboxPatch((x, y), wide, tall, boxstyle="round,pad=0,rounding_size=6", fc=PANEL, ec=RULE)
            axes.add_patch(box)
            axes.text(x + 10, y + 18, _plain(node.name), weight="bold", fontsize=9.5)
            axes.text(x + 10, y + 34, _plain(node.detail), color=QUIET, fontsize=8)
    return _svg(figure, title, "chart graph")
