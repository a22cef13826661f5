"""Patterns of file names with named parts: ``{scene}/rgb/{frame}.jpg``.

``{name}`` stands for letters of one part of a path, ``{name:**}`` for one or more whole folders, ``*`` for letters that
do not matter, ``**`` for any number of folders. A name that stands twice must stand for the same.
"""

from __future__ import annotations

import re

from dav2.data.raw.archives import SourceError

_PIECE = re.compile(r"\{(?P<name>[a-z_][a-z0-9_]*)(?P<deep>:\*\*)?\}|(?P<folders>\*\*/)|(?P<any>\*)", re.IGNORECASE)


class Pattern:
    """One pattern, ready to match.

    Attributes:
        names: of its named parts, in order.

    Raises:
        SourceError: it cannot be a pattern.
    """

    def __init__(self, text: str, option: str) -> None:
        if not text or text.startswith("/") or ".." in text.split("/") or "\\" in text:
            raise SourceError(f"{option}: '{text}' must be a path below the data set, its parts divided by '/'")
        self.text = text
        self.names: list[str] = []
        parts, place = [], 0
        for piece in _PIECE.finditer(text):
            parts.append(re.escape(text[place : piece.start()]))
            place = piece.end()
            parts.append(self._piece(piece))
        rest = text[place:]
        if "{" in rest or "}" in rest:
            raise SourceError(f"{option}: '{text}' has a brace without its other; parts are written {{scene}}")
        self._expression = re.compile("".join([*parts, re.escape(rest)]), re.IGNORECASE)

    def _piece(self, piece: re.Match[str]) -> str:
        if piece["folders"]:
            return r"(?:[^/]+/)*"
        if piece["any"]:
            return r"[^/]*"
        name = piece["name"].lower()
        if name in self.names:
            return f"(?P={name})"
        self.names.append(name)
        return rf"(?P<{name}>[^/]+(?:/[^/]+)*)" if piece["deep"] else rf"(?P<{name}>[^/]+?)"

    def match(self, path: str) -> dict[str, str] | None:
        """What the named parts stand for in ``path``, or ``None`` where it is another file."""
        found = self._expression.fullmatch(path.replace("!/", "/"))
        return None if found is None else found.groupdict()
