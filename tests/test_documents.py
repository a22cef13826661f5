"""What the documents say: pages that are there, and commands that exist."""

from __future__ import annotations

import re
import shlex

import pytest

from tests.pages import ROOT, WALKED, blocks, commands

PAGES = ["README.md", "llms.txt", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))]
SURFACE = dict(line.split(": ", 1) for line in (ROOT / "tests/surface.txt").read_text().splitlines() if ": " in line)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_names_files_that_are_there(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = set(
        re.findall(
            r"(?:docs|benchmarks|infra|tests|flows|dav2)/[\w./-]+\.(?:md|py|yaml|ipynb|jpg|png|json|txt)\b", text
        )
    )
    assert not [name for name in sorted(named) if not (ROOT / name).exists()]


def test_the_pages_for_people_are_those_of_llms_txt() -> None:
    text = (ROOT / "llms.txt").read_text(encoding="utf-8")
    assert set(re.findall(r"\]\((docs/[\w-]+\.md)\)", text)) == set(PAGES[2:])


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_options_that_a_page_names_exist(page: str) -> None:
    for line in commands(page):
        words = shlex.split(line.split(" | ")[0], comments=True)
        known = [name for name in SURFACE if words[: len(name.split())] == name.split()]
        groups = [name for name in SURFACE if name.startswith(f"dav2 {words[1]}")]
        assert known or groups, f"{page}: {line}"
        if known:
            options = {word.split("=")[0] for word in words if word.startswith("--")} - {"--help", "--debug"}
            assert options <= set(SURFACE[max(known, key=len)].split()), f"{page}: {line}"


def test_every_page_of_the_five_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    five = text.partition("## Five things people come for")[2].partition("\n## ")[0]
    for page in ("predict", "starts", "own-data", "referee", "experiments", "team"):
        assert f"`docs/{page}.md`" in five


@pytest.mark.parametrize("page", ["README.md", *WALKED])
def test_what_a_page_tells_people_to_copy_is_walked_or_says_why_not(page: str) -> None:
    silent = [block.text for block in blocks(page) if not (block.walk or block.reason)]
    assert not silent, f"{page}: a mark is missing (tests/pages.py says how it looks)"
    for block in blocks(page):
        assert all(block.without.values()) and (not block.walk or block.walked)
        assert all(line in f"\n{block.text}" for line in (f"\n{start}" for start in block.without))
        assert not block.walk or block.walk in (ROOT / "tests/flows/test_walks.py").read_text()
        for named in re.findall(r"(?:tests|docs)/[\w/.]+\w", block.reason + str(block.without)):
            assert (ROOT / named).is_file(), named
