"""The score file: what one model reached on every benchmark, down to single images, so that comparisons are paired."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import ConfigDict

from dav2.documents.base import Document, DocumentError, Number, Part


class Share(Part):
    """Share of DA-2K pairs that were ordered rightly, in [0, 1], with its 95 % interval over images.

    Attributes:
        accuracy: ``None`` where no pair was left.
        low, high: ``None`` where one image alone was scored.
    """

    accuracy: Number = None
    low: Number = None
    high: Number = None
    pairs: int = 0
    images: int = 0


class Pairs(Part):
    """Outcomes of the pairs of one image: a digit of :class:`dav2.scores.da2k.Outcome` for each."""

    key: str
    kind: str
    outcomes: str

    @property
    def right(self) -> int:
        """Pairs that were judged rightly."""
        return self.outcomes.count("1")


class Unscored(Part):
    """An annotation or image that could not be scored, and why."""

    key: str
    reason: str
    detail: str = ""


class Da2kScores(Share):
    """DA-2K.

    Attributes:
        kinds: by kind of scene.
        data: digest of the manifest.
        outcomes: how often each outcome came about.
        problems: reason → how many annotations; ``problem_list`` names them.
        per_image: empty for variants of the images.
    """

    kinds: dict[str, Share] = {}
    data: str = ""
    outcomes: dict[str, int] = {}
    ties: int = 0
    problems: dict[str, int] = {}
    problem_list: list[Unscored] = []
    per_image: list[Pairs] = []


class FrameScores(Part):
    """Metrics of single frames: for each metric, beside ``keys``, a list in their order."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, list[Number]]

    keys: list[str]

    def of(self, metric: str) -> dict[str, float]:
        """Key → value, of the frames for which it is known."""
        values = (self.__pydantic_extra__ or {}).get(metric, [])
        return {key: value for key, value in zip(self.keys, values, strict=False) if value is not None}


class BenchmarkScores(Part):
    """One depth benchmark under one protocol.

    Attributes:
        source, data: data set and digest of its manifest.
        protocol, protocol_hash, describes: name, digest and sentence of the rule.
        metrics: means over frames; ``None`` where the score is void.
        intervals: 95 %, by metric.
        frames, scored, expected: how many there are, were scored, and are published.
        problems: reason → keys of frames.
        protocols: the same predictions judged by other rules.
    """

    source: str = ""
    data: str = ""
    protocol: str = ""
    protocol_hash: str = ""
    describes: str = ""
    metrics: dict[str, Number] = {}
    intervals: dict[str, tuple[Number, Number]] = {}
    frames: int = 0
    scored: int = 0
    expected: int | None = None
    problems: dict[str, list[str]] = {}
    per_frame: FrameScores | None = None
    protocols: dict[str, BenchmarkScores] = {}


class JudgedMaps(Part):
    """The maps behind scores of another program.

    Attributes:
        sha256: over names and contents.
        found: maps that belong to an image.
        scale: factor of their values.
        surplus: files that are the map of no image.
        unreadable: file → reason.
    """

    sha256: str
    found: int
    scale: float
    surplus: list[str]
    unreadable: dict[str, str]


class ScoreFile(Document):
    """``artifacts/scores/<model>.json``. What a family of one's own tells of its models stands beside the named values.

    Attributes:
        weights_sha256: empty for baselines and for maps.
        quantity: what is predicted.
        size, parameters, input_size, max_depth, megabytes: of the model; pixels, metres.
        steps, ensemble: of models that draw.
        by: who made the maps; empty for models.
        robustness, resolution: DA-2K by variant of the images, by multiple of the input size.
        doubts: what looks wrong with maps.
        seconds: that scoring took; ``forward_share`` of it inside the model.
        latency_ms: of one image of the native size.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    model: str
    weights_sha256: str = ""
    quantity: str = ""
    size: str | None = None
    parameters: int | None = None
    input_size: int | None = None
    max_depth: float | None = None
    megabytes: float | None = None
    precision: str | None = None
    device: str | None = None
    steps: int | None = None
    ensemble: int | None = None
    by: str = ""
    da2k: Da2kScores | None = None
    robustness: dict[str, Da2kScores] = {}
    resolution: dict[str, Da2kScores] = {}
    benchmarks: dict[str, BenchmarkScores] = {}
    maps: JudgedMaps | None = None
    doubts: list[str] = []
    seconds: float | None = None
    forward_share: float | None = None
    latency_ms: Number = None

    @property
    def known_da2k(self) -> Da2kScores | None:
        """DA-2K, unless it was not scored or no pair was left."""
        return self.da2k if self.da2k is not None and self.da2k.accuracy is not None else None

    def summary(self) -> ScoreFile:
        """What gates compare, without anything of single images."""
        alone: dict[str, list[str]] = {"per_image": [], "problem_list": []}
        judged = {
            name: each.model_copy(update={"per_frame": None, "problems": {}, "protocols": {}})
            for name, each in self.benchmarks.items()
        }
        return self.model_copy(
            update={
                "da2k": self.da2k.model_copy(update=alone) if self.da2k is not None else None,
                "benchmarks": judged,
            }
        )

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the file.

        Raises:
            DocumentError: it is not there, damaged, or no score file.
        """
        try:
            return super().read(path)
        except FileNotFoundError:
            raise DocumentError(f"{path} is missing; run 'dav2 evaluate {path.stem}'") from None
        except OSError as error:
            raise DocumentError(f"{path} cannot be read: {error.strerror}") from None
