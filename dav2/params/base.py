"""What every section of ``params.yaml`` is made of."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from dav2.names import UnsafeName, safe_name

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0.0)]
Size = Literal["vitn", "vitt", "vits", "vitb", "vitl", "vitg"]
Group = Literal["synthetic", "unlabelled", "benchmark"]


def _key(name: str) -> str:
    safe_name(name, "key")
    if "." in name:
        # `dvc.yaml` writes params as `sources.<key>`, where a dot would begin another level.
        raise UnsafeName(f"key: '{name}' cannot be a name here, because DVC takes '.' for a level; use '_' or '-'")
    return name


Key = Annotated[str, AfterValidator(_key)]
"""Name that a person gives to an entry: it becomes a folder, part of a stage's name and a word of its command."""
ALL_LABELS, SELECTIONS = "pseudo", "selections/"
"""Folder of all pseudo-labels below ``artifacts``, and of the subsets of them."""


class ParamsError(ValueError):
    """``params.yaml`` cannot be used; the message names the key, its line and what is allowed."""


class Section(BaseModel):
    """Base of every section: unknown keys are refused, infinity and NaN too, values are never changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
