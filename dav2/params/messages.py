"""Turns validation errors into messages that name the key, its line and what is allowed there."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import ValidationError

from dav2.params.base import Section
from dav2.params.recipes import NamedTeacherParams, TeacherParams
from dav2.params.schema import NAMED, TRAINED, Params
from dav2.params.text import compose


def _line_of(node: yaml.Node | None, path: tuple[int | str, ...]) -> int | None:
    """1-based line of the deepest part of ``path`` that exists in the YAML tree."""
    line = None
    for part in path:
        if isinstance(node, yaml.MappingNode):
            pair = next(((k, v) for k, v in node.value if k.value == str(part)), None)
            if pair is None:
                return line
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            return line
    return line


def _allowed(path: tuple[int | str, ...]) -> list[str]:
    """Keys that the section containing the last part of ``path`` knows."""
    annotation: Any = Params
    if path[:1] == ("teacher",):
        annotation, path = NamedTeacherParams if NAMED in path else TeacherParams, path[1:]
    for part in path[:-1]:
        if part in (NAMED, TRAINED):
            continue
        if get_origin(annotation) is dict:
            annotation = get_args(annotation)[1]
            continue
        field = next((f for n, f in annotation.model_fields.items() if (f.alias or n) == part), None)
        annotation = field.annotation if field else Section
    return [field.alias or name for name, field in annotation.model_fields.items()]


def shown(text: str) -> str:
    """``text`` in one line of bounded length."""
    line = text if text.isprintable() else ascii(text)
    return line if len(line) <= 100 else line[:99] + "…"


def explain(error: ValidationError, text: str, path: Path) -> str:
    """One line for each problem: file and line, key, what is wrong and what is allowed."""
    tree = compose(text)
    lines = []
    for problem in error.errors():
        location = tuple(problem["loc"])
        told = tuple(part for part in location if part not in ("[key]", NAMED, TRAINED))
        name = ".".join(shown(str(part)) for part in told) or "file"
        line = _line_of(tree, told)
        where = f"{path}:{line}" if line else str(path)
        if problem["type"] == "extra_forbidden":
            allowed = ", ".join(_allowed(location))
            lines.append(f"{where}: unknown key '{name}'; allowed here: {allowed}")
        elif problem["type"] == "missing":
            lines.append(f"{where}: key '{name}' is missing")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            got = "" if isinstance(problem["input"], dict) else f" (got {shown(repr(problem['input']))})"
            lines.append(f"{where}: {name}: {message}{got}" if location else f"{where}: {message}")
    return "\n".join(lines)
