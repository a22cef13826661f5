"""What the user names on the command line → the files to predict. Whatever cannot be found or read is said, by name."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from dav2.data.raw.members import NOISE, is_noise, printable
from dav2.data.raw.sources.accounts import kind_of, tally
from dav2.data.text import decode_text
from dav2.failures import reason
from dav2.files import TEMPORARY, open_regular, read_bounded, special
from dav2.names import safe_relative
from dav2.predict.inputs import KNOWN, Failure, Input, named, suffix
from dav2.predict.marks import OURS, made_here
from dav2.walk import walk

LIST = ".txt"
MAX_LIST = 64 * 2**20
"""Bytes of a list file."""
SCHEMES = ("s3", "http", "https", "file")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_MAGIC = "*?["


@dataclass
class Found:
    """What was named: files to predict, what cannot be, and of each kind how many were left out of folders."""

    inputs: list[Input] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def told(self, failed: int) -> str:
        """The sum of all that was found, once ``failed`` of the inputs turned out to be bad."""
        count = len(self.inputs) + len(self.failures) + self.left_out.total()
        good = f"{len(self.inputs) - failed} predicted"
        return tally("files", count, good, self.left_out, len(self.failures) + failed)


def expand(patterns: Iterable[str]) -> Found:
    """Files named by paths, folders (searched through), globs, ``.txt`` lists of those, and URLs, in a fixed order."""
    result = Found()
    files: list[tuple[str, str]] = []
    for pattern in patterns:
        try:
            for one in _lines(pattern):
                _add(one, files, result)
        except Exception as error:
            result.failures.append(Failure(pattern, reason(error)))
    result.inputs = named(files)
    return result


def _add(pattern: str, files: list[tuple[str, str]], result: Found) -> None:
    before = len(files), len(result.failures)
    try:
        url = _URL.fullmatch(pattern)
        found = _remote(url[1].lower(), url[2], result) if url else _local(pattern, result)
        for path, name in found:
            try:
                files.append((path, str(safe_relative(printable(name), "its name"))))
            except ValueError as error:
                result.failures.append(Failure(path, reason(error)))
        if (len(files), len(result.failures)) == before:
            raise ValueError(_absence(pattern))
    except Exception as error:
        result.failures.append(Failure(pattern, reason(error)))


def _lines(pattern: str) -> list[str]:
    """The entries of a list file, or what was named itself."""
    if (
        not pattern.lower().endswith(LIST)
        or _URL.fullmatch(pattern)
        or not _is_there(pattern)
        or Path(pattern).is_dir()
    ):
        return [pattern]
    with open_regular(Path(pattern)) as file:
        text = decode_text(read_bounded(file, MAX_LIST, pattern), pattern)
    lines = [_unquoted(line.strip()) for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not lines:
        raise ValueError("the list names nothing")
    return [_beside(line, Path(pattern).parent) for line in lines]


def _unquoted(line: str) -> str:
    return line[1:-1] if len(line) > 1 and line[0] == line[-1] and line[0] in "\"'" else line


def _beside(line: str, folder: Path) -> str:
    """An entry relative to its list; relative to where the command runs, if it is only there."""
    if not line or _URL.fullmatch(line) or Path(line).is_absolute():
        return line
    near = str(folder / line)
    here, there = (_is_there(name) or bool(_matches(name)) for name in (line, near))
    return line if here and not there else near


def _matches(pattern: str) -> list[str]:
    """What a glob matches; nothing where the name is none. ``**`` enters folders where it stands alone."""
    if not any(sign in pattern for sign in _MAGIC):
        return []
    return sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207, since pathlib refuses patterns such as x/**.png


def _is_there(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def _local(pattern: str, result: Found) -> list[tuple[str, str]]:
    if not pattern:
        raise ValueError("an empty name; '.' is the folder one is in")
    path = Path(pattern)
    if path.is_dir():
        return [(str(path / name), name) for name in _in_folder(path, result)]
    if os.path.lexists(pattern):
        kind = special(path.stat().st_mode)
        if kind:
            raise ValueError(f"is {kind}, not a file")
        return [(pattern, path.name)]
    found = []
    if any(sign in pattern for sign in _MAGIC):
        for match in _matches(pattern):
            if Path(match).is_dir():
                result.left_out["folder"] += 1
            elif made_here(Path(match)):
                result.left_out[OURS] += 1
            elif is_noise(Path(match).name):
                result.left_out[NOISE] += 1
            elif not Path(match).is_file():
                result.failures.append(Failure(match, "is no file"))
            else:
                found.append((match, Path(match).name))
    elif not found:
        path.stat()  # says why it is not there: no such file, a name too long, a folder that is closed
    return found


def _in_folder(folder: Path, result: Found) -> list[str]:
    names = []
    for found in walk(folder):
        if found.passed_over:
            result.left_out[found.passed_over] += 1
        elif is_noise(found.name):
            result.left_out[NOISE] += 1
        elif PurePosixPath(found.name).name.startswith(TEMPORARY):
            result.left_out["unfinished"] += 1
        elif found.problem:
            result.failures.append(Failure(str(folder / found.name), found.problem))
        elif suffix(found.name) not in KNOWN:
            result.left_out[kind_of(printable(found.name))] += 1
        elif made_here(folder / found.name):
            result.left_out[OURS] += 1
        else:
            names.append(found.name)
    return sorted(names)


def _remote(scheme: str, rest: str, result: Found) -> list[tuple[str, str]]:
    if scheme not in SCHEMES:
        raise ValueError(f"{scheme}:// cannot be read; there are: {', '.join(f'{known}://' for known in SCHEMES)}")
    if scheme == "file":
        return _local(unquote(urlsplit(f"file://{rest}").path), result)
    if scheme in ("http", "https"):
        name = PurePosixPath(unquote(urlsplit(f"{scheme}://{rest}").path)).name
        if not name:
            raise ValueError("a web address must name one file; pages and folders are not searched")
        return [(f"{scheme}://{rest}", name)]
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]{1,61}[A-Za-z0-9](/.*)?", rest, re.DOTALL):
        raise ValueError("must be s3://bucket/key, the bucket's name of 3 to 63 letters, digits, dots and hyphens")
    return _in_bucket(rest, result)


def _in_bucket(rest: str, result: Found) -> list[tuple[str, str]]:
    path = rest.rstrip("/")
    found = []
    for file, name in _objects(path):
        if file == path or any(sign in path for sign in _MAGIC) or suffix(name) in KNOWN:
            found.append((f"s3://{file}", name))
        else:
            result.left_out[NOISE if is_noise(name) else kind_of(printable(name))] += 1
    return found


def _objects(path: str) -> list[tuple[str, str]]:
    """(bucket/key, name) of an object, of those a glob matches, or of all below a prefix.

    s3fs itself tries again where a server fails, long enough for a command that somebody waits for.
    """
    from dav2.data import storage

    system = storage.filesystem(f"s3://{path}")
    if any(sign in path for sign in _MAGIC):
        return [(file, PurePosixPath(file).name) for file in sorted(system.glob(path))]
    if system.isfile(path):
        return [(path, PurePosixPath(path).name)]
    if not system.isdir(path):
        return []
    return [(file, file.removeprefix(f"{path}/")) for file in sorted(system.find(path))]


def _absence(pattern: str) -> str:
    if not _URL.fullmatch(pattern) and Path(pattern).is_dir():
        return "the folder holds no image or video"
    return "no such file, folder or match"
