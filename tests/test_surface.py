"""What other people build on, written down in ``tests/surface.txt``: a change of it is made on purpose, in both places.

``python -m tests.test_surface`` writes the file anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from typer.main import get_command

import dav2
from dav2.cli import COMMANDS, build
from dav2.data.raw.sources import READERS
from dav2.params import Params
from dav2.predict.writers import WRITERS

RECORD = Path(__file__).with_name("surface.txt")


def sections(model: type[BaseModel], where: str = "") -> Iterator[str]:
    """``key: keys below it`` for every section of ``params.yaml``; ``*`` stands for names of one's own."""
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    yield f"params {where or '(top)'}: {' '.join(sorted(fields))}"
    for name, field in fields.items():
        for kind, mark in _models(field.annotation):
            yield from sections(kind, f"{where}.{name}{mark}".removeprefix("."))


def _models(annotation: Any) -> Iterator[tuple[type[BaseModel], str]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, ""
    for argument in get_args(annotation):
        if isinstance(argument, type) and issubclass(argument, BaseModel):
            yield argument, ".*"
        for kind in get_args(argument)[:1]:
            # One of several sections, told apart by what stands in it.
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield kind, ""


def commands() -> Iterator[str]:
    """``dav2 command: options``."""
    for name in sorted(COMMANDS):
        group: Any = get_command(build(name))
        yield from _options(group.commands[name], f"dav2 {name}")


def _options(command: Any, name: str) -> Iterator[str]:
    if hasattr(command, "commands"):
        for each in sorted(command.commands):
            yield from _options(command.commands[each], f"{name} {each}")
        return
    words = [word for parameter in command.params for word in parameter.opts]
    yield f"{name}: {' '.join(sorted(words))}"


def surface() -> str:
    """Everything that is promised, a line each."""
    lines = [f"python: {' '.join(sorted(dav2.__all__))}"]
    lines += [f"readers: {' '.join(sorted(READERS))}", f"predict --save: {' '.join(sorted(WRITERS))}"]
    return "\n".join([*lines, *commands(), *sections(Params)]) + "\n"


def test_the_public_surface_is_the_one_that_was_decided_on() -> None:
    assert surface() == RECORD.read_text(encoding="utf-8"), "if this change is wanted: python -m tests.test_surface"


if __name__ == "__main__":
    RECORD.write_text(surface(), encoding="utf-8")
