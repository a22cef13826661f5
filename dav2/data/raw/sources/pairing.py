"""Which files are a frame: by patterns of their names, or by the rows of a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from dav2.data.raw.archives import SourceError
from dav2.data.raw.sources.lists import Locator
from dav2.data.raw.sources.patterns import Pattern
from dav2.data.raw.tree import Tree
from dav2.data.text import decode_text
from dav2.names import LONGEST_PATH

Key = tuple[str, ...]
Rows = Callable[[list[str]], list[dict[str, str]]]
"""Reads the named columns of all rows, as text."""
CAMERA = ("fx", "fy", "cx", "cy")
_COLUMNS = {
    "image": ("image", "rgb", "photo", "img"),
    "depth": ("depth", "depth_path", "gt"),
    "mask": ("mask", "valid"),
}
_OTHERS = ("camera", "scene", "split", *CAMERA)
MOST_ROWS = 5_000_000
"""Of a table in a parquet file."""
_DELIMITERS = ",;\t|"


@dataclass(frozen=True, slots=True)
class Row:
    """Files of one frame, and what is said of it besides.

    Attributes:
        camera: (fx, fy, cx, cy) where the row itself states it; ``camera_file`` where a file does.
    """

    image: str
    depth: str
    mask: str | None = None
    camera_file: str | None = None
    camera: tuple[float, ...] | None = None
    scene: str = ""
    frame: str = ""
    split: str = ""

    @property
    def files(self) -> tuple[str, ...]:
        """All of them, image first and depth second."""
        return tuple(name for name in (self.image, self.depth, self.mask, self.camera_file) if name is not None)


@dataclass(slots=True)
class Pairing:
    """What was found.

    Attributes:
        rows: frames.
        spoiled: (name, reason) of files of which nothing tells to which frame they belong.
        halves: name → (frame, ``image`` or ``depth``) of all files that are one or the other.
    """

    rows: list[Row] = field(default_factory=list)
    spoiled: list[tuple[str, str]] = field(default_factory=list)
    halves: dict[str, tuple[object, str]] = field(default_factory=dict)


def by_patterns(names: list[str], patterns: Mapping[str, Pattern]) -> Pairing:
    """Frames whose files' named parts agree.

    Args:
        names: all files of the data set.
        patterns: of ``image``, ``depth`` and, where there are such files, ``mask`` and ``camera``.

    Raises:
        SourceError: image and depth share no named part.
    """
    image, depth = patterns["image"], patterns["depth"]
    shared = [name for name in image.names if name in depth.names]
    if not shared:
        raise SourceError(
            f"the patterns '{image.text}' and '{depth.text}' share no named part, so that nothing tells which depth "
            "belongs to which image; write for example {frame} in both"
        )
    keys = {
        kind: [name for name in shared if name in pattern.names] if kind in ("mask", "camera") else shared
        for kind, pattern in patterns.items()
    }
    there: dict[str, dict[Key, list[str]]] = {kind: {} for kind in patterns}
    parts: dict[str, dict[str, str]] = {}
    for name in names:
        # What a narrower pattern names is no image, though the image's may be wide enough for it.
        for kind in ("depth", "mask", "camera", "image"):
            found = patterns[kind].match(name) if kind in patterns else None
            if found is not None:
                there[kind].setdefault(tuple(found[each] for each in keys[kind]), []).append(name)
                parts[name] = found
                break
    result = Pairing()
    for kind in ("image", "depth"):
        result.halves |= {name: (key, kind) for key, files in there[kind].items() for name in files}
    for key, images in there["image"].items():
        depths = there["depth"].get(key, [])
        if len(images) > 1 or len(depths) > 1:
            result.spoiled += _ambiguous(images, depths)
        elif depths:
            values = dict(zip(shared, key, strict=True))
            more = {kind: _only(there, kind, keys, values) for kind in ("mask", "camera")}
            result.rows.append(_row(images[0], depths[0], more, parts[images[0]]))
    return result


def _ambiguous(images: list[str], depths: list[str]) -> Iterator[tuple[str, str]]:
    many, what = (images, "images") if len(images) > 1 else (depths, "depth files")
    other = "one depth" if what == "images" else "one image"
    reason = f"{len(many)} {what} for {other} ({', '.join(many[:3])}); name in both patterns what tells them apart"
    return ((name, reason) for name in (*images, *depths))


def _only(
    there: dict[str, dict[Key, list[str]]], kind: str, keys: dict[str, list[str]], values: dict[str, str]
) -> str | None:
    """The one file of a kind that fits a frame, where its pattern names fewer parts than the frame has."""
    if kind not in there:
        return None
    found = there[kind].get(tuple(values[name] for name in keys[kind]), [])
    return found[0] if len(found) == 1 else None


def _row(image: str, depth: str, more: dict[str, str | None], parts: dict[str, str]) -> Row:
    folder, _, file = image.replace("!/", "/").rpartition("/")
    scene = parts.get("scene", folder or "all")
    frame = "_".join(value for name, value in parts.items() if name not in ("scene", "split"))
    return Row(image, depth, more["mask"], more["camera"], None, scene, frame or file, parts.get("split", ""))


def by_table(tree: Tree, table: str, names: list[str]) -> Pairing:
    """Frames as a table in the data set lists them; paths may be absolute on its author's machine, or with backslashes.

    Raises:
        SourceError: there is no such table, or it lacks a column.
    """
    rows, columns = _read(tree, table, names)
    located, result = Locator([name for name in names if name != table]), Pairing()
    taken: dict[str, str] = {}
    for number, row in enumerate(rows, start=2):
        where = f"{table}, line {number}"
        files = {kind: row.get(column, "").strip() for kind, column in columns.items()}
        found = {kind: located(_plain(path)) for kind, path in files.items() if path and kind in (*_COLUMNS, "camera")}
        absent = [f"{files[kind] or kind}" for kind in ("image", "depth") if found.get(kind) is None]
        if absent:
            result.spoiled.append((where, f"{', '.join(absent)} is not there, or could be several files"))
            continue
        image, depth = str(found["image"]), str(found["depth"])
        twice = next((name for name in (image, depth) if name in taken), None)
        if twice is not None:
            result.spoiled.append((where, f"{twice} belongs to {taken[twice]} already"))
            continue
        taken |= {image: where, depth: where}
        numbers = [files.get(name, "") for name in CAMERA]
        camera = None
        if all(numbers):
            try:
                camera = tuple(map(float, numbers))
            except ValueError:
                result.spoiled.append((where, f"fx, fy, cx, cy are no numbers: {', '.join(numbers)}"))
                continue
        parts = {"scene": files.get("scene") or image.rpartition("/")[0] or "all", "split": files.get("split", "")}
        parts["frame"] = image.rpartition("/")[2].rpartition(".")[0]
        one = _row(image, depth, {"mask": found.get("mask"), "camera": found.get("camera")}, parts)
        result.rows.append(one if camera is None else replace(one, camera_file=None, camera=camera))
    return result


def _plain(path: str) -> str:
    """A path as its author's machine wrote it, with slashes; a drive's letter makes it absolute."""
    slashed = path.replace("\\", "/")
    return slashed[2:] if slashed[1:3] == ":/" else slashed


def _read(tree: Tree, table: str, names: list[str]) -> tuple[list[dict[str, str]], dict[str, str]]:
    """Rows of a table, and which of its columns is which."""
    if table not in names:
        raise SourceError(f"{tree.path}: no table '{table}' there")
    data = tree.read(table)
    header, rows_of = _parquet(data, table) if data[:4] == b"PAR1" else _csv(decode_text(data, table), table)
    columns = _columns(tree, table, header)
    rows = rows_of(list(columns.values()))
    if not rows:
        raise SourceError(f"{tree.path}: the table {table} has no rows")
    return rows, columns


def _columns(tree: Tree, table: str, header: list[str]) -> dict[str, str]:
    """Which column is which."""
    there: dict[str, str] = {}
    for column in header:
        if (name := column.strip().lower()) in there:
            raise SourceError(
                f"{tree.path}: the table {table} has two columns '{name}', so that nothing tells which one is meant; "
                "remove one"
            )
        there[name] = column
    columns = {kind: next((there[name] for name in names if name in there), None) for kind, names in _COLUMNS.items()}
    columns |= {name: there.get(name) for name in _OTHERS}
    lacking = [kind for kind in ("image", "depth") if columns[kind] is None]
    if lacking:
        raise SourceError(
            f"{tree.path}: the table {table} has no column '{lacking[0]}'; there are: {', '.join(header) or 'none'}"
        )
    return {kind: column for kind, column in columns.items() if column is not None}


def _csv(text: str, name: str) -> tuple[list[str], Rows]:
    first = text.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=first.count)
    try:
        reader = csv.DictReader(io.StringIO(text), delimiter=delimiter, strict=True)
        header, rows = list(reader.fieldnames or ()), list(reader)
    except csv.Error as error:
        raise SourceError(f"{name}: no table: {error}") from error
    return header, lambda wanted: [{each: row[each] or "" for each in wanted} for row in rows]


def _parquet(data: bytes, name: str) -> tuple[list[str], Rows]:
    """A column of one value takes next to no bytes, however many rows it is said to have and however long the value."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(data))
    except Exception as error:
        raise SourceError(f"{name}: damaged parquet: {error}") from error
    if file.metadata.num_rows > MOST_ROWS:
        raise SourceError(f"{name}: {file.metadata.num_rows} rows; a table may have {MOST_ROWS}")

    def rows(wanted: list[str]) -> list[dict[str, str]]:
        found: list[dict[str, str]] = []
        try:
            for batch in file.iter_batches(batch_size=1024, columns=wanted):
                found += ({key: "" if cell is None else str(cell) for key, cell in row.items()}
                          for row in batch.to_pylist())  # fmt: skip
                if any(len(cell) > LONGEST_PATH for row in found[-len(batch) :] for cell in row.values()):
                    raise SourceError(f"{name}: a cell of more than {LONGEST_PATH} letters, which no path is")
        except SourceError:
            raise
        except Exception as error:
            raise SourceError(f"{name}: damaged parquet: {error}") from error
        return found

    return list(file.schema_arrow.names), rows
