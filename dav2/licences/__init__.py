"""What a licence allows: judgements as data (``judgements.yaml``), looked up by the name that data and models bear.

Nothing is guessed. A licence whose name is not in the list is unknown, and unknown is not allowed for commercial use.
None of this is legal advice: the judgements are those of people who are no lawyers, each with its source.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, field_validator

Answer = Literal["yes", "no", "unknown"]
NO_ADVICE = (
    "No legal advice. Whether the licence of data reaches the weights learned from them is disputed; here it counts as "
    "if it did."
)
_LIST = Path(__file__).with_name("judgements.yaml")


class Terms(BaseModel):
    """What one licence allows and asks; ``source`` says where that stands."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    spellings: list[str] = []
    versions: list[str] = []
    commercial: Answer
    share_alike: Answer
    attribution: Answer
    says: str
    source: str

    @field_validator("commercial", "share_alike", "attribution", mode="before")
    @classmethod
    def _yes_or_no(cls, value: object) -> object:
        """YAML reads a bare yes and no as truth values."""
        return {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value


UNKNOWN = Terms(
    name="unknown",
    commercial="unknown",
    share_alike="unknown",
    attribution="unknown",
    says="nobody declared a licence",
    source="",
)


def judge(licence: str | None) -> Terms:
    """What a licence of this name allows; unknown terms where it has none or one that is not in the list."""
    if licence is None or _plain(licence) in ("", "unknown"):
        return UNKNOWN
    found = _known().get(_plain(licence))
    return found or UNKNOWN.model_copy(update={"says": "it is not in the list of judged licences"})


def judgements() -> list[Terms]:
    """All judgements, in the order of the file."""
    return [Terms(**each) for each in yaml.safe_load(_LIST.read_text(encoding="utf-8"))]


@cache
def _known() -> dict[str, Terms]:
    known: dict[str, Terms] = {}
    for terms in judgements():
        for spelling in terms.spellings:
            for version in terms.versions or [""]:
                known[_plain(spelling.replace("{version}", version))] = terms
    return known


def _plain(name: str) -> str:
    """A name without case, spaces, hyphens and the word licence, and without what stands in parentheses at its end."""
    bare = re.sub(r"\s*\([^()]*\)\s*$", "", name)
    return re.sub(r"licen[cs]e|[\s_-]+", "", bare.lower())
