"""The sections of ``params.yaml``: names, types, ranges and defaults.

One object per stage, so that ``dvc.yaml`` can name the subtree a stage depends on and nothing else makes it stale.
Defaults equal the published recipe where the paper states one (``docs/recipe.md`` lists each).
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from dav2 import layout
from dav2.params.base import ALL_LABELS, Decibels, Group, Key, Positive, PositiveFloat, SbatchOption, Section, Share
from dav2.params.marigold import CodecParams, LatentsParams, MarigoldParams
from dav2.params.outside import OutsideParams
from dav2.params.recipes import MetricParams, NamedTeacherParams, StudentParams, TeacherParams
from dav2.params.references import check_references


class SourceParams(Section):
    """One data set: which reader, where it lies, and how its frames are used."""

    reader: str
    path: str
    group: Group
    val_share: Share = 0.0
    """Share of *scenes* (never single frames) held out as ``val``, for sets without an official split."""
    options: dict[str, object] = Field(default_factory=dict)
    """Passed to the reader, which refuses unknown names."""


class IngestParams(Section):
    """How raw frames become shards."""

    shard_frames: Positive = 1000
    workers: Positive = 2
    min_side: Positive = 32
    max_pixels: Positive = 100_000_000
    """Images with more pixels than this are quarantined before they are decoded."""
    max_aspect: PositiveFloat = 5.0
    jpeg_quality: Annotated[int, Field(ge=50, le=100)] = 95
    """Used only where the source's own bytes cannot be kept (PNG, HDR, rotated JPEG)."""
    store: Annotated[str, Field(pattern=r"^s3://[^/]+.*[^/]$")] | None = None
    """``s3://bucket/prefix`` for the shards; the project's folders then hold manifests alone."""


class GateParams(Section):
    """Thresholds of the expectation suites; crossing a critical one stops the pipeline."""

    min_frames: Positive = 1
    max_quarantined: Share = 0.02
    min_valid: Share = 0.0
    """Least share of pixels with known depth (sky counts as known) in every frame, but for ``mostly_slack`` of them."""
    max_sky: Share = 1.0
    mostly_slack: Share = 0.02
    min_contrast: Annotated[float, Field(ge=0.0)] = 0.0
    """Least standard deviation of the grey values (0–255)."""
    max_duplicates: Share = 0.01
    """Largest share of frames whose picture another source of the group holds too; training takes each once."""
    min_range: Annotated[float, Field(ge=0.0)] = 0.0
    """Pseudo-labels: least (maximum − minimum) disparity of a label, relative to its mean."""
    max_saturated: Share = 1.0
    """Pseudo-labels: largest share of pixels at the ends of the stored range."""


class QualityParams(Section):
    """Thresholds of the data gates, by group of data."""

    synthetic: GateParams = GateParams()
    real: GateParams = GateParams()
    unlabelled: GateParams = GateParams()
    benchmark: GateParams = GateParams()
    pseudo: GateParams = GateParams()


class SlurmParams(Section):
    """What a Slurm job asks for."""

    nodes: Positive = 1
    """Nodes of a training job; its ranks are spread evenly over them."""
    options: list[SbatchOption] = Field(default_factory=list)
    """Further options of ``sbatch``, such as ``--partition=gpu``, ``--gpus-per-task=1``, ``--time=24:00:00``."""


