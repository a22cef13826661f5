"""Reads ``params.yaml`` and the scales, which may be overlays of one another."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import ValidationError

from dav2.names import known
from dav2.params.base import ParamsError
from dav2.params.messages import explain
from dav2.params.schema import Params
from dav2.params.text import parse, read_text

DEFAULT_PATH = Path("params.yaml")
SCALES = Path("infra/scales")


def _read(path: Path) -> tuple[str, dict[str, object]]:
    try:
        text = read_text(path)
    except FileNotFoundError:
        hint = "run from the project folder, or write it with 'dav2 scale sample'"
        raise ParamsError(f"{path} is missing; {hint}") from None
    return text, parse(text, path)


def load(path: Path | str = DEFAULT_PATH) -> Params:
    """Read and check ``params.yaml``.

    Raises:
        ParamsError: the file is missing, is not YAML, or has an unknown, missing or wrong key.
    """
    path = Path(path)
    text, tree = _read(path)
    try:
        return Params.model_validate(tree)
    except ValidationError as error:
        raise ParamsError(explain(error, text, path)) from None


def _merge(base: dict[str, object], overlay: dict[str, object]) -> dict[str, object]:
    """``base`` with the values of ``overlay``: sections are merged, null takes a key away, all else is replaced."""
    merged = dict(base)
    for key, value in overlay.items():
        inner = merged.get(key)
        merged[key] = _merge(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return {key: value for key, value in merged.items() if value is not None}


def scale_names(folder: Path = SCALES) -> list[str]:
    """Names of the scales that there are."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


class _Plain(yaml.SafeDumper):
    """Writes a value that stands in two places twice, instead of a name for it.

    ``dvc exp run --set-param`` would change nothing, and say nothing, where the value is a name.
    """

    def ignore_aliases(self, data: object) -> bool:
        return True


def scale_text(name: str, folder: Path = SCALES) -> str:
    """Text of ``params.yaml`` at scale ``name``: the file itself, or what it changes laid over what it extends.

    Raises:
        ParamsError: there is no such scale, or it is not valid.
    """
    if name not in scale_names(folder):
        found = scale_names(folder)
        lacking = f"{folder} is missing: go to a clone of dav2"
        raise ParamsError(f"no scale named '{name}'; {known(name, found) if found else lacking}")
    path = folder / f"{name}.yaml"
    text, tree = _read(path)
    if "extends" in tree:
        base = parse(scale_text(str(tree.pop("extends")), folder), path)
        text = yaml.dump(_merge(base, tree), Dumper=_Plain, sort_keys=False, default_flow_style=None, width=120)
    try:
        Params.model_validate(parse(text, path))
    except ValidationError as error:
        raise ParamsError(explain(error, text, path)) from None
    return text
