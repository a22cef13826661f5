"""What every section of ``params.yaml`` is made of."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0.0)]
Size = Literal["vitn", "vitt", "vits", "vitb", "vitl", "vitg"]
Group = Literal["synthetic", "unlabelled", "benchmark"]
ALL_LABELS, SELECTIONS = "pseudo", "selections/"
"""Folder of all pseudo-labels below ``artifacts``, and of the subsets of them."""


class ParamsError(ValueError):
    """``params.yaml`` cannot be used; the message names the key, its line and what is allowed."""


class Section(BaseModel):
    """Base of every section: unknown keys are refused, values are never changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)