class ComputeParams(Section):
    """Where and how training runs."""

    launcher: Literal["local", "ray", "slurm"] = "local"
    """Processes of this machine, of a Ray cluster, or a job of the Slurm cluster that this machine submits to."""
    slurm: SlurmParams = SlurmParams()
    world_size: Positive = 1
    threads: Positive = 1
    """CPU threads of each rank."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """``auto``: bf16 where the machine multiplies in it, else fp32 (``dav2 doctor`` says which)."""
    deepspeed: str = "infra/deepspeed/cpu.json"
    compile: Literal["auto", "none", "blocks", "whole"] = "auto"
    """What of the network is compiled before the first step; ``auto`` takes what was measured to pay on a GPU, and
    nothing on a processor (docs/gpu.md)."""
    activation_checkpointing: bool = False
    loader_workers: Annotated[int, Field(ge=0)] = 0
    tf32: bool = False
    """Let a GPU multiply float32 in TF32 while training (10 bits of mantissa); what is scored or labelled never is."""
    deterministic: bool = False
    """Take only algorithms that repeat, so that two runs on the same GPU are equal (docs/repeat.md); slower."""

    @model_validator(mode="after")
    def _ranks_fill_the_nodes(self) -> Self:
        if self.world_size % self.slurm.nodes:
            raise ValueError(
                f"world_size {self.world_size} cannot be spread evenly over slurm.nodes {self.slurm.nodes}; make it a "
                "multiple"
            )
        return self


class PseudoLabelParams(Section):
    """How photographs are labelled."""

    sources: list[str]
    """Unlabelled sets; none where no student learns from labels."""
    input_size: Annotated[int, Field(ge=28)] = 518
    """Short side at which the teacher sees photographs: a multiple of 14, of a teacher with a DINOv3 encoder of 16."""
    batch: Positive = 16
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """``auto``: bf16 where the machine multiplies in it, else fp32; labels begun in one are finished in it."""
    codec: Literal["png16", "jpegls12", "jxl12"] = "png16"
    bits: Annotated[int, Field(ge=8, le=16)] = 16
    flip_agreement: bool = True
    """Label the mirrored photograph too and record how well both agree; doubles the teacher's work."""
    scale_agreement: bool = False
    """Likewise at 3/4 of the input size; adds about 60 % to the teacher's work."""
    embedding: bool = False
    """Record 32 numbers that say what a photograph shows, for selecting a varied subset."""
    runner: Literal["in_process", "process_pool", "ray", "slurm"] = "in_process"
    workers: Positive | Literal["auto"] = "auto"
    """Processes, actors, or tasks of a Slurm array that label at a time; ``auto``: with ``process_pool`` one for each
    GPU, up to four with a small teacher (docs/gpu.md), else one."""
    slurm: list[SbatchOption] = Field(default_factory=list)
    """Options of ``sbatch`` for each task of the array."""
    threads: Positive | Literal["auto"] = "auto"
    """CPU threads of each worker; ``auto`` shares the cores of this machine out, and takes 8 on a cluster."""
    retries: Annotated[int, Field(ge=0)] = 2
    timeout_minutes: PositiveFloat = 120.0
    """A worker process or actor that needs longer for one shard is stopped and counts as failed."""


class SelectionParams(Section):
    """A budget of the most informative photographs (``dav2/pseudo_label/select.py``)."""

    sources: list[str] = Field(min_length=1)
    budget: Positive
    """Photographs to keep, over all sources together."""
    coverage: Share = 0.5
    """1 spreads them over what there is to see, 0 takes those the teacher is least sure of."""
    discard: Share = 0.02
    """Share with the greatest disagreement that is never chosen: more often wrong than instructive."""


class BenchmarkParams(Section):
    """One benchmark: data, protocol, and whom it judges."""

    source: str
    protocol: str
    """Name of a declaration in ``dav2/scores/protocols.py``."""
    kind: Literal["relative", "metric"] = "relative"
    models: str = "relative"
    """Who is scored on it: ``relative`` models, or the metric run of this key."""


class EvaluateParams(Section):
    """What is scored, and on what."""

    da2k: str
    """The benchmark that holds the DA-2K archive."""
    models: list[str] = Field(min_length=1)
    """Training runs to score; all of them, in the order of the report."""
    bootstrap: Positive = 2000
    """Resamples of the confidence intervals."""
    robustness: list[Literal["dark", "fog", "snow", "blur", "noise", "jpeg"]] = Field(default_factory=list)
    """Variants of the DA-2K images that are scored as well; fog takes its distances from the teacher."""
    resolutions: list[PositiveFloat] = Field(default_factory=list)
    """Multiples of the native input size at which DA-2K is scored as well."""
    benchmarks: dict[Key, BenchmarkParams] = Field(default_factory=dict)


