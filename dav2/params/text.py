"""Reads YAML that a person wrote, or that came from elsewhere: every mistake is one line that says where it stands.

YAML takes more than a file of settings needs: a key may stand twice (the last wins), a few lines of aliases may unfold
to gigabytes, a value may contain itself, a date may not exist. All of it is refused here, in bounded time and memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

from dav2.names import UnsafeName, safe_name
from dav2.params.base import ParamsError

LARGEST_FILE = 1 << 20
"""Bytes; the largest of our own scales has a hundredth of it."""
DEEPEST = 40
"""Sections within sections."""
MOST_NODES = 200_000
"""Values, once every alias has been unfolded."""
LARGEST_INTEGER = 2**63 - 1


def read_text(path: Path) -> str:
    """Text of a file of settings.

    Raises:
        ParamsError: it cannot be read, is larger than 1 MiB or not UTF-8.
        FileNotFoundError: it is not there.
    """
    try:
        if path.exists() and not path.is_file():
            raise ParamsError(f"{path} is not a file")
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ParamsError(f"{path} cannot be read: {error.strerror}") from None
    return decode(data, path)


def decode(data: bytes, where: Path | str) -> str:
    """``data`` as UTF-8 text without its byte order mark.

    Raises:
        ParamsError: it is larger than 1 MiB or not UTF-8.
    """
    if len(data) > LARGEST_FILE:
        raise ParamsError(f"{where} is larger than {LARGEST_FILE >> 20} MiB, which no file of settings is")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ParamsError(
            f"{where}:{line}: byte {data[error.start]:#04x} is not UTF-8; save the file as UTF-8"
        ) from None


def parse(text: str, where: Path | str) -> dict[str, object]:
    """The mapping that ``text`` holds.

    Args:
        text: YAML.
        where: name of the file, for messages.

    Raises:
        ParamsError: it is not YAML, not a mapping, or has one of the traps named above; the message has the line.
    """
    wrong = yaml.reader.Reader.NON_PRINTABLE.search(text)
    if wrong:
        number, code = text[: wrong.start()].count("\n") + 1, ord(wrong.group())
        raise ParamsError(f"{where}:{number}: not valid YAML: a character that no text has (U+{code:04X})")
    try:
        tree = _Strict(_bounded(text)).get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        tab = mark and "\t" in (text.splitlines()[mark.line : mark.line + 1] or [""])[0]
        hint = "; there is a tab in the line, and YAML is indented by spaces alone" if tab else ""
        raise ParamsError(f"{where}{line}: not valid YAML: {error.problem or error.context}{hint}") from None
    if tree is None:
        raise ParamsError(f"{where}:1: must be a mapping of sections, and is empty")
    if not isinstance(tree, dict):
        raise ParamsError(f"{where}:1: must be a mapping of sections, not {type(tree).__name__}")
    return tree


def compose(text: str) -> yaml.Node | None:
    """The nodes of what :func:`parse` took, which know their lines."""
    node: yaml.Node | None = _Strict(_bounded(text)).get_single_node()
    return node


def check_words(tree: dict[str, object], where: Path | str) -> None:
    """Make sure that what DVC would put into commands are names, whatever version of dav2 the settings are for.

    Raises:
        ParamsError: a key, or a run that is to be scored, is no name.
    """
    try:
        _check_keys(tree, str(where))
        scored = tree.get("evaluate")
        for name in scored.get("models") or () if isinstance(scored, dict) else ():
            safe_name(name, f"{where}: evaluate.models")
    except UnsafeName as error:
        raise ParamsError(str(error)) from None


def _check_keys(tree: object, where: str) -> None:
    for key, value in tree.items() if isinstance(tree, dict) else ():
        _check_keys(value, f"{where}: {safe_name(key, where)}")


def _refuse(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def _bounded(text: str) -> list[yaml.Event]:
    """The events of ``text``, its values counted with every alias unfolded, before anything is built.

    libyaml's scanner, where PyYAML was built with it, takes a tenth of the time of the one in Python.
    """
    events: list[yaml.Event] = []
    sizes: dict[str, int] = {}  # of what each anchor names
    open_: list[tuple[str | None, int]] = []  # anchors of the collections around, and the count when each began
    count = 0
    for event in yaml.parse(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        events.append(event)
        if isinstance(event, yaml.CollectionStartEvent):
            open_.append((event.anchor, count))
            count += 1
            if len(open_) > DEEPEST:
                raise _refuse(f"nested more than {DEEPEST} deep", event.start_mark)
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_.pop()
            if anchor is not None:
                sizes[anchor] = count - before
        elif isinstance(event, yaml.ScalarEvent):
            count += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor in [anchor for anchor, _ in open_]:
                raise _refuse(f"'*{event.anchor}' stands inside of what it names", event.start_mark)
            count += sizes.get(event.anchor or "", 1)
        if count > MOST_NODES:
            raise _refuse(f"more than {MOST_NODES} values, aliases unfolded", event.start_mark)
    return events


class _Strict(Composer, SafeConstructor, Resolver):
    """Refuses keys that stand twice and numbers that nothing takes; says where a value is that cannot be built."""

    def __init__(self, events: list[yaml.Event]) -> None:
        Composer.__init__(self)
        SafeConstructor.__init__(self)
        Resolver.__init__(self)
        self._events = events
        self._at = 0

    # What the composer asks a parser for.
    def peek_event(self) -> yaml.Event | None:
        return self._events[self._at] if self._at < len(self._events) else None

    def get_event(self) -> yaml.Event | None:
        event = self.peek_event()
        self._at += 1
        return event

    def check_event(self, *kinds: type[yaml.Event]) -> bool:
        event = self.peek_event()
        return event is not None and (not kinds or isinstance(event, kinds))

    def construct_object(self, node: yaml.Node, deep: bool = False) -> object:
        try:
            value = super().construct_object(node, deep)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
            kind = node.tag.rpartition(":")[2]
            shown = node.value[:40] if isinstance(node, yaml.ScalarNode) else "this"
            raise _refuse(f"{shown!r} is no {kind}", node.start_mark) from None
        if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
            raise _refuse("a number of more than 64 bits", node.start_mark)
        return value

    def compose_mapping_node(self, anchor: dict[object, yaml.Node]) -> yaml.MappingNode:
        # Merged keys are not there yet; laying a section's own over them is what a merge is for.
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        first: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _refuse("a key must be a word", key.start_mark)
            if key.value in first:
                raise _refuse(f"key '{key.value}' stands in line {first[key.value]} too; remove one", key.start_mark)
            first[key.value] = key.start_mark.line + 1
        return node
