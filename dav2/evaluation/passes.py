"""Passes of one model over the data sets of a project: DA-2K, its variants, the depth benchmarks."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dav2.data.frame import Frame
from dav2.data.store.manifest import manifest_digest, read_manifest
from dav2.evaluation import robustness
from dav2.evaluation.predictors import Judged
from dav2.evaluation.stream import Transform, predict_rows
from dav2.maps import Maps, Quantity
from dav2.params import BenchmarkParams, Params
from dav2.scores import da2k, scoring
from dav2.scores.depth import NAMES
from dav2.scores.protocols import Protocol, get_protocol
from dav2.scores.statistics import bootstrap_ratio

Progress = Callable[[int, int], None]


class Passes:
    """One model against the data sets of one project."""

    def __init__(
        self, params: Params, root: Path, predictor: Judged, batch: int, progress: Progress | None, chosen: list[str]
    ) -> None:
        self.params = params
        self.root = root
        self.predictor = predictor
        self.batch = batch
        self.progress = progress
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self.depths: robustness.ReferenceDepth | None = None
        # Variants tell relative models apart; a metric model is a fine-tuned student, a baseline sees no detail.
        compared = not predictor.is_baseline and predictor.quantity.relative
        self.variants = list(params.evaluate.robustness) if compared else []
        self.enlargements = list(params.evaluate.resolutions) if compared else []
        passes = 1 + len(self.variants) + len(self.enlargements)
        sizes = [passes * len(self.read(params.evaluate.da2k))] if "da2k" in chosen else []
        sizes += [len(self.frames(params.evaluate.benchmarks[each])) for each in chosen if each != "da2k"]
        self.total, self.done = sum(sizes), 0

    def read(self, source: str) -> list[dict[str, Any]]:
        """Rows of the manifest of a data set."""
        if source not in self.rows:
            self.rows[source] = read_manifest(self.shards(source)).to_dict("records")
        return self.rows[source]

    def frames(self, spec: BenchmarkParams) -> list[dict[str, Any]]:
        """Rows of the frames that the benchmark's protocol takes."""
        pattern = get_protocol(spec.protocol).keys
        return [row for row in self.read(spec.source) if re.search(pattern, row["key"])]

    def shards(self, source: str) -> Path:
        """Folder of the shards of a data set."""
        return self.root / self.params.shards(source)

    def step(self) -> None:
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, self.total)

    def da2k(self, transform: Transform | None = None, enlarge: float = 1.0, details: bool = True) -> dict[str, Any]:
        """One pass over DA-2K, in the form of the score file."""
        source = self.params.evaluate.da2k
        results, problems = [], []
        for read, prediction in predict_rows(
            self.shards(source),
            self.read(source),
            self.predictor,
            batch=self.batch,
            transform=transform,
            enlarge=enlarge,
        ):
            self.step()
            if prediction is None or read.frame is None:
                problems.append(da2k.Problem(read.key, scoring.UNREADABLE, read.error or ""))
                continue
            nearness = Maps(self.predictor.quantity, prediction).nearness().cpu().numpy()
            result, found = da2k.score_image(read.key, read.frame.extra, nearness, *read.frame.rgb.shape[:2])
            results.append(result)
            problems += found
        results.sort(key=lambda each: each.key)
        problems.sort()
        evaluate = self.params.evaluate
        score = da2k.summarise(results, problems, samples=evaluate.bootstrap, seed=self.params.seed)
        return _da2k_json(score, problems, manifest_digest(self.shards(source)), details)

    def variant(self, kind: str) -> dict[str, Any]:
        """DA-2K with every image made worse in one way."""
        if kind == "fog" and self.depths is None:
            source = self.params.evaluate.da2k
            self.depths = robustness.reference_depths(self.shards(source), self.read(source), self.root)
        return self.da2k(robustness.transform(kind, self.params.seed, self.depths), details=False)

    def resolution(self, enlarge: float) -> dict[str, Any]:
        """DA-2K at a multiple of the native input size."""
        return self.da2k(enlarge=enlarge, details=False)

    def benchmark(self, spec: BenchmarkParams) -> dict[str, Any]:
        """One zero-shot or metric benchmark, in the form of the score file."""
        protocol = get_protocol(spec.protocol)
        rows = self.frames(spec)
        frames: dict[str, dict[str, float]] = {}
        problems: dict[str, list[str]] = defaultdict(list)
        for read, prediction in predict_rows(
            self.shards(spec.source),
            rows,
            self.predictor,
            batch=self.batch,
            crop=lambda frame: input_crop(frame, protocol),
            image_side=protocol.image_side,
        ):
            self.step()
            scored = _score(read.frame, prediction, protocol, self.predictor.quantity)
            if scored.problem is None:
                frames[read.key] = scored.metrics
            else:
                problems[scored.problem].append(read.key)
        return self.summary(protocol, spec.source, len(rows), frames, dict(problems))

    def summary(
        self,
        protocol: Protocol,
        source: str,
        count: int,
        frames: dict[str, dict[str, float]],
        problems: dict[str, list[str]],
    ) -> dict[str, Any]:
        """Means over frames with intervals; void where the model itself failed on a frame."""
        keys = sorted(frames)
        names = list(frames[keys[0]]) if keys else list(NAMES)
        table = {name: [frames[key][name] for key in keys] for name in names}
        void = bool(scoring.MODEL_FAULTS & problems.keys())
        metrics: dict[str, float | None] = {}
        intervals: dict[str, list[float]] = {}
        for name, values in table.items():
            known = [value for value in values if not math.isnan(value)]
            interval = bootstrap_ratio(
                known, np.ones(len(known)), samples=self.params.evaluate.bootstrap, seed=self.params.seed
            )
            metrics[name] = None if void else interval.value
            intervals[name] = [interval.low, interval.high]
        return {
            "source": source,
            "data": manifest_digest(self.shards(source)),
            "protocol": protocol.name,
            "protocol_hash": protocol.digest(),
            "describes": protocol.describe(),
            "metrics": metrics,
            "intervals": {} if void else intervals,
            "frames": count,
            "scored": len(keys),
            "expected": protocol.frames,
            "problems": problems,
            "per_frame": {"keys": keys, **table},
        }


