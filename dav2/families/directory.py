"""Model directories, whatever the family: three files, and the digest that tells models apart."""

from __future__ import annotations

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


def weights_digest(path: Path | str) -> str:
    """SHA-256 of the weights file of a model directory (or of the file itself), in hexadecimal.

    It covers the settings too, which are stored in the file's header.

    Raises:
        WeightsError: there is no such file.
    """
    path = Path(path)
    file = path / layout.WEIGHTS if path.is_dir() else path
    try:
        return sha256_file(file)
    except FileNotFoundError:
        raise WeightsError(f"{file} is missing") from None


def peek(path: Path) -> dict[str, Any]:
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


def number(value: Any, key: str) -> float:
    """A number of a JSON document.

    Raises:
        ValueError: it is none, or no float can hold it.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{key} must be a number, not {value!r}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{key} is larger than any number that can be computed with") from None
