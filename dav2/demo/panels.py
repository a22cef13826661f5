"""What the page shows of a photograph: a panel for each model, one legend for all, points where there are metres."""

from __future__ import annotations

import html
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dav2.demo import cloud
from dav2.demo.colours import Scale, common_scale
from dav2.demo.models import Shown
from dav2.maps import Maps, Quantity
from dav2.pictures import palette
from dav2.predict.answer import Answer
from dav2.predict.shown import jpeg_address

SIDE = 900
"""Longest side in pixels of a picture on the page."""
STOPS = 12
"""Colours of the legend's gradient."""
SAME_DISTANCE = "The same colour is the same distance in every picture."
SAME_PLACE = (
    "The same colour is the same place between far and near: a map less its median, over its mean deviation from that."
)
NO_FOCAL = f"no focal length in the file: {cloud.FIELD_OF_VIEW:g}° across taken"


def page_of(shown: Sequence[Shown]) -> str:
    """HTML of the photograph and every model's map of it: depth in one scale of colours, layers as they look.

    Raises:
        ValueError: no model could take the photograph; the text says why.
    """
    done = [(each, each.answer) for each in shown if each.answer is not None]
    if not done:
        raise ValueError("; ".join(f"{each.name}: {each.problem}" for each in shown))
    depths = [(each.name, Maps(answer.quantity, answer.values)) for each, answer in done if answer.quantity.is_depth]
    scale = common_scale([maps for _, maps in depths]) if depths else None
    coloured = scale.pictures() if scale is not None else []
    pictures = dict(zip((name for name, _ in depths), coloured, strict=True))
    photograph = done[0][1].rgb
    height, width = photograph.shape[:2]
    figures = [_figure(photograph, "photograph", f"{width} × {height} pixels")]
    for each in shown:
        if each.answer is None:
            figures.append(f'<figure><p class="problem">{_words(each.name, each.problem)}</p></figure>')
        elif each.answer.quantity.is_depth:
            figures.append(_figure(pictures[each.name], each.name, _facts(each)))
        else:
            figures += [
                _figure(picture, f"{each.name}, {layer.value}", _cost(each))
                for layer, picture in each.answer.pictures().items()
            ]
    clouds = "".join(_points(each.name, answer) for each, answer in done if answer.quantity is Quantity.METRES)
    rows = "".join(f'<div class="panels">{row}</div>' for row in ("".join(figures), clouds) if row)
    # A layer's colours are what it shows, and mean no distance.
    return f'<div class="dav2">{_legend(scale) if scale is not None else ""}{rows}</div>'


def _words(title: str, text: str) -> str:
    return f"<b>{html.escape(title)}</b> {html.escape(text)}"


def _figure(picture: NDArray[np.uint8], title: str, text: str) -> str:
    image = f'<img alt="{html.escape(title)}" src="{jpeg_address(picture, SIDE)}">'
    return f"<figure>{image}<figcaption>{_words(title, text)}</figcaption></figure>"


def _facts(shown: Shown) -> str:
    """Range, unit, time and size of a model's map."""
    assert shown.answer is not None
    values = shown.answer.values
    low, high = float(values.min()), float(values.max())
    metres = shown.answer.quantity is Quantity.METRES
    unit = "m" if metres else f"({shown.answer.quantity.unit}, no unit)"
    return f"{low:.3g} to {high:.3g} {unit} · {_cost(shown)}"


def _cost(shown: Shown) -> str:
    """Time and size of a model."""
    slower = ", the first one; later ones are faster" if shown.first else ""
    return f"{shown.seconds:.2f} s{slower} · {shown.size}"


def _points(name: str, answer: Answer) -> str:
    focal = answer.focal or cloud.focal_for(answer.rgb.shape)
    lens = f"focal length {focal:.0f} pixels" if answer.focal else NO_FOCAL
    frame = cloud.frame(answer.rgb, answer.values, focal, name)
    words = _words(f"{name}, points in metres", f"drag to turn, scroll to come nearer ({lens})")
    return f"<figure>{frame}<figcaption>{words}</figcaption></figure>"


def _legend(scale: Scale) -> str:
    """The colours from far to near, with metres where the maps have them."""
    table = palette().table[np.linspace(0, 255, STOPS).astype(int)]
    stops = ", ".join(f"rgb({red} {green} {blue})" for red, green, blue in table.tolist())
    ticks = "".join(f"<span>{html.escape(each)}</span>" for each in scale.ticks())
    meaning = SAME_DISTANCE if scale.metric else SAME_PLACE
    return (
        f'<div class="legend"><div class="bar" style="background: linear-gradient(to right, {stops})"></div>'
        f'<div class="ticks">{ticks}</div><p>{meaning}</p></div>'
    )


@cache
def style() -> str:
    """The page's own style sheet."""
    return Path(__file__).with_name("demo.css").read_text(encoding="utf-8")