def input_crop(frame: Frame, protocol: Protocol) -> Frame:
    """The bottom-centre cut of KITTI's depth benchmark; a smaller image stays whole."""
    if protocol.input_crop is None:
        return frame
    height, width = frame.rgb.shape[:2]
    rows, columns = protocol.input_crop
    if height < rows or width < columns:
        return frame
    top, left = height - rows, (width - columns) // 2
    cut = (slice(top, height), slice(left, left + columns))
    depth = None if frame.depth is None else frame.depth[cut]
    return replace(frame, rgb=np.ascontiguousarray(frame.rgb[cut]), depth=depth, intrinsics=None, jpeg=None)


def _score(
    frame: Frame | None, prediction: torch.Tensor | None, protocol: Protocol, quantity: Quantity
) -> scoring.Scored:
    if frame is None or prediction is None:
        return scoring.Scored({}, scoring.UNREADABLE)
    if frame.depth is None:
        return scoring.Scored({}, scoring.NO_TRUTH)
    target = torch.from_numpy(np.ascontiguousarray(frame.depth)).to(prediction.device)
    return scoring.score_frame(Maps(quantity, prediction), target, protocol, metric_truth=frame.metric)


def _da2k_json(score: da2k.Score, problems: list[da2k.Problem], data: str, details: bool) -> dict[str, Any]:
    result: dict[str, Any] = {
        "accuracy": score.accuracy,
        "low": score.low,
        "high": score.high,
        "pairs": score.pairs,
        "images": score.images,
        "kinds": score.kinds,
    }
    if details:
        result |= {
            "data": data,
            "outcomes": score.outcomes,
            "ties": score.outcomes["tie"],
            "problems": score.problems,
            "problem_list": [problem._asdict() for problem in problems],
            "per_image": [
                {"key": each.key, "kind": each.kind, "outcomes": "".join(map(str, each.outcomes.tolist()))}
                for each in score.results
            ],
        }
    return result
