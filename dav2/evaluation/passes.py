"""Passes of one model over the data sets of a project: DA-2K, its variants, the depth benchmarks."""

from __future__ import annotations

import math
import re
import typing
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dav2.data.frame import Frame
from dav2.data.store.manifest import manifest_digest, read_manifest
from dav2.documents import BenchmarkScores, Da2kScores, FrameScores, Pairs, Share, Unscored
from dav2.evaluation import robustness
from dav2.evaluation.stream import Read, Transform, bottom_centre, predict_rows
from dav2.maps import Maps, Quantity
from dav2.params import Params
from dav2.scores import da2k, scoring
from dav2.scores.depth import NAMES
from dav2.scores.layer_protocols import LayerProtocol, declared, narrowed
from dav2.scores.layers import score_layers, split_channels
from dav2.scores.protocols import Protocol
from dav2.scores.statistics import bootstrap_ratio

Progress = Callable[[int, int], None]
Rule = Protocol | LayerProtocol
Predictions = Callable[..., Iterator[tuple[Read, torch.Tensor | None]]]


class Subject(typing.Protocol):
    """What is judged, as far as a pass asks."""

    @property
    def quantity(self) -> Quantity:
        """What it predicts."""

    @property
    def layers(self) -> tuple[Quantity, ...]:
        """All that it predicts, in the order of its channels."""

    @property
    def is_baseline(self) -> bool:
        """Whether it looks at nothing in the picture."""


class Passes:
    """One model against the data sets of one project.

    Attributes:
        predictions: gives the frames of a manifest with the model's predictions, as
            :func:`dav2.evaluation.stream.predict_rows` does; one that runs no model answers for finished maps.
        others: benchmark → protocols that it is judged by beside its own.
    """

    def __init__(
        self,
        params: Params,
        root: Path,
        predictor: Subject,
        batch: int,
        progress: Progress | None,
        chosen: list[str],
        *,
        others: Mapping[str, Sequence[Protocol]] | None = None,
        predictions: Predictions = predict_rows,
    ) -> None:
        self.params = params
        self.root = root
        self.predictor = predictor
        self.batch = batch
        self.progress = progress
        self.predictions = predictions
        self.others = others or {}
        self.rows: dict[str, list[dict[str, object]]] = {}
        self.depths: robustness.ReferenceDepth | None = None
        # Variants tell relative models apart; a metric model is a fine-tuned student, a baseline sees no detail.
        compared = predictions is predict_rows and not predictor.is_baseline and predictor.quantity.relative
        self.variants = list(params.evaluate.robustness) if compared else []
        self.enlargements = list(params.evaluate.resolutions) if compared else []
        passes = 1 + len(self.variants) + len(self.enlargements)
        sizes = [passes * len(self.read(params.evaluate.da2k))] if "da2k" in chosen else []
        sizes += [len(rows) for each in chosen if each != "da2k" for _, rows in self.groups(each)]
        self.total, self.done = sum(sizes), 0

    def read(self, source: str) -> list[dict[str, Any]]:
        """Rows of the manifest of a data set."""
        if source not in self.rows:
            self.rows[source] = read_manifest(self.shards(source)).to_dict("records")
        return self.rows[source]

    def groups(self, name: str) -> list[tuple[list[Rule], list[dict[str, Any]]]]:
        """Protocols of a benchmark that one pass can serve, its own first, with the frames that any of them takes."""
        spec = self.params.evaluate.benchmarks[name]
        passes: dict[Any, list[Rule]] = defaultdict(list)
        own = declared(spec.protocol)
        if isinstance(own, LayerProtocol):
            own = narrowed(own, self.predictor.layers)
        for protocol in (own, *self.others.get(name, ())):
            passes[protocol.input_crop, protocol.image_side].append(protocol)
        rows = self.read(spec.source)
        return [
            (each, [row for row in rows if any(re.search(one.keys, row["key"]) for one in each)])
            for each in passes.values()
        ]

    def shards(self, source: str) -> Path:
        """Folder of the shards of a data set."""
        return self.root / self.params.shards(source)

    def step(self) -> None:
        """Count one frame as done, and tell it."""
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, self.total)

    def da2k(self, transform: Transform | None = None, enlarge: float = 1.0, details: bool = True) -> Da2kScores:
        """One pass over DA-2K, in the form of the score file; without ``details``, nothing of single images."""
        source = self.params.evaluate.da2k
        results, problems = [], []
        for read, prediction in self.predictions(
            self.shards(source),
            self.read(source),
            self.predictor,
            batch=self.batch,
            transform=transform,
            enlarge=enlarge,
        ):
            self.step()
            if prediction is None or read.frame is None:
                problems.append(da2k.Problem(read.key, read.problem, read.error or ""))
                continue
            nearness = Maps(self.predictor.quantity, prediction).nearness().cpu().numpy()
            result, found = da2k.score_image(read.key, read.frame.extra, nearness, *read.frame.rgb.shape[:2])
            results.append(result)
            problems += found
        results.sort(key=lambda each: each.key)
        problems.sort()
        evaluate = self.params.evaluate
        score = da2k.summarise(results, problems, samples=evaluate.bootstrap, seed=self.params.seed)
        return _da2k_scores(score, problems, manifest_digest(self.shards(source)), details)

    def variant(self, kind: str) -> Da2kScores:
        """DA-2K with every image made worse in one way."""
        if kind == "fog" and self.depths is None:
            source = self.params.evaluate.da2k
            self.depths = robustness.reference_depths(self.shards(source), self.read(source), self.root)
        return self.da2k(robustness.transform(kind, self.params.seed, self.depths), details=False)

    def resolution(self, enlarge: float) -> Da2kScores:
        """DA-2K at a multiple of the native input size."""
        return self.da2k(enlarge=enlarge, details=False)

    def benchmark(self, name: str) -> BenchmarkScores:
        """One zero-shot or metric benchmark, in the form of the score file; ``protocols`` holds it under the others."""
        spec = self.params.evaluate.benchmarks[name]
        found: dict[str, BenchmarkScores] = {}
        for protocols, rows in self.groups(name):
            found |= self.judge(spec.source, protocols, rows)
        result = found.pop(spec.protocol)
        others = {each: entry.model_copy(update={"per_frame": None}) for each, entry in found.items()}
        return result.model_copy(update={"protocols": others})

    def judge(self, source: str, protocols: Sequence[Rule], rows: list[dict[str, Any]]) -> dict[str, BenchmarkScores]:
        """One pass over frames of a data set, judged by every protocol; they share input crop and image side."""
        frames: dict[str, dict[str, dict[str, float]]] = {each.name: {} for each in protocols}
        problems: dict[str, dict[str, list[str]]] = {each.name: defaultdict(list) for each in protocols}
        for read, prediction in self.predictions(
            self.shards(source),
            rows,
            self.predictor,
            batch=self.batch,
            crop=lambda frame: input_crop(frame, protocols[0]),
            image_side=protocols[0].image_side,
        ):
            self.step()
            for protocol in protocols:
                if not re.search(protocol.keys, read.key):
                    continue
                scored = _score(read, prediction, protocol, self.predictor)
                if scored.problem is None:
                    frames[protocol.name][read.key] = scored.metrics
                else:
                    problems[protocol.name][scored.problem].append(read.key)
        taken = {each.name: sum(bool(re.search(each.keys, row["key"])) for row in rows) for each in protocols}
        return {
            each.name: self.summary(each, source, taken[each.name], frames[each.name], dict(problems[each.name]))
            for each in protocols
        }

    def summary(
        self,
        protocol: Rule,
        source: str,
        count: int,
        frames: dict[str, dict[str, float]],
        problems: dict[str, list[str]],
    ) -> BenchmarkScores:
        """Means over frames with intervals; void where the model itself failed on a frame."""
        keys = sorted(frames)
        usual = list(NAMES) if isinstance(protocol, Protocol) else []
        names = list(frames[keys[0]]) if keys else usual
        table = {name: [frames[key][name] for key in keys] for name in names}
        void = bool(scoring.MODEL_FAULTS & problems.keys())
        metrics: dict[str, float | None] = {}
        intervals: dict[str, tuple[float | None, float | None]] = {}
        for name, values in table.items():
            known = [value for value in values if not math.isnan(value)]
            interval = bootstrap_ratio(
                known, np.ones(len(known)), samples=self.params.evaluate.bootstrap, seed=self.params.seed
            )
            metrics[name] = None if void else interval.value
            intervals[name] = (interval.low, interval.high)
        return BenchmarkScores(
            source=source,
            data=manifest_digest(self.shards(source)),
            protocol=protocol.name,
            protocol_hash=protocol.digest(),
            describes=protocol.describe(),
            metrics=metrics,
            intervals={} if void else intervals,
            frames=count,
            scored=len(keys),
            expected=protocol.frames,
            problems=problems,
            per_frame=FrameScores.model_validate({"keys": keys, **table}),
        )


