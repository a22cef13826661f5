"""The sections of ``params.yaml`` that say how a model is trained."""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, ValidationInfo, field_validator, model_validator

from dav2.params.base import (
    ALL_LABELS,
    OUTSIDE,
    RANDOM,
    START,
    Positive,
    PositiveFloat,
    Section,
    Share,
    Size,
    check_multiple,
    patch_of,
)


class OptimParams(Section):
    """Optimiser, learning rates and their schedule."""

    optimizer: Literal["adam", "adamw", "muon"] = "adam"
    """``muon``: for encoders that start from nothing; the matrices of their blocks by Muon, all else by AdamW."""
    encoder_lr: PositiveFloat = 5e-6
    decoder_lr: PositiveFloat = 5e-5
    matrix_lr: PositiveFloat = 0.02
    """Learning rate of the matrices under ``muon``, in units of spectral norm."""
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    schedule: Literal["constant", "linear", "poly", "cosine"] = "linear"
    poly_power: PositiveFloat = 0.9
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    clip_norm: Annotated[float, Field(ge=0.0)] = 0.0
    """Largest gradient norm; 0 switches clipping off."""
    ema: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Decay of the exponential moving average of the weights; 0 switches it off."""
    accumulate: Positive = 1


class LossParams(Section):
    """Terms of the loss and their weights (arXiv 2406.09414, section 5)."""

    kind: Literal["relative", "silog", "angular"] | None = None
    """Left out, it is what the run needs: ``silog`` for metric models, ``angular`` for normals, else ``relative``."""
    ssi: Annotated[float, Field(ge=0.0)] = 1.0
    gradient: Annotated[float, Field(ge=0.0)] = 2.0
    gradient_scales: Positive = 4
    alignment: Literal["median", "lstsq"] = "median"
    normalisation: Literal["global", "local", "hybrid"] = "global"
    target: Literal["disparity", "log_depth", "depth", "normals"] = "disparity"
    """What is learnt: depth up to scale and shift, or ``normals``, by the mean angle to them in radians."""
    trim: Share = 0.0
    """Share of each image's pixels with the largest residual that is left out (0.1 for pseudo-labels)."""
    feature: Annotated[float, Field(ge=0.0)] = 0.0
    feature_margin: Share = 0.85
    feature_encoder: str | None = None
    """Model directory or weights of the frozen encoder for feature alignment."""
    silog_lambda: Share = 0.5

    @model_validator(mode="after")
    def _one_of_depth_or_of_normals(self) -> Self:
        if self.target != "normals":
            if self.kind == "angular":
                raise ValueError(f"kind 'angular' is for target normals, not for {self.target}; set one of both anew")
            return self
        if self.kind not in (None, "angular"):
            raise ValueError(f"kind '{self.kind}' is a loss of depth; with target normals leave it out, or say angular")
        of_depth = type(self).model_fields.keys() - {"kind", "target", "trim"}
        given = sorted(name for name in of_depth if getattr(self, name) != type(self).model_fields[name].default)
        if given:
            raise ValueError(f"{', '.join(given)} belong to losses of depth; leave them out with target normals")
        return self


class AugmentParams(Section):
    """What is done to images while training; all but ``scale`` and ``crops`` are probabilities."""

    flip: Share = 0.5
    jitter: Share = 0.0
    """Probability of strong colour jitter (brightness, contrast, saturation, hue)."""
    blur: Share = 0.0
    cutmix: Share = 0.0
    scale: tuple[PositiveFloat, PositiveFloat] = (1.0, 1.0)
    """Range of random enlargement of the short side before cropping."""
    crops: list[tuple[Positive, Positive]] = Field(default_factory=list)
    """Further (height, width) crops, multiples of the patch size, drawn per batch beside the square one."""


