"""Cleaning rules of a data set: what is sky, what is unknown, which frames are known to be bad, and who says so.

The rules are data (``rules/<set>.yaml``): DVC hashes them, a reviewer can read them, and a changed threshold makes
exactly the ingested sets stale that it touches. Patterns are shell patterns over a frame's key without its source
name (``ai_004_009/cam_01/*``).
"""

from __future__ import annotations

import fnmatch
import re
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dav2.data.blocks import row_blocks
from dav2.data.frame import FrameError
from dav2.data.images import sniff
from dav2.data.raw.archives import SourceError
from dav2.failures import reason

FOLDER = Path(__file__).parent / "rules"


class Rule(BaseModel):
    """Base of every rule: where it applies and where it comes from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    match: str = "*"
    source: str = Field(min_length=1)
    """Paper, issue, read-me or measurement that the rule rests on."""

    def applies(self, ident: str) -> bool:
        """Whether the rule is about the frame."""
        return self.match == "*" or fnmatch.fnmatchcase(ident, self.match)


class Exclusion(Rule):
    """Frames that are left out of the index."""

    reason: str


class DepthRule(Rule):
    """Pixels whose depth reaches a limit become sky or unknown; limits are in the set's own unit."""

    at_least: float | None = None
    at_most: float | None = None
    becomes: Literal["sky", "unknown"]


class FrameRule(Rule):
    """Frames that are quarantined after reading."""

    min_known: float = 0.0
    """Least share of pixels with known depth; sky counts as known."""
    min_depth_range: float = 0.0
    min_rgb_range: float = 0.0


class StandIn(Rule):
    """An image that a photo service gave instead of one that was gone; such files have one format and one size."""

    format: str
    bytes: int


class Promise(Rule):
    """How many frames the set's authors count; reported beside our own count, never asserted."""

    subset: str
    frames: int


class Rules(BaseModel):
    """One data set's file."""

    model_config = ConfigDict(extra="forbid", frozen=True, ignored_types=(cached_property,))

    title: str
    licence: str
    homepage: str
    size: str = ""
    """How much there is to fetch, as far as its authors or others say."""
    layout: str = ""
    """What the reader expects below its path."""
    get: str = ""
    """The commands that bring it to ``data/<name>``, a line each; what only a person can do is said in words."""
    promised: list[Promise] = Field(default_factory=list)
    exclude: list[Exclusion] = Field(default_factory=list)
    depth: list[DepthRule] = Field(default_factory=list)
    frame: list[FrameRule] = Field(default_factory=list)
    stand_in: list[StandIn] = Field(default_factory=list)

    @cached_property
    def _excluded(self) -> re.Pattern[str] | None:
        patterns = [fnmatch.translate(rule.match) for rule in self.exclude]
        return re.compile("|".join(patterns)) if patterns else None

    def excluded(self, ident: str) -> str | None:
        """Why a frame is left out, or ``None``."""
        if self._excluded is None or not self._excluded.match(ident):
            return None
        return next(f"{rule.reason} ({rule.source})" for rule in self.exclude if rule.applies(ident))

    def check_file(self, data: bytes, name: str) -> None:
        """Refuse an image file that stands in for a missing one.

        Raises:
            FrameError: it has the format and the size of a known stand-in.
        """
        for rule in self.stand_in:
            if len(data) == rule.bytes and sniff(data) == rule.format:
                raise FrameError(
                    f"{name}: stand-in for a missing image: {rule.format} of {rule.bytes} bytes ({rule.source})"
                )

    def clean_depth(self, depth: NDArray[np.floating], ident: str) -> NDArray[np.float32]:
        """Depth as a data set stores it → float32 where ``+inf`` is sky, ``nan`` unknown and all else positive.

        Non-finite values and values ≤ 0 are unknown before any rule is asked.
        """
        rules = [rule for rule in self.depth if rule.applies(ident)]
        cleaned = depth.astype(np.float32)
        for rows in row_blocks(*depth.shape):
            block = cleaned[rows]
            np.copyto(block, np.nan, where=~((block > 0) & (block < np.inf)))
            raw = block.copy() if rules else block
            for rule in rules:
                value = np.inf if rule.becomes == "sky" else np.nan
                if rule.at_least is not None:
                    np.copyto(block, value, where=raw >= rule.at_least)
                if rule.at_most is not None:
                    np.copyto(block, value, where=raw <= rule.at_most)
        return cleaned

    def check_frame(self, rgb: NDArray[np.uint8], depth: NDArray[np.float32], ident: str) -> None:
        """Refuse a frame that a frame rule names, and any frame whose depth teaches nothing.

        Raises:
            FrameError: no pixel is known, all known pixels lie at one depth, or a rule's limit is crossed.
        """
        least, greatest = np.fmin.reduce(depth, axis=None), np.fmax.reduce(depth, axis=None)
        if not np.isfinite(least):
            raise FrameError(f"{ident}: no pixel has a known, finite depth")
        known = 1.0 - np.count_nonzero(np.isnan(depth)) / depth.size
        if least == greatest and known == 1.0:
            raise FrameError(f"{ident}: depth is {least} everywhere")
        if greatest == np.inf:
            greatest = np.max(depth, where=np.isfinite(depth), initial=least)
        spread = float(greatest - least)
        for rule in self.frame:
            if not rule.applies(ident):
                continue
            if known < rule.min_known:
                raise FrameError(
                    f"{ident}: {known:.1%} of the depth is known, less than {rule.min_known:.1%} ({rule.source})"
                )
            if spread < rule.min_depth_range:
                raise FrameError(f"{ident}: depth spans {spread:.3g}, less than {rule.min_depth_range} ({rule.source})")
            rgb_range = int(rgb.max()) - int(rgb.min()) if rule.min_rgb_range else 0
            if rgb_range < rule.min_rgb_range:
                raise FrameError(f"{ident}: colours span {rgb_range}, less than {rule.min_rgb_range} ({rule.source})")


def load_rules(name_or_path: str) -> Rules:
    """Rules of a packaged set by its name, or of a YAML file.

    Raises:
        SourceError: there is no such file, or a key in it is unknown, missing or wrong.
    """
    path = Path(name_or_path) if name_or_path.endswith((".yaml", ".yml")) else FOLDER / f"{name_or_path}.yaml"
    try:
        return Rules.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise SourceError(f"{path}: no such cleaning rules") from None
    except OSError as error:
        raise SourceError(f"{path}: cleaning rules cannot be read: {reason(error)}") from None
    except UnicodeError:
        raise SourceError(f"{path}: not text in UTF-8; save it as UTF-8") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise SourceError(f"{path}: not valid YAML: {error}") from error
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise SourceError(f"{path}: {problems}") from error
