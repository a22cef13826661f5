"""Commands of the documents, as they stand there.

What a person would copy into a shell, or into Python, carries a mark that a rendered page does not show::

    <!-- walk: NAME -->                              part of a walk: all its blocks run in one folder, in this order
    <!-- walk: NAME; without LINE: reason; … -->     the same, but for lines that begin so
    <!-- not walked: reason -->                      nothing of it runs in a test
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
WALKED = tuple(f"docs/{name}.md" for name in ("predict", "starts", "own-data", "referee", "experiments", "team"))
"""The pages that the README names for what people come for."""
PROGRAMS = ("apt-get", "cp", "curl", "dav2", "dvc", "git", "infra/", "make", "mkdir", "mlflow", "pip", "python", "set")
INDENTED = re.compile(r"(?:(?<=\n\n)|\A)(?: {4}.*\n(?:\n(?= {4}))*)+")
FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"<!-- (not walked|walk): ((?:(?!-->).)*) -->\s*\Z", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """Lines of a page that a person would copy.

    Attributes:
        page: where they stand.
        language: ``shell`` or ``python``.
        text: what would be copied.
        walk: the walk they are part of; empty where they do not run.
        reason: why they do not run; empty where nobody says so.
        without: beginning of a line that does not run → why.
    """

    page: str
    language: str
    text: str
    walk: str = ""
    reason: str = ""
    without: dict[str, str] = field(default_factory=dict)

    @property
    def walked(self) -> str:
        """The lines that run."""
        lines = self.text.splitlines(keepends=True)
        return "".join(line for line in lines if not any(line.startswith(start) for start in self.without))


def blocks(page: str) -> list[Block]:
    """Every block of a page that is for a shell or for Python; what shows settings or output is none."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = [(match.start(), "python" if match[1] == "python" else "shell", match[2]) for match in FENCED.finditer(text)
             if match[1] in ("python", "bash")]  # fmt: skip
    for match in INDENTED.finditer(text):
        if match[0].strip().startswith(PROGRAMS):
            found.append((match.start(), "shell", re.sub(r"^ {4}", "", match[0], flags=re.MULTILINE)))
    return [_marked(page, language, copied, text[:start]) for start, language, copied in sorted(found)]


def _marked(page: str, language: str, copied: str, before: str) -> Block:
    mark = MARK.search(before)
    if mark is None:
        return Block(page, language, copied)
    said = " ".join(mark[2].split())
    if mark[1] == "not walked":
        return Block(page, language, copied, reason=said)
    name, *rest = said.split("; ")
    without = dict(each.removeprefix("without ").split(": ", 1) for each in rest)
    return Block(page, language, copied, walk=name, without=without)


def walk(name: str) -> list[Block]:
    """The blocks of a walk, those of the README last: it repeats in short what the pages say."""
    found = [block for page in (*WALKED, "README.md") for block in blocks(page) if block.walk == name]
    assert found, f"no page has a walk '{name}'"
    return found


def commands(page: str) -> list[str]:
    """Every line of an indented block of a page that calls ``dav2``, without its remark."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(r"^ {4}(dav2 [a-z].*?)(?: +#.*)?$", text, flags=re.MULTILINE)
