"""The section of ``params.yaml`` that names models made elsewhere."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from dav2.params.base import Positive, PositiveFloat, Section


class OutsideParams(Section):
    """A model that somebody else made: weights to start from, or a teacher. Exactly one of the first four is given."""

    model: str | None = None
    """Anything that ``dav2.load`` takes: a published ``.pth``, a Hugging Face folder, ``models:/name@alias`` …"""
    encoder: str | None = None
    """An encoder alone: DINOv2 or DINOv3, as published or as timm has it, or that of anything that ``model`` takes."""
    onnx: str | None = None
    """A network in an ONNX file that takes one photograph and gives one map; it can teach."""
    maps: str | None = None
    """A folder of finished maps (PNG, TIFF, NPY, NPZ, EXR, PFM) named like the photographs; they can teach."""
    quantity: Literal["disparity", "depth", "log_depth", "metres"] | None = None
    """What an ONNX file or the maps hold. The models that dav2 reads say it themselves."""
    size: Positive | None = None
    """Of an ONNX file: short side at which it is used; a file of fixed shape says it itself."""
    multiple: Positive = 14
    """Of an ONNX file: its sides must be multiples of this."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.229, 0.224, 0.225)
    """Of an ONNX file: what is taken from RGB in [0, 1], and what it is divided by then."""
    output: str | None = None
    """Of an ONNX file with several outputs: the one that is the map."""
    max_depth: PositiveFloat | None = None
    """Range in metres of a published metric file that does not say so itself."""
    licence: str | None = None
    """Its licence, by SPDX name where it has one. Left out, it counts as unknown, which allows nothing."""
    licence_file: Annotated[str, Field(min_length=1)] | None = None
    """The text of the licence, kept with the model. DINOv3 needs it, here or as ``LICENSE.md`` beside its weights."""

    @property
    def kind(self) -> Literal["model", "encoder", "onnx", "maps"]:
        """Which of the four it is."""
        for name in ("model", "encoder", "onnx"):
            if getattr(self, name) is not None:
                return name
        return "maps"

    @property
    def source(self) -> str:
        """Where it comes from, as it was named."""
        return str(getattr(self, self.kind))

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        given = [name for name in ("model", "encoder", "onnx", "maps") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"say one of model, encoder, onnx and maps (there are {len(given)})")
        if (self.kind in ("onnx", "maps")) != (self.quantity is not None):
            raise ValueError("quantity belongs to onnx and maps, which need it, and to nothing else")
        return self
