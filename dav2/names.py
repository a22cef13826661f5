"""Names that come from outside, made sure of before they become file names, paths or words of a command.

Keys of ``params.yaml``, members of archives, keys of an S3 bucket and folders of models all end up as paths. A name
passes here first, or it is refused; nothing is rewritten, because two names must never become one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import PurePosixPath

LONGEST_NAME = 64
"""Characters of a name that becomes part of file names, of a command and of pages."""
LONGEST_PART = 255
"""Bytes of one part of a path: what the usual file systems hold."""
LONGEST_PATH = 4096
"""Bytes of a whole path: what Linux takes."""

_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_.-]{{0,{LONGEST_NAME - 1}}}")
_DRIVE = re.compile(r"[A-Za-z]:")
# Control characters, and halves of a character pair, which no encoding can write. Marks that turn the direction of
# writing around or are not seen at all ("Cf") are left alone: they occur in honest names of many scripts.
_FORBIDDEN = frozenset({"Cc", "Cs"})


def known(name: str, names: Iterable[str]) -> str:
    """The end of a message about a ``name`` that there is not: the nearest of ``names``, then all of them."""
    listed = list(names)
    nearest = get_close_matches(name, listed, n=1)
    meant = f"did you mean '{nearest[0]}'? " if nearest else ""
    return f"{meant}there are: {', '.join(listed) or 'none'}"


class UnsafeName(ValueError):
    """A name from outside cannot be used; the message says which, where it stands and what is allowed."""


def safe_name(name: str, what: str) -> str:
    """``name`` itself, if it is safe as a file name and as a word of a command on every system.

    Args:
        name: letters A–Z and a–z, digits, ``_``, ``.`` and ``-``; first a letter or a digit; at most 64 characters;
            no ``..`` inside and no ``.`` at the end.
        what: what the name is of, for the message ("key of sources").

    Raises:
        UnsafeName: the name is anything else.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name) or ".." in name or name.endswith("."):
        raise UnsafeName(
            f"{what}: {_shown(name)} cannot be a name; use letters A-Z and a-z, digits, '_', '-' and '.', beginning "
            f"with a letter or digit, at most {LONGEST_NAME} characters, without '..' and no '.' at the end"
        )
    return name


def safe_relative(path: str, what: str) -> PurePosixPath:
    """``path`` as a relative path that stays below the folder it is joined to.

    Any script may be used, and spaces; parts are divided by ``/``.

    Args:
        path: the path as it came from outside.
        what: what the path is of, for the message ("member of photos.zip").

    Raises:
        UnsafeName: the path is empty or absolute, has an empty part, ``.`` or ``..``, a control character, a
            backslash, a drive letter, a part of more than 255 bytes or more than 4,096 bytes in all.
    """
    reason = _why_not(path)
    if reason:
        raise UnsafeName(f"{what}: {_shown(path)} cannot be a path below a folder: {reason}")
    return PurePosixPath(path)


def _why_not(path: str) -> str | None:
    if not isinstance(path, str) or not path:
        return "it is empty"
    if any(unicodedata.category(character) in _FORBIDDEN for character in path):
        return "it has a control character"
    if path.startswith("/"):
        return "it is absolute"
    if "\\" in path or _DRIVE.match(path):
        return "it has a backslash or begins with a drive"
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts):
        return "it has a part that is empty, '.' or '..'"
    if len(path.encode()) > LONGEST_PATH or any(len(part.encode()) > LONGEST_PART for part in parts):
        return f"it is too long (a part takes {LONGEST_PART} bytes at most, the whole {LONGEST_PATH})"
    return None


def _shown(name: object) -> str:
    text = ascii(name)
    return text if len(text) <= 80 else text[:77] + "…"