class RegisterParams(Section):
    """Limits of the gates of a promotion."""

    max_drop: Share = 0.0
    """Points of DA-2K accuracy a candidate may lie below the champion beyond its confidence interval."""
    max_kind_drop: Share = 0.2
    min_over_baseline: Share = 0.05
    """A relative model must beat the best trivial baseline by this much accuracy."""
    max_error_rise: Share = 0.1
    """Share by which AbsRel on a benchmark may lie above the upper end of the champion's confidence interval."""
    max_boundary_drop: Share = 0.05
    """Points of boundary F1 a candidate may lie below the champion beyond its confidence interval."""
    min_angle_gain: Share = 0.05
    """A model of normals must have a mean angle that lies below the best trivial baseline's by this share of it."""
    max_angle_rise: Share = 0.05
    """Share by which its mean angle may lie above the upper end of the champion's confidence interval."""
    min_psnr_gain: Decibels = 0.5
    """Each layer of appearance and light must beat the best trivial baseline by this many dB."""
    max_psnr_drop: Decibels = 0.5
    """dB by which a layer may lie below the lower end of the champion's confidence interval."""
    max_latency_ms: PositiveFloat | None = None
    max_megabytes: PositiveFloat | None = None
    use: Literal["any", "commercial"] = "any"
    """``commercial`` asks that the licence of everything a model was made from is known and allows it."""


NAMED, TRAINED = "<named>", "<trained>"
"""Tags of the two kinds of teacher, in pydantic's locations of a mistake."""


def _kind_of_teacher(value: object) -> str:
    named = "use" in value if isinstance(value, dict) else isinstance(value, NamedTeacherParams)
    return NAMED if named else TRAINED


class Params(Section):
    """The whole of ``params.yaml``."""

    scale: str
    seed: int = 0
    sources: dict[Key, SourceParams]
    """Data to learn from: synthetic, unlabelled and (for metric models) really measured sets."""
    benchmarks: dict[Key, SourceParams]
    """Data to judge by. Ingested first, so that none of its images can slip into the training data."""
    ingest: IngestParams = IngestParams()
    quality: QualityParams = QualityParams()
    compute: ComputeParams = ComputeParams()
    outside: dict[Key, OutsideParams] = Field(default_factory=dict)
    """Models made elsewhere: ``start: outside/<name>`` begins from one, ``teacher: {use: …}`` lets it label."""
    teacher: Annotated[
        Annotated[TeacherParams, Tag(TRAINED)] | Annotated[NamedTeacherParams, Tag(NAMED)],
        Discriminator(_kind_of_teacher),
    ]
    pseudo_label: PseudoLabelParams
    selections: dict[Key, SelectionParams] = Field(default_factory=dict)
    """Optional: subsets of the pseudo-labels, by name, for students that name them in ``labels``."""
    students: dict[Key, StudentParams]
    metric: dict[Key, MetricParams]
    licences: dict[Key, Annotated[str, Field(min_length=1)]] = Field(default_factory=dict)
    """Data set → its licence, where it is another than its reader states: one's own data, or one's own agreement."""
    codecs: dict[Key, CodecParams] = Field(default_factory=dict)
    """What Marigold's models stand on."""
    latents: dict[Key, LatentsParams] = Field(default_factory=dict)
    """Optional: views that are encoded once, for diffusion models that name them in ``latents``."""
    marigold: dict[Key, MarigoldParams] = Field(default_factory=dict)
    evaluate: EvaluateParams
    register_: RegisterParams = Field(default=RegisterParams(), alias="register")

    @property
    def data_sets(self) -> dict[str, SourceParams]:
        """Sources and benchmarks together, by name."""
        return {**self.sources, **self.benchmarks}

    @property
    def held_out(self) -> list[str]:
        """Labelled data sets whose ``val`` frames measure students: what the teacher learnt from, or all there are."""
        return self.teacher.sources if isinstance(self.teacher, TeacherParams) else self.group("synthetic")

    def group(self, group: Group) -> list[str]:
        """Names of the data sets of one group, in file order."""
        return [name for name, source in self.data_sets.items() if source.group == group]

    def shards(self, name: str) -> str:
        """Folder, relative to the project, of a data set's shards and manifest."""
        return layout.shards(self.data_sets[name].group, name)

    def labels(self, name: str, folder: str = ALL_LABELS) -> str:
        """Folder, relative to the project, of the pseudo-labels of an unlabelled source, all or a selection."""
        return layout.labels(folder, name)

    @model_validator(mode="after")
    def _references_exist(self) -> Self:
        check_references(self)
        return self
