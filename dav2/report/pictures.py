"""Pictures of the report: the same photographs through every model, and the pairs that were judged wrongly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dav2 import layout
from dav2.data.store.manifest import MANIFEST, read_manifest
from dav2.data.store.shards import read_frame
from dav2.documents import Pairs, ScoreFile
from dav2.evaluation.stream import limit_side
from dav2.families.family import Model
from dav2.families.loading import load
from dav2.params import Params
from dav2.pictures import coloured
from dav2.predict.shown import jpeg_address
from dav2.scores.da2k import Outcome, Pair, read_pairs

Image = NDArray[np.uint8]
SIDE = 480
"""Longest side of a picture in pixels."""
QUALITY = 82
PHOTOGRAPHS = 4
FAILURES = 8
NEAR, FAR = (255, 255, 255), (20, 20, 20)


@dataclass(slots=True)
class Row:
    """One photograph with what each model makes of it; values are data addresses of JPEG files."""

    title: str
    photograph: str
    depths: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Failure:
    """An image whose pairs were judged wrongly, marked in photograph and prediction."""

    title: str
    kind: str
    wrong: int
    pairs: int
    photograph: str
    depth: str


def address(image: Image) -> str:
    """An image as a data address that a page can hold."""
    return jpeg_address(image, quality=QUALITY)


def nearness_of(model: Model, rgb: Image) -> NDArray[np.float32]:
    """Prediction with larger values nearer, for depth of every kind."""
    return model.infer_maps([rgb])[0].nearness()


def _models(runs: Sequence[str], root: Path) -> dict[str, Model]:
    folders = {run: layout.model(root, run) for run in runs}
    return {run: load(folder, None, "fp32") for run, folder in folders.items() if folder.is_dir()}


def _spread(rows: list[dict[str, object]], count: int) -> list[dict[str, object]]:
    """``count`` rows at equal distances, so that views of one photograph do not fill the page."""
    step = max(1, len(rows) // count)
    return rows[step // 2 :: step][:count]


def _first_of_each_kind(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """The middle image of every scene kind (second part of a DA-2K key)."""
    groups: dict[str, list[dict[str, object]]] = {}
    for row in rows:
        groups.setdefault(str(row["key"]).split("/")[1], []).append(row)
    return [members[len(members) // 2] for _, members in sorted(groups.items())]


def gallery(runs: Sequence[str], params: Params, root: Path) -> list[Row]:
    """Photographs that no student was measured on, then one DA-2K image of each kind, through every model."""
    chosen: list[tuple[str, dict[str, object]]] = []
    for name in params.group("unlabelled"):
        if (root / params.shards(name) / MANIFEST).is_file():
            rows = read_manifest(root / params.shards(name)).to_dict("records")
            chosen += [(name, row) for row in _spread(rows, PHOTOGRAPHS)]
    da2k = params.evaluate.da2k
    if (root / params.shards(da2k) / MANIFEST).is_file():
        rows = read_manifest(root / params.shards(da2k)).to_dict("records")
        chosen += [(da2k, row) for row in _first_of_each_kind(rows)]
    models = _models(runs, root)
    result = []
    for name, row in chosen:
        rgb = read_frame(root / params.shards(name), row).rgb
        depths = {run: address(limit_side(coloured(nearness_of(model, rgb)), SIDE)) for run, model in models.items()}
        scene = str(row["key"]).split("/")[1].replace("_", " ")
        title = f"DA-2K: {scene}" if name == da2k else f"Photograph: {scene}"
        result.append(Row(title, address(limit_side(rgb, SIDE)), depths))
    return result


def failures(run: str, scores: ScoreFile, params: Params, root: Path) -> list[Failure]:
    """The DA-2K images on which ``run`` judged the largest share of pairs wrongly, worst first, kinds mixed."""
    judged = scores.da2k.per_image if scores.da2k is not None else []
    images = [each for each in judged if each.right < len(each.outcomes)]
    images.sort(key=lambda each: (each.right / len(each.outcomes), each.key))
    seen: Counter[str] = Counter()
    turns: dict[str, int] = {}
    for each in images:
        turns[each.key] = seen[each.kind] = seen[each.kind] + 1
    images.sort(key=lambda each: turns[each.key])
    folder = root / params.shards(params.evaluate.da2k)
    models = _models([run], root)
    if not images or run not in models or not (folder / MANIFEST).is_file():
        return []
    rows = {row["key"]: row for row in read_manifest(folder).to_dict("records")}
    return [_failure(each, rows[each.key], folder, models[run]) for each in images[:FAILURES] if each.key in rows]


def _failure(image: Pairs, row: dict[str, object], folder: Path, model: Model) -> Failure:
    frame = read_frame(folder, row)
    height, width = frame.rgb.shape[:2]
    pairs, _ = read_pairs(frame.key, frame.extra.get("pairs", ()), height, width)
    wrong = [p for p, outcome in zip(pairs, image.outcomes, strict=False) if int(outcome) != Outcome.RIGHT]
    pictures = (frame.rgb, coloured(nearness_of(model, frame.rgb)))
    marked = [marked_pairs(picture, wrong) for picture in pictures]
    return Failure(
        title=frame.key.rsplit("/", 1)[-1],
        kind=image.kind.replace("_", " "),
        wrong=len(wrong),
        pairs=len(image.outcomes),
        photograph=address(marked[0]),
        depth=address(marked[1]),
    )


def marked_pairs(picture: Image, pairs: Sequence[Pair]) -> Image:
    """The picture at report size with each pair as a line from a white disc (nearer) to a black one (farther)."""
    scale = min(1.0, SIDE / max(picture.shape[:2]))
    small = np.ascontiguousarray(limit_side(picture, SIDE))
    for pair in pairs:
        near, far = (pair.point1, pair.point2) if pair.closer == 1 else (pair.point2, pair.point1)
        ends = [(round((column + 0.5) * scale), round((row + 0.5) * scale)) for row, column in (near, far)]
        cv2.line(small, ends[0], ends[1], NEAR, 2, cv2.LINE_AA)
        for end, colour, rim in ((ends[0], NEAR, FAR), (ends[1], FAR, NEAR)):
            cv2.circle(small, end, 7, rim, -1, cv2.LINE_AA)
            cv2.circle(small, end, 5, colour, -1, cv2.LINE_AA)
    return small
