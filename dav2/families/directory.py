"""Model directories, whatever the family: three files, and the digest that tells models apart."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

from dav2 import layout
from dav2.data.text import decode_json
from dav2.failures import reason
from dav2.files import open_regular, read_bounded, sha256_file

MAX_JSON = 16 * 2**20
"""Bytes of a configuration."""


class WeightsError(ValueError):
    """Weights that cannot be used; the message names the file and what is wrong with it."""


_BESIDE = (layout.CARD, layout.ORIGIN)
"""What stands in a model directory for people, and decides nothing."""


def weights_digest(path: Path | str) -> str:
    """SHA-256 that tells models apart, in hexadecimal.

    Of the weights file (or of a file itself), in whose header the settings are stored; of a model directory without
    one, over the names and digests of all its files but the card and its origin.

    Raises:
        WeightsError: there is no such file.
    """
    path = Path(path)
    file = path / layout.WEIGHTS if path.is_dir() else path
    if path.is_dir() and not file.exists() and (path / layout.CONFIG).exists():
        return _digest_of_all(path)
    try:
        return sha256_file(file)
    except FileNotFoundError:
        raise WeightsError(f"{file} is missing") from None


def _digest_of_all(folder: Path) -> str:
    files = sorted(each for each in folder.rglob("*") if each.is_file() and each.name not in _BESIDE)
    listed = "".join(f"{sha256_file(each)}  {each.relative_to(folder).as_posix()}\n" for each in files)
    return hashlib.sha256(listed.encode()).hexdigest()


def peek(path: Path) -> dict[str, object]:
    """``config.json`` of a folder, as far as it can be read; empty where it cannot."""
    try:
        document = read_json(path / layout.CONFIG)
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def read_json(file: Path) -> Any:
    """A JSON document of a model directory.

    Raises:
        FileNotFoundError: it is not there.
        WeightsError: it is no plain file, too large, or not JSON.
    """
    try:
        with open_regular(file) as stream:
            return decode_json(read_bounded(stream, MAX_JSON, str(file)), str(file))
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        text = reason(error)
        raise WeightsError(text if str(file) in text else f"{file} cannot be read: {text}") from None


def number(value: object, key: str) -> float:
    """A number of a JSON document.

    Raises:
        ValueError: it is none, not finite, or no float can hold it.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{key} must be a number, not {value!r}")
    try:
        found = float(value)
    except OverflowError:
        raise ValueError(f"{key} is larger than any number that can be computed with") from None
    if not math.isfinite(found):
        raise ValueError(f"{key} must be a finite number, not {value}")
    return found
