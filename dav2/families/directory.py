"""Model directories, whatever the family: three files, and the digest that tells models apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dav2 import layout
from dav2.files import sha256_file


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
        document = json.loads((path / layout.CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}
