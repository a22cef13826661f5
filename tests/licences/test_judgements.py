"""Judgements are data: what readers state is judged, spellings meet, and nothing unknown is allowed."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import yaml

from dav2.licences import NO_ADVICE, judge, judgements
from dav2.licences.lines import as_markdown, commercial, in_the_way, line_of, tags, verdict

ROOT = Path(__file__).parents[2]
RULES = sorted((ROOT / "dav2/data/raw/sources/rules").glob("*.yaml"))


def test_every_judgement_has_a_reason_and_a_source_and_no_spelling_stands_twice() -> None:
    seen: dict[str, str] = {}
    for terms in judgements():
        assert terms.says and terms.source, terms.name
        for spelling, version in itertools.product(terms.spellings, terms.versions or [""]):
            name = spelling.replace("{version}", version)
            assert judge(name).name == terms.name, f"{name} means {seen.get(name, judge(name).name)} already"
            seen[name] = terms.name


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_what_a_reader_states_is_judged_or_says_itself_that_it_is_not(path: Path) -> None:
    licence = yaml.safe_load(path.read_text(encoding="utf-8"))["licence"]
    if path.stem in ("image_folder", "normals", "pairs", "photos"):
        assert judge(licence).commercial == "unknown", "told in the settings, or by photograph or set"
    else:
        assert judge(licence).name != "unknown", licence


@pytest.mark.parametrize(
    ("licence", "commercial", "share_alike", "attribution"),
    [
        ("Apache-2.0", "yes", "no", "yes"),
        ("apache-2.0", "yes", "no", "yes"),
        ("Apache License 2.0", "yes", "no", "yes"),
        ("CC0 (Stefan van der Walt)", "yes", "no", "no"),
        ("CC BY 2.0 (danielbuechele, Flickr 6061409035)", "yes", "no", "yes"),
        ("cc-by-sa-3.0", "yes", "yes", "yes"),
        ("CC-BY-NC-4.0", "no", "no", "yes"),
        ("cc-by-nc-4.0", "no", "no", "yes"),
        ("CC BY-NC-SA 3.0", "no", "yes", "yes"),
        ("CC BY-ND 4.0", "unknown", "no", "yes"),
        ("none stated; research use", "unknown", "unknown", "unknown"),
        ("unknown", "unknown", "unknown", "unknown"),
        (None, "unknown", "unknown", "unknown"),
        ("", "unknown", "unknown", "unknown"),
        ("CC BY 9.9", "unknown", "unknown", "unknown"),
        ("Apache-2.0 and CC BY-NC 4.0", "unknown", "unknown", "unknown"),
        ("not Apache-2.0", "unknown", "unknown", "unknown"),
    ],
)
def test_a_licence_is_found_by_its_whole_name_only(
    licence: str | None, commercial: str, share_alike: str, attribution: str
) -> None:
    found = judge(licence)
    assert (found.commercial, found.share_alike, found.attribution) == (commercial, share_alike, attribution)


FREE = line_of("data", "irs", "Apache-2.0", "data set", [])
SHARED = line_of("data", "hypersim", "CC BY-SA 3.0", "data set", ["teacher"])
CLOSED = line_of("data", "vkitti2", "CC BY-NC-SA 3.0", "data set", ["teacher"])
OPAQUE = line_of("model", "gift", None, "model", [])


def test_one_line_in_the_way_is_enough_and_it_is_named() -> None:
    assert [commercial(lines) for lines in ([FREE], [FREE, SHARED], [FREE, OPAQUE], [OPAQUE, CLOSED], [])] == [
        *("yes", "yes", "unknown", "no", "unknown")
    ]
    assert in_the_way([FREE, SHARED, CLOSED, OPAQUE]) == [
        "vkitti2 (CC BY-NC-SA 3.0): no commercial use; what is adapted from it is passed on under the same licence",
        "gift (unknown): nobody declared a licence",
    ]
    assert verdict([FREE, SHARED, OPAQUE]) == [
        "Commercial use: not known, and so not allowed; in the way: gift (unknown).",
        "Share-alike: asked by hypersim (CC BY-SA 3.0); not known of gift (unknown).",
        "Attribution: asked by irs (Apache-2.0), hypersim (CC BY-SA 3.0); not known of gift (unknown).",
        NO_ADVICE,
    ]
    assert verdict([CLOSED])[0] == "Commercial use: not allowed; in the way: vkitti2 (CC BY-NC-SA 3.0)."


def test_tags_and_card_say_the_same() -> None:
    again = line_of("data", "irs", "MIT", "data set", [])
    assert tags([FREE, again, CLOSED]) == {
        "licence.commercial": "no",
        "licence.data.irs": "Apache-2.0; MIT",
        "licence.data.vkitti2": "CC BY-NC-SA 3.0",
    }
    card = as_markdown([FREE, CLOSED])
    assert "| data | vkitti2 (through teacher) | CC BY-NC-SA 3.0 | no | yes | yes |" in card
    assert NO_ADVICE in card
