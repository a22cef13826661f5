"""Charts as inline SVG: no library in the page, text that can be selected, colours that follow light and dark.

Sizes are in SVG units and scale with the page. Colours come from the page's CSS variables through classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH = 560
LABEL = 172
ROW = 30


@dataclass(frozen=True, slots=True)
class Dot:
    """A value with its interval, both in [0, 1]; ``muted`` for baselines."""

    label: str
    value: float
    low: float | None
    high: float | None
    muted: bool = False


def _svg(width: float, height: float, title: str, body: Sequence[str], css: str = "chart") -> Markup:
    inner = "".join(body)
    box = f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
    # Every text in the body went through escape.
    return Markup(f'<svg {box} role="img" aria-label="{escape(title)}" class="{css}">{inner}</svg>')


def _text(x: float, y: float, text: str, css: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{css}" text-anchor="{anchor}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{css}"/>'


def dots(rows: Sequence[Dot], title: str) -> Markup:
    """One row per model: a dot at its accuracy, a bar over its interval, the number beside it."""
    right = WIDTH - 64
    span = right - LABEL
    height = ROW * len(rows) + 30
    body = []
    for percent in range(0, 101, 20):
        x = LABEL + span * percent / 100
        body.append(_line(x, 4, x, height - 24, "grid"))
        body.append(_text(x, height - 8, f"{percent} %", "tick", "middle"))
    for number, row in enumerate(rows):
        y = 4 + ROW * (number + 0.5)
        css = "muted" if row.muted else "accent"
        body.append(_text(LABEL - 12, y + 4, row.label, "label", "end"))
        value = LABEL + span * row.value
        if row.low is not None and row.high is not None:
            body.append(_line(LABEL + span * row.low, y, LABEL + span * row.high, y, f"whisker {css}"))
        body.append(f'<circle cx="{value:.1f}" cy="{y:.1f}" r="5.5" class="dot {css}"/>')
        body.append(_text(WIDTH - 4, y + 4, f"{100 * row.value:.1f}", "value", "end"))
    return _svg(WIDTH, height, title, body)


MARKS = ("first", "second", "third", "fourth", "fifth", "sixth")


def kinds(table: Mapping[str, Mapping[str, float]], models: Sequence[str], baseline: str | None, title: str) -> Markup:
    """Accuracy per scene kind: one row per kind, one mark per model, a tick for the best baseline.

    Args:
        table: model → kind → accuracy in [0, 1].
        models: drawn as dots, in this order; at most six.
        baseline: drawn as a tick.
        title: what a screen reader says.
    """
    names = sorted({kind for model in models for kind in table[model]})
    right = WIDTH - 20
    span = right - LABEL
    height = ROW * len(names) + 30
    body = []
    for percent in range(0, 101, 20):
        x = LABEL + span * percent / 100
        body.append(_line(x, 4, x, height - 24, "grid"))
        body.append(_text(x, height - 8, f"{percent} %", "tick", "middle"))
    for number, kind in enumerate(names):
        y = 4 + ROW * (number + 0.5)
        body.append(_text(LABEL - 12, y + 4, kind.replace("_", " "), "label", "end"))
        values = [LABEL + span * table[model][kind] for model in models if kind in table[model]]
        if len(values) > 1:
            body.append(_line(min(values), y, max(values), y, "range"))
        if baseline and kind in table.get(baseline, {}):
            x = LABEL + span * table[baseline][kind]
            body.append(_line(x, y - 9, x, y + 9, "baseline"))
        for model, css in reversed(list(zip(models, MARKS, strict=False))):
            if kind in table[model]:
                x = LABEL + span * table[model][kind]
                name = f"{model}: {100 * table[model][kind]:.1f} %"
                body.append(
                    f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" class="mark {css}"><title>{escape(name)}</title></circle>'
                )
    return _svg(WIDTH, height, title, body)


def _ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers that cover [low, high] in about ``count`` steps of 1, 2 or 5 times a power of ten."""
    span = (high - low) or abs(high) or 1.0
    power = 10 ** math.floor(math.log10(span / count))
    step = next(power * each for each in (1, 2, 5, 10) if span / (power * each) <= count + 0.5)
    first = math.ceil(low / step - 1e-9) * step
    return [first + step * i for i in range(int((high - first) / step + 1e-9) + 1)]


