"""How to predict."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from dav2.predict.facing import FromNormals
from dav2.predict.metric import Measure
from dav2.predict.tiles import Tiling
from dav2.predict.writers import WRITERS


@dataclass(frozen=True, slots=True)
class Options:
    """How to predict.

    Attributes:
        out: output folder.
        kinds: names in :data:`dav2.predict.writers.WRITERS`.
        input_size: how large the network sees images, as its family means it; ``None`` is the model's own.
        batch: most images per forward pass.
        colormap: a matplotlib colour map.
        focal: focal length in pixels for point clouds; ``None`` takes each file's EXIF data.
        measure: how predictions become metres, where they are none or are to be corrected.
        facing: gives the normals of point clouds; ``None`` computes them from the depth.
        tiling: how large images are cut; ``None`` shows the network every image as a whole.
    """

    out: Path
    kinds: list[str] = field(default_factory=lambda: ["png16", "color"])
    input_size: int | None = None
    batch: int = 1
    colormap: str = "Spectral_r"
    focal: float | None = None
    tiling: Tiling | None = None
    measure: Measure | None = None
    facing: FromNormals | None = None

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.kinds if kind not in WRITERS]
        if unknown or not self.kinds:
            raise ValueError(f"cannot save '{','.join(unknown)}'; there are: {', '.join(WRITERS)}")
        if self.focal is not None and not 0 < self.focal < float("inf"):
            raise ValueError(f"the focal length must be pixels above 0, not {self.focal}")
