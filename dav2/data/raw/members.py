"""Names of files in archives, folders and buckets: made clean, made printable, or known for nobody's data."""

from __future__ import annotations

from pathlib import PureWindowsPath

from dav2.names import safe_relative

NOISE = "left by a file manager"
"""What counts as nobody's data: the ``._*`` companions of macOS, ``.DS_Store``, ``Thumbs.db``."""


def clean_name(name: str) -> str:
    """A member name without ``./``.

    Raises:
        ValueError: the name is absolute, climbs out with ``..``, holds control characters, is too long, or not UTF-8.
    """
    if printable(name) != name:
        raise ValueError("name is not UTF-8; rename it")
    name = name.replace("\\", "/")
    if name.startswith("/") or PureWindowsPath(name).drive:
        raise ValueError("absolute path")
    if "\0" in name:
        raise ValueError("NUL in the name")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ValueError("path climbs out of the archive with '..'")
    return str(safe_relative("/".join(parts), "name")) if parts else ""


def printable(name: str) -> str:
    """A name as it can be written down; bytes that are not UTF-8 come from the system as lone surrogates."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def is_noise(name: str) -> bool:
    """Whether a name is what file managers leave in archives and folders."""
    parts = name.split("/")
    return "__MACOSX" in parts or parts[-1].startswith("._") or parts[-1] in (".DS_Store", "Thumbs.db", "desktop.ini")
