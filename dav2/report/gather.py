"""What the report shows, read from the artefacts of a finished pipeline. Nothing is computed again here."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from dav2 import layout
from dav2.data.store.manifest import MANIFEST, manifest_digest, read_manifest, read_quarantine
from dav2.documents import Da2kScores, EvaluationLine, LabelReceipt, LicenceLine, ScoreFile, StepLine, Verdict
from dav2.evaluation.baselines import BASELINES, LAYER_BASELINES, PREFIX
from dav2.maps import Quantity
from dav2.params import Params
from dav2.runs import all_runs

NOT_RELATIVE = frozenset(each.value for each in Quantity if not each.relative)
"""Quantities that do not stand in one table with relative depth."""

LABEL_COLUMNS = ("range", "saturated", "flip_agreement", "scale_agreement", "sharpness")
GATES = ("benchmark", "synthetic", "real", "unlabelled", "pseudo")


@dataclass(frozen=True, slots=True)
class Training:
    """Curves and cost of one run; empty lists where a run left none."""

    run: str
    metrics: list[StepLine]
    evaluations: list[EvaluationLine]

    @property
    def seconds(self) -> float:
        """Time between the first and the last recorded step, pauses of a stopped run left out."""
        times = [line.time for line in self.metrics]
        gaps = sorted(after - before for before, after in itertools.pairwise(times))
        usual = gaps[len(gaps) // 2] if gaps else 0.0
        return sum(gap for gap in gaps if gap <= 20 * max(usual, 0.1))

    @property
    def steps(self) -> int:
        """Updates that were done."""
        return self.metrics[-1].step if self.metrics else 0

    @property
    def images_per_second(self) -> float:
        """Median over all steps."""
        rates = sorted(line.images_per_second for line in self.metrics)
        return rates[len(rates) // 2] if rates else 0.0


@dataclass(frozen=True, slots=True)
class DataSet:
    """One source as it was ingested."""

    name: str
    group: str
    frames: int
    splits: dict[str, int]
    quarantined: dict[str, int]
    megabytes: float
    licences: list[str]
    digest: str


@dataclass(frozen=True, slots=True)
class Labels:
    """Pseudo-labels of one source: how many, how large, how long they took, medians of their quality columns."""

    source: str
    count: int
    kilobytes: float
    seconds: float
    quality: dict[str, float]


@dataclass(frozen=True, slots=True)
class Gate:
    """Verdict of the data gate of one group, and whether its Data Docs are at hand."""

    group: str
    passed: bool
    expectations: int
    failures: list[str]
    warnings: list[str]
    docs: Path | None


@dataclass(slots=True)
class Gathered:
    """Everything the page is made of."""

    scores: dict[str, ScoreFile]
    trainings: list[Training]
    data: list[DataSet]
    labels: list[Labels]
    gates: list[Gate]
    lineages: list[dict[str, Any]] = field(default_factory=list)
    licences: dict[str, list[LicenceLine]] = field(default_factory=dict)
    students: frozenset[str] = frozenset()
    """Names of the students among the models."""

    @property
    def models(self) -> list[str]:
        """Scored models without baselines, in report order."""
        return [name for name in self.scores if not name.startswith(PREFIX)]

    @property
    def others(self) -> dict[str, ScoreFile]:
        """Score files of maps that other programs made."""
        return {name: scores for name, scores in self.scores.items() if scores.maps is not None}

    @property
    def relative(self) -> list[str]:
        """Models of this project that predict relative depth."""
        own = [name for name in self.models if name not in self.others]
        return [name for name in own if self.scores[name].quantity not in NOT_RELATIVE]

    @property
    def baselines(self) -> list[str]:
        """Trivial baselines that were scored."""
        return [name for name in self.scores if name.startswith(PREFIX)]

    def da2k(self, model: str) -> Da2kScores | None:
        """DA-2K result of a model, ``None`` where it was not scored or no pair was left."""
        return self.scores[model].known_da2k

    @property
    def main_model(self) -> str | None:
        """The best student by DA-2K, else the best relative model: what a reader would take home."""
        scored = [(result.accuracy or 0.0, name) for name in self.relative if (result := self.da2k(name))]
        students = [each for each in scored if each[1] in self.students]
        return max(students or scored)[1] if scored else None

    def best_baseline(self) -> str | None:
        """The trivial baseline with the highest DA-2K accuracy."""
        scored = [(result.accuracy or 0.0, name) for name in self.baselines if (result := self.da2k(name))]
        return max(scored)[1] if scored else None


def gather(params: Params, root: Path) -> Gathered:
    """Read scores, training journals, manifests, gate results and lineage below ``root``.

    Raises:
        ValueError: no model was scored, or a score file is damaged.
    """
    folder = root / layout.SCORES
    found = {path.stem: path for path in sorted(folder.glob("*.json"))}
    order = [name for name in [*params.evaluate.models, *found, *BASELINES] if name in found]
    unique = list(dict.fromkeys(name for name in order if not name.startswith(PREFIX)))
    unique += [name for name in (*BASELINES, *LAYER_BASELINES) if name in found]
    if not unique:
        raise ValueError(f"{folder} holds no scores; run 'dvc repro', or 'dav2 evaluate MODEL'")
    return Gathered(
        scores={name: ScoreFile.read(found[name]) for name in unique},
        trainings=[_training(run, root) for run in all_runs(params) if layout.training(root, run).is_dir()],
        data=list(_data(params, root)),
        labels=[labels for name in params.group("unlabelled") if (labels := _labels(name, params, root)) is not None],
        gates=[gate for group in GATES if (gate := _gate(group, root)) is not None],
        lineages=_lineages(params, root),
        licences=_licences(params, root),
        students=frozenset(name for name, run in all_runs(params).items() if run.student is not None),
    )


def _training(run: str, root: Path) -> Training:
    from dav2.training.journal import read_evaluations, read_steps

    folder = layout.training(root, run)
    return Training(run, read_steps(folder), read_evaluations(folder))


def _data(params: Params, root: Path) -> Iterator[DataSet]:
    for name, source in params.data_sets.items():
        folder = root / params.shards(name)
        if not (folder / MANIFEST).is_file():
            continue
        manifest, quarantine = read_manifest(folder), read_quarantine(folder)
        size = sum(path.stat().st_size for path in folder.glob("*.tar"))
        yield DataSet(
            name=name,
            group=source.group,
            frames=len(manifest),
            splits={str(split): int(count) for split, count in manifest["split"].value_counts().items()},
            quarantined={str(reason): int(count) for reason, count in _reasons(quarantine["reason"]).items()},
            megabytes=size / 1e6,
            licences=sorted({str(licence) for licence in manifest["licence"].unique() if licence}),
            digest=manifest_digest(folder),
        )


def _reasons(reasons: Iterable[object]) -> dict[str, int]:
    """Counts of quarantine reasons without their particulars (what follows the first digit or quote)."""
    counts: dict[str, int] = {}
    for reason in reasons:
        short = str(reason).rsplit(": ", 1)[-1][:80]
        counts[short] = counts.get(short, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def _labels(name: str, params: Params, root: Path) -> Labels | None:
    folder = root / params.labels(name)
    if not (folder / MANIFEST).is_file():
        return None
    table = pd.read_parquet(folder / MANIFEST)
    receipts = [LabelReceipt.read(path) for path in sorted(folder.glob("*.receipt.json"))]
    return Labels(
        source=name,
        count=len(table),
        kilobytes=float(table["size_label"].median()) / 1024,
        seconds=sum(float(receipt.run.get("seconds", 0.0)) for receipt in receipts),
        quality={column: float(table[column].median()) for column in LABEL_COLUMNS if table[column].notna().any()},
    )


def _gate(group: str, root: Path) -> Gate | None:
    folder = layout.quality(root, group)
    try:
        result = Verdict.read(layout.verdict(root, group))
    except FileNotFoundError:
        return None
    docs = folder / "docs"
    return Gate(
        group=group,
        passed=result.passed,
        expectations=result.expectations,
        failures=result.failures,
        warnings=result.warnings,
        docs=docs if (docs / "index.html").is_file() else None,
    )


def _lineages(params: Params, root: Path) -> list[dict[str, object]]:
    """Lineage of every finished run, as plain dictionaries; of one that cannot be traced, ``run`` and ``unknown``."""
    from dav2.tracking.lineage import collect
    from dav2.tracking.store import TrackingError

    lineages: list[dict[str, object]] = []
    for run in all_runs(params):
        if layout.weights(root, run).is_file():
            try:
                lineages.append(asdict(collect(run, root, params)))
            except TrackingError as error:
                lineages.append({"run": run, "unknown": str(error)})
    return lineages


def _licences(params: Params, root: Path) -> dict[str, list[LicenceLine]]:
    """What every finished run stands on; a run whose data are gone is left out, as its lineage says so."""
    from dav2.tracking.licences import licences_of_run
    from dav2.tracking.registry import licences_of
    from dav2.tracking.store import TrackingError

    found: dict[str, list[LicenceLine]] = {}
    for run in all_runs(params):
        if layout.weights(root, run).is_file():
            try:
                found[run] = licences_of_run(run, root, params, lambda uri: licences_of(uri, root))
            except TrackingError:
                continue
    return found
