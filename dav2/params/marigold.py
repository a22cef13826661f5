"""The sections of ``params.yaml`` that say how Marigold's models are trained, and what codec they stand on."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from dav2.params.base import KEPT, NOTHING, RANDOM, REFINES, Key, Positive, PositiveFloat, Section, Share
from dav2.params.recipes import AugmentParams, LossParams, RecipeParams

Space = Literal["depth", "disparity", "log_depth"]
Target = Literal["depth", "disparity", "log_depth", "normals", "appearance", "lighting"]
"""``appearance``: albedo, roughness, metallicity; ``lighting``: albedo, shading, residual."""


class CodecParams(Section):
    """How photographs and maps become latents."""

    kind: Literal["patch", "diffusers", "none"] = "patch"
    """``patch``: principal components of patches, fitted here; ``diffusers``: an autoencoder; ``none``: pixels."""
    patch: Literal[2, 4, 8, 16] = 8
    """Side of a patch in pixels, and of the area that a latent cell stands for."""
    channels: Positive = 4
    """Principal components kept."""
    target: Target = "depth"
    """In which space maps are, or which layers, for the fit and for the ceiling."""
    max_depth: PositiveFloat = 80.0
    """Metres beyond which depth is not known; ``disparity`` has no such end."""
    sources: list[str] = Field(min_length=1)
    """Synthetic data that a patch codec is fitted to, and whose held-out frames tell the ceiling."""
    frames: Positive = 512
    """Most frames of the fit."""
    crop: Annotated[int, Field(ge=16, multiple_of=16)] = 480
    """Side of the crops that it is fitted to, in pixels."""
    path: str | None = None
    """Folder of an autoencoder as diffusers writes it."""
    licence: str | None = None
    """Of the autoencoder."""

    @model_validator(mode="after")
    def _given(self) -> Self:
        if (self.kind == "diffusers") != (self.path is not None):
            raise ValueError("kind 'diffusers' needs 'path', the folder of the autoencoder; no other kind takes it")
        return self


class LatentsParams(Section):
    """Latents of several augmented views of every frame, encoded once and kept."""

    codec: Key
    """Of section ``codecs``."""
    target: Space = "depth"
    max_depth: PositiveFloat = 80.0
    sources: list[str] = Field(min_length=1)
    crop: Annotated[int, Field(ge=16, multiple_of=8)] = 480
    views: Positive = 8
    """Ways in which a frame is augmented."""
    augment: AugmentParams = AugmentParams()

    @model_validator(mode="after")
    def _one_frame_one_shape(self) -> Self:
        if self.augment.cutmix or self.augment.crops:
            raise ValueError("augment: latents are of one frame and of one shape; leave cutmix and crops out")
        return self


class ProcessParams(Section):
    """The diffusion process. The defaults are those of version 1.1; 1.0 had ``zero_snr: false, spacing: leading``."""

    prediction: Literal["v", "epsilon", "x0"] = "v"
    zero_snr: bool = True
    """The last level holds noise alone."""
    spacing: Literal["trailing", "leading"] = "trailing"
    """Which levels a few steps visit; ``leading`` begins one step of inference at almost no noise."""
    noise: Literal["annealed", "multires", "gaussian"] = "annealed"
    """Noise of several resolutions, weaker ones fading with the level; of constant strength; or plain."""
    strength: Share = 0.9
    unit: Literal["sample", "batch"] = "sample"
    """Whose standard deviation noise of several resolutions is divided by; ``batch`` is what the authors' code does."""


LAYERED = ("normals", "appearance", "lighting")
"""Targets that are not depth."""
Side = Annotated[int, Field(ge=16, multiple_of=8)]


class PortionParams(Section):
    """How much of a run one source makes up."""

    share: PositiveFloat
    """Probability of its batches, relative to the shares of the others."""
    crop: tuple[Side, Side] | None = None
    """Height and width of its crops; left out, those of the run."""


class RefineParams(Section):
    """What a refiner learns from, and what its errors weigh."""

    agree: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1
    """Mean difference of a patch from the target, as a share of the target's range, up to which it counts."""
    patch: Positive = 8
    """Side of these patches in pixels."""
    gradient: Annotated[float, Field(ge=0.0)] = 1.0
    """Weight of the error of steps between neighbouring pixels."""
    least_slope: Annotated[float, Field(gt=0.0, le=1.0)] = 0.05
    """A map that has to be flattened more than this to fit its target says nothing of it, and does not count."""


class LcmParams(Section):
    """How a model is distilled to a few steps (arXiv 2310.04378); the defaults are those published for Marigold."""

    grid: Annotated[int, Field(ge=2, le=50)] = 5
    """Levels of noise that it learns from, and the most steps of inference: 5 are 199, 399, 599, 799 and 999."""
    decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.95
    """Of the moving average of the weights whose prediction, one level earlier, is the target."""
    loss: Literal["huber", "l2"] = "huber"
    """``huber``: √(Δ² + c²) − c, nearly the absolute error; ``l2``: the squared error."""
    huber: PositiveFloat = 0.001
    """The c of ``huber``."""

    @field_validator("grid")
    @classmethod
    def _even(cls, grid: int) -> int:
        if 1000 % grid:
            raise ValueError(f"1000 levels are not cut into {grid} equal steps; take 2, 4, 5, 8, 10, 20, 25, 40 or 50")
        return grid