def input_crop(frame: Frame, protocol: Rule) -> Frame:
    """The bottom-centre cut of KITTI's depth benchmark; a smaller image stays whole."""
    if protocol.input_crop is None:
        return frame
    height, width = frame.rgb.shape[:2]
    rows, columns = protocol.input_crop
    if height < rows or width < columns:
        return frame
    cut = bottom_centre(height, width, rows, columns)
    depth = None if frame.depth is None else frame.depth[cut]
    return replace(frame, rgb=np.ascontiguousarray(frame.rgb[cut]), depth=depth, intrinsics=None, jpeg=None)


def _score(read: Read, prediction: torch.Tensor | None, protocol: Rule, subject: Subject) -> scoring.Scored:
    if read.frame is None or prediction is None:
        return scoring.Scored({}, read.problem)
    if isinstance(protocol, LayerProtocol):
        channels = {q: np.atleast_3d(values).transpose(2, 0, 1) for q, values in read.frame.layers.items()}
        truth = {q: torch.from_numpy(np.ascontiguousarray(v)).to(prediction.device) for q, v in channels.items()}
        return score_layers(split_channels(subject.layers, prediction), truth, protocol)
    if read.frame.depth is None:
        return scoring.Scored({}, scoring.NO_TRUTH)
    target = torch.from_numpy(np.ascontiguousarray(read.frame.depth)).to(prediction.device)
    return scoring.score_frame(Maps(subject.quantity, prediction), target, protocol, metric_truth=read.frame.metric)


def _da2k_scores(score: da2k.Score, problems: list[da2k.Problem], data: str, details: bool) -> Da2kScores:
    found = Da2kScores(
        accuracy=score.accuracy,
        low=score.low,
        high=score.high,
        pairs=score.pairs,
        images=score.images,
        kinds={kind: Share.model_validate(share) for kind, share in score.kinds.items()},
    )
    if not details:
        return found
    per_image = [
        Pairs(key=each.key, kind=each.kind, outcomes="".join(map(str, each.outcomes.tolist())))
        for each in score.results
    ]
    more = {
        "data": data,
        "outcomes": score.outcomes,
        "ties": score.outcomes["tie"],
        "problems": score.problems,
        "problem_list": [Unscored(**problem._asdict()) for problem in problems],
        "per_image": per_image,
    }
    return found.model_copy(update=more)
