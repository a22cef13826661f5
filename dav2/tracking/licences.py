"""Which licences a model stands on: every data set, teacher, encoder and start in its lineage, judged one by one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dav2 import layout
from dav2.data.ranges import read_ranges
from dav2.data.store.manifest import ManifestError, read_manifest, shard_path
from dav2.documents import LicenceLine, Origin
from dav2.files import write_whole
from dav2.licences import judge
from dav2.licences.lines import as_markdown, line_of, with_section
from dav2.params import Params
from dav2.runs import get_run
from dav2.tracking.lineage import read_origin

Registered = Callable[[str], list[LicenceLine] | None]
BY_FRAME = "by photograph"
"""How the licence of a data set begins whose frames each carry their own."""


def licences_of_run(run: str, root: Path, params: Params, registered: Registered) -> list[LicenceLine]:
    """Everything that the run ``run`` learned from, its parents' teachers and data included; each thing once.

    A data set that is not at hand, and a registered model of which nothing is known, are unknown.

    Args:
        run: its name.
        root: the project's folder.
        params: settings.
        registered: gives what a registered version stands on (:func:`dav2.tracking.registry.licences_of`).

    Raises:
        TrackingError: the record of a model made elsewhere is missing.
    """
    lines: dict[tuple[str, str, str], LicenceLine] = {}
    for line in _walk(run, root, params, registered, []):
        lines.setdefault((line.kind, line.name, line.licence), line)
    return list(lines.values())


def _walk(run: str, root: Path, params: Params, registered: Registered, through: list[str]) -> Iterator[LicenceLine]:
    described = get_run(params, run)
    for source in described.sources:
        stated, declared = _stated(root / params.shards(source)), params.licences.get(source)
        if declared is None:
            for licence in stated:
                yield line_of("data", source, licence, "data set", through)
        else:
            others = [each for each in stated if each != declared and judge(each).name != "unknown"]
            against = f"params.yaml (its reader says {'; '.join(others)})" if others else "params.yaml"
            yield line_of("data", source, declared, against, through)
    for name in described.outside.values():
        yield from _outside(read_origin(layout.outside(root, name)), registered, through)
    for parent in described.parents.values():
        yield from _walk(parent, root, params, registered, [*through, parent])


def _outside(origin: Origin, registered: Registered, through: list[str]) -> Iterator[LicenceLine]:
    """A model made elsewhere; one of a registry without a licence of its own stands on what it was made from."""
    below = registered(origin.registered) if origin.licence is None and origin.registered else None
    if not below:
        yield line_of("model", origin.name, origin.licence, "model", through)
        return
    for line in below:
        yield line.model_copy(update={"through": [*through, origin.name, *line.through]})


def _stated(shards: Path) -> list[str]:
    """Licences that a data set states, as its manifest has them, or its frames where each has its own."""
    try:
        table = read_manifest(shards)
    except ManifestError:
        return ["unknown"]
    found: dict[str, None] = {}
    for licence, rows in table.groupby("licence", sort=True, dropna=False):
        if str(licence).startswith(BY_FRAME):
            found |= dict.fromkeys(sorted({_of_frame(shards, row) for row in rows.to_dict("records")}))
        else:
            found[str(licence) if licence else "unknown"] = None
    return list(found)


def _of_frame(shards: Path, row: dict[str, Any]) -> str:
    try:
        place = (shard_path(shards, row["shard"]), int(row["offset_json"]), int(row["size_json"]))
        described = json.loads(read_ranges([place])[0])
    except (OSError, ValueError):
        return "unknown"
    return str(described.get("extra", {}).get("licence") or "unknown")


def complete_card(run: str, root: Path, params: Params, registered: Registered) -> None:
    """Write what the finished run ``run`` was made from into its model's card; doing it twice changes nothing.

    Raises:
        TrackingError: the record of a model made elsewhere is missing.
    """
    path = layout.model(root, run) / layout.CARD
    section = as_markdown(licences_of_run(run, root, params, registered))
    write_whole(path, with_section(path.read_text("utf-8"), section))