class MarigoldParams(RecipeParams):
    """A diffusion model on a codec's latents, from synthetic depth or layers."""

    family: str = "marigold"
    codec: Key
    """Of section ``codecs``."""
    target: Target = "depth"
    """What it predicts: depth in one of three spaces, ``normals``, ``appearance`` or ``lighting``."""
    max_depth: PositiveFloat = 80.0
    """Metres beyond which depth is not known; ``disparity`` has no such end."""
    objective: Literal["diffusion", "one_step_x0", "one_step_decoded", "photographs", "refine", "lcm"] = "diffusion"
    """``diffusion``: denoise from any level; ``one_step_x0``: the clean latent at once (arXiv 2409.18124);
    ``one_step_decoded``: at once, and judged behind the decoder after least squares (arXiv 2409.11355);
    ``photographs``: denoise photographs, for others to start from where there is no Stable Diffusion; no depth;
    ``refine``: correct the map of the model that ``refines`` names (after arXiv 2407.17952);
    ``lcm``: distil the diffusion model that ``start`` names to a few steps (arXiv 2310.04378)."""
    views: Annotated[int, Field(ge=0)] = 0
    """Ways in which a frame is augmented, one after the other; 0 is a new way every time."""
    latents: Annotated[str, Field(pattern=KEPT)] = NOTHING
    """``latents/<name>``: read these instead of encoding; ``nothing`` encodes."""
    refines: Annotated[str, Field(pattern=REFINES)] = NOTHING
    """Whose map is corrected: ``models/<run>`` (teacher or student), ``outside/<name>``, or ``nothing``."""
    refine: RefineParams = RefineParams()
    lcm: LcmParams = LcmParams()
    process: ProcessParams = ProcessParams()
    mix: dict[str, PortionParams] = Field(default_factory=dict)
    """Share and crop of every source: each batch then comes from one of them. Left out, all are mixed by their frames
    and have the run's crop."""
    crop: Side = 480
    input_size: Annotated[int, Field(ge=0, multiple_of=8)] | None = 768
    """Longest side that the network sees of a photograph, 0 for that of the photograph."""
    infer_steps: Annotated[int, Field(ge=1, le=50)] = 1
    """Steps that the trained model takes unless told otherwise."""
    infer_ensemble: Annotated[int, Field(ge=1, le=100)] = 1
    """Predictions that it merges unless told otherwise."""

    @property
    def shapes(self) -> set[tuple[int, int]]:
        """Crops (height, width) in pixels of all sources, their own and the run's."""
        own = {portion.crop for portion in self.mix.values() if portion.crop is not None}
        others = any(portion.crop is None for portion in self.mix.values()) or not self.mix
        return own | (super().shapes if others else set())

    @model_validator(mode="after")
    def _mixed(self) -> Self:
        if self.mix and set(self.mix) != set(self.sources):
            wrong = ", ".join(sorted(set(self.mix) ^ set(self.sources)))
            raise ValueError(f"mix: {wrong} stands in only one of mix and sources; name every source in both")
        return self

    @model_validator(mode="after")
    def _seen(self) -> Self:
        if self.views and (self.mix or self.augment.cutmix):
            raise ValueError("views are of frames in one order, each by itself; leave mix and augment.cutmix out")
        if self.latents != NOTHING and self.objective not in ("diffusion", "one_step_x0", "lcm"):
            raise ValueError(
                f"objective {self.objective} needs the pixels of photographs or maps; leave latents out, or choose "
                "diffusion, one_step_x0 or lcm"
            )
        if self.target in LAYERED and (self.latents != NOTHING or self.objective == "refine"):
            raise ValueError(
                f"target {self.target}: latents are kept, and maps refined, of depth alone; leave latents out, and "
                "choose another objective"
            )
        return self

    @model_validator(mode="after")
    def _distilled(self) -> Self:
        if self.objective != "lcm":
            if self.lcm != LcmParams():
                raise ValueError("lcm: these settings belong to objective 'lcm'")
            return self
        if self.start == RANDOM:
            raise ValueError(
                "objective 'lcm' needs a teacher, the trained diffusion model that it begins as: name it in 'start', "
                "models/marigold-<key> or outside/<name>"
            )
        if self.infer_steps > self.lcm.grid:
            raise ValueError(f"infer_steps is {self.infer_steps}, and lcm.grid knows {self.lcm.grid} levels of noise")
        return self

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.process.prediction == "epsilon" and (self.process.zero_snr or self.objective != "diffusion"):
            raise ValueError(
                "process.prediction 'epsilon' says nothing of the map where there is noise alone; it needs "
                "process.zero_snr false and objective 'diffusion', or predict v or x0"
            )
        once = self.objective.startswith("one_step") or self.objective == "refine"
        if once and self.infer_steps > 1:
            raise ValueError(f"objective {self.objective} trains a single step; infer_steps must be 1")
        if (self.objective == "refine") != (self.refines != NOTHING):
            raise ValueError(
                "objective 'refine' needs 'refines', the model whose map is corrected; no other objective takes it"
            )
        if self.objective != "refine" and self.refine != RefineParams():
            raise ValueError("refine: these settings belong to objective 'refine'")
        if self.loss != LossParams():
            raise ValueError("loss: this family is told what to learn by 'target', 'objective' and 'process'")
        if self.take != "all":
            raise ValueError("take: this family starts from all of a model")
        return self