def _labelled(ticks: Sequence[float]) -> list[tuple[float, str]]:
    """Ticks with as many decimals as tell them apart."""
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
    decimals = max(0, math.ceil(-math.log10(step) - 1e-9))
    return [(tick, f"{tick:.{decimals}f}") for tick in ticks]


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
    width, height, left, bottom, top = 330, 190, 46, 34, 22
    finite = [(x, y) for x, y in points if math.isfinite(y)]
    if not finite:
        return _svg(width, height, title, [_text(12, 24, f"{title}: no values", "label")])
    ordered = sorted(y for _, y in finite)
    # A first value far above the rest would flatten everything that follows: the top is the 98th percentile.
    high = ordered[min(len(ordered) - 1, math.ceil(0.98 * len(ordered)) - 1 + (len(ordered) < 50))]
    low = ordered[0]
    pad = 0.06 * ((high - low) or abs(high) or 1.0)
    low, high = low - pad, high + pad
    x0, x1 = finite[0][0], max(finite[-1][0], finite[0][0] + 1)

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            left + (width - left - 10) * (x - x0) / (x1 - x0),
            height - bottom - (height - bottom - top) * (min(y, high) - low) / (high - low),
        )

    body = [_text(left, 12, f"{title} · {y_label}", "label")]
    scale, unit = (100, " %") if percent else (1, "")
    for tick, label in _labelled(_ticks(scale * low, scale * high)):
        _, y = place(x0, tick / scale)
        body.append(_line(left, y, width - 10, y, "grid"))
        body.append(_text(left - 6, y + 4, label + unit, "tick", "end"))
    for tick in _ticks(x0, x1):
        # There are no half steps.
        if abs(tick - round(tick)) < 1e-6:
            x, _ = place(tick, low)
            body.append(_text(x, height - 16, f"{tick:.0f}", "tick", "middle"))
    body.append(_text(width - 10, height - 3, x_label, "tick", "end"))
    for series, css in ((finite, "raw" if smooth > 1 else "smooth"), (smoothed(finite, smooth), "smooth")):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in series))
        body.append(f'<polyline points="{path}" class="{css}"/>')
        if smooth == 1:
            break
    if markers:
        body += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" class="dot accent"/>' for x, y in (place(*p) for p in finite)
        ]
    return _svg(width, height, title, body)


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
    rows = max(sum(node.column == column for node in nodes) for column in columns)
    height = rows * (tall + gap_y) + gap_y
    places: dict[str, tuple[float, float]] = {}
    for index, column in enumerate(columns):
        members = [node for node in nodes if node.column == column]
        start = (height - len(members) * (tall + gap_y) + gap_y) / 2
        for row, node in enumerate(members):
            places[node.name] = (index * (wide + gap_x) + 2, start + row * (tall + gap_y))
    body = []
    for node in nodes:
        x, y = places[node.name]
        for parent in node.parents:
            if parent in places:
                px, py = places[parent]
                a, b, middle = px + wide, py + tall / 2, (px + wide + x) / 2
                y_end = y + tall / 2
                path = f"M{a:.1f},{b:.1f} C{middle:.1f},{b:.1f} {middle:.1f},{y_end:.1f} {x:.1f},{y_end:.1f}"
                body.append(f'<path d="{path}" class="edge"/>')
    for node in nodes:
        x, y = places[node.name]
        body.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{wide}" height="{tall}" rx="6" class="node"/>')
        body.append(_text(x + 10, y + 18, node.name, "node-name"))
        body.append(_text(x + 10, y + 34, node.detail, "node-detail"))
    return _svg(len(columns) * (wide + gap_x) - gap_x + 4, height, title, body, "chart graph")
