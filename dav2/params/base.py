"""What every section of ``params.yaml`` is made of."""

from __future__ import annotations

import re
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from dav2.names import UnsafeName, safe_name

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Decibels = Annotated[float, Field(ge=0.0, le=100.0)]
Positive = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0.0)]
_Dinov3 = Literal["vitt3", "vits3", "vits3plus", "vitb3", "vitl3"]
Size = Literal["vitn", "vitt", "vits", "vitb", "vitl", "vitg", _Dinov3]
Group = Literal["synthetic", "real", "unlabelled", "benchmark"]


def patch_of(size: str) -> int:
    """Side in pixels of an image patch of a size of Depth Anything."""
    return 16 if size in get_args(_Dinov3) else 14


def check_multiple(side: int, size: str, what: str = "") -> int:
    """``side``, a length in pixels that a network of the size ``size`` has to cut into patches.

    Raises:
        ValueError: it cannot; the message names the nearest lengths.
    """
    patch = patch_of(size)
    if side < 2 * patch or side % patch:
        lower = max(2 * patch, side // patch * patch)
        raise ValueError(f"{what}{side} should be a multiple of {patch} for {size}, such as {lower} or {lower + patch}")
    return side


def _key(name: str) -> str:
    safe_name(name, "key")
    if "." in name:
        # `dvc.yaml` writes params as `sources.<key>`, where a dot would begin another level.
        raise UnsafeName(f"key: '{name}' cannot be a name here, because DVC takes '.' for a level; use '_' or '-'")
    return name


Key = Annotated[str, AfterValidator(_key)]
"""Name that a person gives to an entry: it becomes a folder, part of a stage's name and a word of its command."""
_SET_BY_US = {
    "array",
    "chdir",
    "comment",
    "cpus-per-task",
    "job-name",
    "nodes",
    "ntasks-per-node",
    "output",
    "parsable",
}


def _sbatch_option(text: str) -> str:
    name = re.match(r"--([a-z-]+)(=\S+)?$", text)
    if name is None:
        raise ValueError(f"'{text}' is no option of sbatch in one word, such as --partition=gpu")
    if name[1] in _SET_BY_US:
        raise ValueError(f"'--{name[1]}' is set by dav2 itself, from the other keys; leave it out")
    return text


SbatchOption = Annotated[str, AfterValidator(_sbatch_option)]
"""An option of ``sbatch`` in one word, but for those that dav2 sets itself."""
ALL_LABELS, SELECTIONS = "pseudo", "selections/"
"""Folder of all pseudo-labels below ``artifacts``, and of the subsets of them."""
RANDOM, OUTSIDE, MODELS = "random", "outside/", "models/"
"""What weights begin as: a random draw, a model from elsewhere, the model of another run; below ``artifacts`` too."""
NOTHING = "nothing"
"""What a model that refines no other's map refines."""
REFINES = rf"^({NOTHING}|{OUTSIDE}[^/]+|{MODELS}[^/]+)$"
LATENTS = "latents/"
KEPT = rf"^({NOTHING}|{LATENTS}[^/]+)$"
"""Latents that a diffusion model learns from, if they are kept."""
START = rf"^({RANDOM}|{OUTSIDE}[^/]+|{MODELS}[^/]+)$"


class ParamsError(ValueError):
    """``params.yaml`` cannot be used; the message names the key, its line and what is allowed."""


class Section(BaseModel):
    """Base of every section: unknown keys are refused, infinity and NaN too, values are never changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
