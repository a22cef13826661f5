"""What the licences of several things together allow a model that was made from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from dav2.documents import LicenceLine
from dav2.licences import NO_ADVICE, Answer, judge


def line_of(
    kind: Literal["data", "model"], name: str, licence: str | None, declared: str, through: Sequence[str]
) -> LicenceLine:
    """One thing with its licence, judged; see :class:`dav2.documents.LicenceLine`."""
    terms = judge(licence)
    return LicenceLine(
        kind=kind,
        name=name,
        through=list(through),
        licence=licence or "unknown",
        declared=declared,
        commercial=terms.commercial,
        share_alike=terms.share_alike,
        attribution=terms.attribution,
        says=terms.says,
        source=terms.source,
    )


def commercial(lines: Sequence[LicenceLine]) -> Answer:
    """Whether everything allows commercial use; ``unknown`` where something is not known and nothing forbids it."""
    answers = {line.commercial for line in lines}
    return "no" if "no" in answers else "unknown" if "unknown" in answers or not lines else "yes"


def in_the_way(lines: Sequence[LicenceLine]) -> list[str]:
    """What stands in the way of commercial use: ``name (licence): why``."""
    return [f"{line.name} ({line.licence}): {line.says}" for line in lines if line.commercial != "yes"]


def verdict(lines: Sequence[LicenceLine]) -> list[str]:
    """The judgement in sentences: commercial use, share-alike, attribution."""
    answer = commercial(lines)
    blocking = [f"{line.name} ({line.licence})" for line in lines if line.commercial != "yes"]
    told = {
        "yes": "Commercial use: allowed by everything it was made from.",
        "no": f"Commercial use: not allowed; in the way: {', '.join(blocking)}.",
        "unknown": f"Commercial use: not known, and so not allowed; in the way: {', '.join(blocking) or 'no lineage'}.",
    }[answer]
    return [told, _asked(lines, "share_alike"), _asked(lines, "attribution"), NO_ADVICE]


def _asked(lines: Sequence[LicenceLine], term: Literal["share_alike", "attribution"]) -> str:
    """Who asks for it, and of whom that is not known."""
    said = {
        answer: ", ".join(
            dict.fromkeys(f"{line.name} ({line.licence})" for line in lines if getattr(line, term) == answer)
        )
        for answer in ("yes", "unknown")
    }
    parts = [f"asked by {said['yes']}"] if said["yes"] else []
    parts += [f"not known of {said['unknown']}"] if said["unknown"] else []
    return f"{term.capitalize().replace('_', '-')}: {'; '.join(parts) or 'asked by nothing'}."


def tags(lines: Sequence[LicenceLine]) -> dict[str, str]:
    """The judgement as tags of a registered version; several licences of one thing stand side by side."""
    found: dict[str, str] = {"licence.commercial": commercial(lines)}
    for line in lines:
        key = f"licence.{line.kind}.{line.name}"
        found[key] = f"{found[key]}; {line.licence}" if key in found else line.licence
    return found


HEADING = "## Licences of what it was made from"


def with_section(card: str, section: str) -> str:
    """A model's card with the section of :func:`as_markdown` at its end, in place of an older one."""
    return f"{card.split(HEADING, 1)[0].rstrip()}\n\n{section}"


def as_markdown(lines: Sequence[LicenceLine]) -> str:
    """The section of a model's card."""
    rows = [
        f"| {line.kind} | {line.name}{_by(line)} | {line.licence} | {line.commercial} | {line.share_alike} | "
        f"{line.attribution} |"
        for line in lines
    ]
    table = [
        "| what | name | licence | commercial use | share-alike | attribution |",
        "|---|---|---|---|---|---|",
        *rows,
    ]
    return "\n".join([HEADING, "", *verdict(lines), "", *table, ""])


def _by(line: LicenceLine) -> str:
    return f" (through {', '.join(line.through)})" if line.through else ""
