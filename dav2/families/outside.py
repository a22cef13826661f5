"""Models made elsewhere, taken in: read once, kept as a model directory with a record of where they come from."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from dav2 import families, layout
from dav2.documents import Origin
from dav2.failures import reason
from dav2.families.directory import WeightsError, weights_digest
from dav2.families.licence_text import needed_licence
from dav2.families.loading import load, pinned
from dav2.files import open_regular, read_bounded, sha256_file, write_whole
from dav2.params import OutsideParams

if TYPE_CHECKING:
    from dav2.families.family import Model

MAX_TEXT = 2**20
"""Bytes of a licence, or of a folder's card."""
LICENCE = "licence.txt"
_STATED = re.compile(r"^licen[sc]e(_name)?:[ \t]*[\"']?([\w.+-]+)", re.MULTILINE)


def take_in(name: str, settings: OutsideParams, root: Path) -> Origin:
    """Read the model ``outside.<name>`` and write it to ``artifacts/outside/<name>``, whole or not at all.

    Args:
        root: the project's folder, at which relative paths of ``settings`` start.

    Raises:
        WeightsError: there is no such model, it is damaged, or it is not of the kind that was named.
    """
    folder = layout.outside(root, name)
    temporary = folder.with_name(f".{name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        _taken(name, settings, root, temporary).write(temporary / layout.ORIGIN)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Origin.read(folder / layout.ORIGIN)


def use_as_teacher(name: str, root: Path) -> Path:
    """Put the model ``outside.<name>``, taken in, where the teacher's stands; returns the folder.

    What a teacher trained here left is removed: it would be taken for this one's.

    Raises:
        WeightsError: it is not taken in.
    """
    source, target = layout.outside(root, name), layout.model(root, "teacher")
    if not (source / layout.ORIGIN).is_file():
        raise WeightsError(f"{source} is not there; 'dvc repro outside@{name}' takes it in")
    temporary = target.with_name(".teacher.tmp")
    for folder in (temporary, target, layout.training(root, "teacher")):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, temporary)
    temporary.rename(target)
    write_whole(
        layout.training(root, "teacher") / "note.txt", f"The teacher is outside.{name}; it was not trained here.\n"
    )
    return target


def _taken(name: str, settings: OutsideParams, root: Path, folder: Path) -> Origin:
    """Write the files of the model to ``folder``; returns what its record says."""
    source = settings.source
    registered = pinned(source) if source.startswith("models:/") else None
    place = registered or str(root / source)
    model = _model(name, settings, place)
    family = families.of_model(model)
    asked = None if settings.kind in ("onnx", "maps") else family.asks_for_licence(place)
    text = _licence_text(settings, root, Path(place), asked)
    family.save(model, folder, _card(name, settings), {"outside": name})
    if text is not None:
        write_whole(folder / LICENCE, text)
    digest = weights_digest(folder)
    return Origin(
        name=name,
        kind=settings.kind,
        source=source,
        registered=registered,
        source_sha256=digest if registered else _digest(Path(place)),
        weights_sha256=digest,
        family=family.name,
        quantity=model.quantity.value,
        licence=settings.licence or stated_licence(Path(place)) or asked,
        licence_sha256=None if text is None else hashlib.sha256(text).hexdigest(),
    )


def _model(name: str, settings: OutsideParams, place: str) -> Model:
    """The model, of whatever family can take it."""
    if settings.kind == "model":
        return load(place, "cpu", "fp32", max_depth=settings.max_depth)
    if settings.kind == "encoder":
        for each in families.names():
            if (found := families.get(each).adopt_encoder(place)) is not None:
                return found
        raise WeightsError(f"outside.{name}: {place} holds no encoder that a family could take")
    return families.get(settings.kind).describe_outside(Path(place), settings)


def _licence_text(settings: OutsideParams, root: Path, place: Path, asked: str | None) -> bytes | None:
    """Text of the licence, where one was named or the family asks for one; see :func:`needed_licence`."""
    given = None if settings.licence_file is None else root / settings.licence_file
    file = given if asked is None else needed_licence(place, given, asked)
    return None if file is None else _read_text(file)


def _digest(path: Path) -> str:
    """SHA-256 of a file; of a folder, over the names and digests of all its files."""
    if path.is_file():
        return sha256_file(path)
    files = sorted(each for each in path.rglob("*") if each.is_file())
    listed = "".join(f"{sha256_file(each)}  {each.relative_to(path).as_posix()}\n" for each in files)
    return hashlib.sha256(listed.encode()).hexdigest()


def _read_text(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            return read_bounded(file, MAX_TEXT, str(path))
    except (OSError, ValueError) as error:
        raise WeightsError(f"licence_file {path} cannot be read: {reason(error)}") from None


def stated_licence(path: Path) -> str | None:
    """The licence that a folder's card states in its head, as Hugging Face's pages have it."""
    card = path / "README.md"
    if not card.is_file():
        return None
    head = _read_text(card).decode(errors="replace").split("\n---", 1)[0]
    found = {bool(named): licence for named, licence in _STATED.findall(head)}
    # Hugging Face's pages say "other" of a licence that they have no short name for, and its name beside that.
    return found.get(True) if found.get(False) in (None, "other") else found[False]


def _card(name: str, settings: OutsideParams) -> str:
    only = "Only its encoder means anything.\n" if settings.kind == "encoder" else ""
    return f"# {name}\n\nMade elsewhere; taken in from `{settings.source}`.\n{only}"