class CheckpointParams(Section):
    """When a run is saved, measured, noted and given up."""

    every_steps: Positive = 1000
    every_minutes: PositiveFloat = 15.0
    keep_last: Positive = 2
    keep_every: Annotated[int, Field(ge=0)] = 0
    """Every checkpoint whose step is a multiple of this is kept for good; 0 keeps none."""
    evaluate_every: Positive = 1000
    evaluate_frames: Positive = 64
    """Validation frames that are measured at each evaluation."""
    log_every: Positive = 1
    """A line of the journal for so many steps, with the means over them; the device is waited for no more often. A
    run also hears only then that it should stop."""
    max_bad_steps: Positive = 20
    """So many steps in a row without a finite loss or gradient stop the run."""


def _native(recipe: dict[str, object]) -> int:
    """Side at which published encoders of the recipe's size end their training."""
    return 518 if patch_of(str(recipe.get("size", ""))) == 14 else 512


class RecipeParams(Section):
    """One training run."""

    family: str = "depth_anything"
    """Which family of models (`dav2/families`) it belongs to."""
    size: str
    """One of the family's sizes."""
    sources: list[str] = Field(min_length=1)
    steps: Positive
    batch: Positive
    """Global batch: over all ranks and accumulation steps."""
    crop: Positive = Field(default_factory=_native)
    """Side of the square crops, a multiple of the patch size: of 14, with a DINOv3 encoder of 16."""
    input_size: Positive | None = None
    """Short side at which the trained model is used unless told otherwise; left out, it is that of its size."""
    start: Annotated[str, Field(pattern=START)]
    """What the weights begin as: ``random``, ``outside/<name>`` (of section ``outside``) or ``models/<run>``."""
    take: Literal["all", "encoder"] = "all"
    """How much of the start is taken; ``encoder`` leaves the decoder random, as the official metric script does."""
    optim: OptimParams = OptimParams()
    loss: LossParams = LossParams()
    augment: AugmentParams = AugmentParams()
    checkpoint: CheckpointParams = CheckpointParams()

    @property
    def shapes(self) -> set[tuple[int, int]]:
        """Every (height, width) that its batches have."""
        return {(self.crop, self.crop), *self.augment.crops}

    @field_validator("size")
    @classmethod
    def _known_size(cls, size: str, info: ValidationInfo) -> str:
        # Families of one's own have sizes of their own, which only they know.
        if info.data.get("family") == "depth_anything" and size not in get_args(Size):
            raise ValueError(f"should be one of {', '.join(get_args(Size))}")
        return size

    @field_validator("crop", "input_size")
    @classmethod
    def _whole_patches(cls, side: int | None, info: ValidationInfo) -> int | None:
        if side is None or info.data.get("family") != "depth_anything" or "size" not in info.data:
            return side
        return check_multiple(side, info.data["size"])

    @field_validator("augment")
    @classmethod
    def _whole_patches_too(cls, augment: AugmentParams, info: ValidationInfo) -> AugmentParams:
        if info.data.get("family") == "depth_anything" and "size" in info.data:
            for side in (side for crop in augment.crops for side in crop):
                check_multiple(side, info.data["size"], "crops: ")
        return augment


class TeacherParams(RecipeParams):
    """Synthetic images only."""

    start: Annotated[str, Field(pattern=START)] = RANDOM


class NamedTeacherParams(Section):
    """A teacher that is not trained here: it labels, and is judged like any other model."""

    use: Annotated[str, Field(pattern=rf"^{OUTSIDE}[^/]+$")]
    """``outside/<name>``, of section ``outside``."""

    @property
    def name(self) -> str:
        """Its name in that section."""
        return self.use.removeprefix(OUTSIDE)


class StudentParams(RecipeParams):
    """Pseudo-labels only; ``synthetic`` adds labelled sources as the paper's ablation does."""

    labels: str = ALL_LABELS
    """Folder below ``artifacts``: ``pseudo`` is all of them, ``selections/<name>`` what that selection keeps."""
    synthetic: list[str] = Field(default_factory=list)


class MetricParams(RecipeParams):
    """Learns metres, from a relative model as a rule."""

    max_depth: PositiveFloat
    min_depth: PositiveFloat = 1e-3
