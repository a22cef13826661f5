"""What every data set's reader has in common.

A reader says how its files are named and encoded, nothing else: ``items`` lists the frames without opening them,
``load`` reads one. Looking for the files, archives, cleaning rules, options and error texts are shared and live here.
"""

from __future__ import annotations

import contextlib
import sys
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar, Generic, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from dav2.data.frame import Frame, FrameError, Intrinsics, make_key
from dav2.data.images import SUFFIXES, Decoded, decode
from dav2.data.raw.archives import SourceError, is_damage
from dav2.data.raw.folders import missing
from dav2.data.raw.normals import normals_from_depth
from dav2.data.raw.sources.accounts import Accounts, halves, kind_of, some
from dav2.data.raw.sources.cleaning import Rules, load_rules
from dav2.data.raw.sources.item import Item, Options, distinct, without_suffix
from dav2.data.raw.sources.lists import Locator, read_lines
from dav2.data.raw.tree import Tree
from dav2.data.text import decode_text
from dav2.failures import reason

UNREAD_ARCHIVES = (".7z", ".rar")


OptionsType = TypeVar("OptionsType", bound=Options)


class Reader(ABC, Generic[OptionsType]):
    """Base of all readers; see the module's text."""

    group: ClassVar[str] = "synthetic"
    rules_name: ClassVar[str]
    options_type: ClassVar[type[Options]] = Options
    metric: ClassVar[bool] = True
    halves_are_usual: ClassVar[bool] = False
    """Whether the set is published with files that have no other half; they are left out then, and fail otherwise."""
    files_elsewhere: ClassVar[bool] = False
    """Whether items name files that are not among the data set's own."""

    def __init__(self, path: str, name: str, options: dict[str, object]) -> None:
        self.path, self.name = str(path), name
        self.options: OptionsType = self._checked(options)
        self.rules: Rules = load_rules(self.options.rules or self.rules_name)
        self.tree = Tree(path)
        self._notes: list[str] = []
        self._spoiled: list[tuple[str, str]] = []
        self.accounts = Accounts(0)
        """What became of each file, by the last ``index``."""

    @property
    def licence(self) -> str:
        """Licence of the data set, as its authors state it."""
        return self.rules.licence

    @abstractmethod
    def items(self, names: list[str]) -> list[Item]:
        """Frames among the data set's files; may add to ``self._notes``."""

    def listed(self, items: list[Item], names: list[str]) -> list[Item]:
        """The items that the option ``list`` names; all where it is not given."""
        if self.options.list is None:
            return items
        locate = Locator([item.paths[0] for item in items])
        lines = [fields[0] for fields in read_lines(self.tree, self.options.list, names)]
        wanted = [locate(line) for line in lines]
        chosen = set(wanted)
        if items and chosen <= {None}:
            raise SourceError(
                f"{self.path}: none of the {len(wanted)} lines of the list {self.options.list} names a frame there"
            )
        absent = [line for line, found in zip(lines, wanted, strict=True) if found is None]
        self._notes.append(
            f"frames: {len(chosen - {None})} of {len(wanted)} of the list {self.options.list}"
            + (f"; not there: {some(absent)}" if absent else "")
        )
        return [item for item in items if item.paths[0] in chosen]

    def part(self, name: str) -> tuple[object, str] | None:
        """The frame that a file belongs to and which half of it it is, ``image`` or ``depth``; ``None`` for others.

        A frame of which one half is missing is named by the base. Sets without depth have no halves.
        """
        return None

    @contextlib.contextmanager
    def side_file(self, name: str) -> Iterator[None]:
        """What reading a side file raises is that file's failure; frames go on without it."""
        try:
            yield
        except Exception as error:
            if isinstance(error, SourceError) or not is_damage(error):
                raise
            self._spoiled.append((name, reason(error)))

    def text(self, name: str) -> str:
        """A text file of the data set; FrameError where it is none."""
        return decode_text(self.tree.read(name), name)

    @abstractmethod
    def load(self, item: Item) -> Frame:
        """Read one frame of ``items``."""

    def index(self) -> list[Item]:
        """All frames there are, in order, cleaned by the rules."""
        self._notes = [f"promised: {p.frames} frames, {p.subset} ({p.source})" for p in self.rules.promised]
        self._spoiled = []
        try:
            names = self.tree.names()
            everything = self.items(names)
            found = self.listed(everything, names)
        except FrameError as error:
            raise SourceError(f"{self.path}: {error}") from error
        refused = [*self.tree.refused(), *self._spoiled, *self._halves(names)]
        if not found:
            why = "".join(f"; {name}: {reason}" for name, reason in refused[:3])
            packed = next((name for name in names if name.lower().endswith(UNREAD_ARCHIVES)), None)
            why += f"; {packed} is an archive that cannot be read in place: unpack it first" if packed else ""
            raise SourceError(f"{missing(self.path)}; nothing there looks like {self.rules.title}{why}")
        there = set() if self.files_elsewhere else set(names)
        kept: list[Item] = []
        left_out: Counter[str] = Counter()
        for item in found:
            why_not = self.rules.excluded(self.ident(item))
            if why_not:
                left_out[why_not] += 1
            else:
                kept.append(self._whole(item, there))
        self._notes += [f"left out: {count} frames, {reason}" for reason, count in sorted(left_out.items())]
        self._account(names, everything, kept, refused)
        kept += [self.refused("refused", name or "archive", name, reason) for name, reason in refused]
        return distinct(sorted(kept, key=lambda item: (item.key, item.paths)))

    def _whole(self, item: Item, there: set[str]) -> Item:
        """The item, or a refused one in its place where a file of it is not there."""
        absent = [name for name in item.paths if name not in there] if there else []
        if not absent or "refused" in item.extra:
            return item
        paths = tuple(name for name in item.paths if name in there) or item.paths
        return replace(item, paths=paths, extra={"refused": f"half a frame: {', '.join(absent)} is not there"})

    def _halves(self, names: list[str]) -> list[tuple[str, str]]:
        """Files without their other half, as refusals; where that is usual, said in a note instead."""
        if type(self).part is Reader.part:
            return []
        alone = halves(names, self.part)
        if alone and (self.halves_are_usual or self.options.list is not None):
            self._notes.append(f"left out: {len(alone)} files are half a frame: {some([name for name, _ in alone])}")
            return []
        return alone

    def _account(self, names: list[str], items: list[Item], kept: list[Item], refused: list[tuple[str, str]]) -> None:
        """Say what became of every file."""
        there = set(names)
        used, failed = set[str](), {name for name, _ in refused}
        for item in kept:
            (failed if "refused" in item.extra else used).update(there.intersection(item.paths))
        dropped = {name for item in items for name in item.paths if name in there} - used - failed
        rest = there - used - failed - dropped
        left_out = self.tree.left_out() + Counter(map(kind_of, rest)) + Counter({"of frames left out": len(dropped)})
        gone = sum(name not in there for name, _ in refused)
        self.accounts = Accounts(len(used), left_out, gone + len((failed & there) - used))
        self._notes.append(str(self.accounts))

    def refused(self, scene: str, frame: str, path: str, reason: str) -> Item:
        """An item for what cannot be a frame: reading it raises, so that it is quarantined and counted."""
        return Item(make_key(self.name, scene, frame), scene, "", (path,), {"refused": reason})

    def read(self, item: Item) -> Frame:
        """One frame, whole."""
        if "refused" in item.extra:
            raise FrameError(f"{self.path}: {item.paths[0]}: {item.extra['refused']}")
        frame = self.load(item)
        method = self.options.normals_from_depth
        if method is None or frame.normals is not None or frame.depth is None or frame.intrinsics is None:
            return frame
        normals = normals_from_depth(frame.depth, frame.intrinsics, method)
        return replace(frame, normals=normals) if np.isfinite(normals).any() else frame

    def notes(self) -> list[str]:
        """Sentences about what was found, for people."""
        return list(self._notes)

    def ident(self, item: Item) -> str:
        """The key without the source's name: what cleaning rules match."""
        return item.key.partition("/")[2]

    def image(self, name: str) -> Decoded:
        """Read and decode an image of the data set."""
        data = self.tree.read(name)
        self.rules.check_file(data, name)
        return decode(data, name, max_pixels=self.options.max_pixels)

    def labelled(
        self,
        item: Item,
        image: Decoded,
        depth: NDArray[np.floating],
        intrinsics: Intrinsics | None = None,
        extra: dict[str, object] | None = None,
    ) -> Frame:
        """A frame with depth as the data set stores it, cleaned by the rules.

        Raises:
            FrameError: image and depth differ in size, or the frame is refused by the rules.
        """
        if depth.shape != image.rgb.shape[:2]:
            swapped = depth.shape == image.rgb.shape[1::-1]
            raise FrameError(
                f"{item.paths[-1]}: depth is {depth.shape[1]} × {depth.shape[0]}, "
                f"but {item.paths[0]} is {image.rgb.shape[1]} × {image.rgb.shape[0]}"
                + ("; rows seem to be stored as columns" if swapped else "")
            )
        cleaned = self.rules.clean_depth(depth, self.ident(item))
        self.rules.check_frame(image.rgb, cleaned, self.ident(item))
        return Frame(
            item.key,
            image.rgb,
            cleaned,
            metric=self.metric,
            intrinsics=intrinsics,
            jpeg=image.upright_jpeg,
            extra=extra or {},
        )

    def _checked(self, options: dict[str, object]) -> OptionsType:
        try:
            return cast(OptionsType, self.options_type.model_validate(options))
        except ValidationError as error:
            allowed = ", ".join(self.options_type.model_fields)
            problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise SourceError(f"options of source '{self.name}': {problems}; allowed: {allowed}") from None


class Photographs(Reader[OptionsType]):
    """Base of the unlabelled sets: every image file is a frame, named after its path."""

    group = "unlabelled"
    suffixes: ClassVar[tuple[str, ...]] = SUFFIXES

    def place(self, name: str) -> tuple[str, str] | None:
        """(scene, frame) of an image file, or ``None`` where it is not part of the data set."""
        stem = without_suffix(name.replace("!/", "/"))
        scene, _, frame = stem.rpartition("/")
        return scene or "all", frame

    def items(self, names: list[str]) -> list[Item]:
        """Every image file that :meth:`place` takes for one of the data set, by the name alone; nothing is opened."""
        found = []
        for name in names:
            place = self.place(name) if name.lower().endswith(self.suffixes) else None
            if place:
                # Interned, because millions of frames share a scene.
                found.append(Item(make_key(self.name, *place), sys.intern(place[0]), "train", (name,)))
        return found

    def load(self, item: Item) -> Frame:
        """The photograph as it is, without depth."""
        image = self.image(item.paths[0])
        return Frame(item.key, image.rgb, jpeg=image.upright_jpeg)
