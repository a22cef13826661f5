"""The gate: validates the manifests of one group, writes what it found, and says whether the pipeline may go on."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dav2.documents import Verdict
from dav2.files import write_whole
from dav2.params import Params
from dav2.quality.tables import GROUPS, GateGroup, QualityError, Tables, group_sources, read_tables

if TYPE_CHECKING:
    import pandas as pd

    from dav2.quality import checkpoint
    from dav2.quality.messages import Finding

__all__ = ["GateResult", "QualityError", "validate"]

RESULT = "result.json"
DOCS = "docs"


@dataclass(frozen=True)
class GateResult:
    """Verdict of a gate.

    Attributes:
        passed: whether every critical expectation holds.
        failures: one sentence per critical expectation that does not hold: column, how many, setting, keys.
        counts: expectations, failures, warnings, frames.
        warnings: sentences of expectations whose failure is reported only.
    """

    passed: bool
    failures: list[str]
    counts: dict[str, int]
    warnings: list[str] = field(default_factory=list)


def validate(group: GateGroup, root: Path, params: Params, out: Path) -> GateResult:
    """Validate the manifests of ``group`` below ``root``.

    Writes ``out/result.json`` (the same bytes for the same manifests and settings), the Data Docs in ``out/docs`` and,
    when frames fail, a picture of them. What an earlier run left in ``out`` is replaced. Where there is no data set of
    the group, the gate passes, and its files say so.

    Args:
        group: ``synthetic``, ``real``, ``unlabelled``, ``benchmark`` or ``pseudo``.
        out: usually ``artifacts/quality/<group>``.

    Raises:
        QualityError: labels are missing, or an expectation was not evaluated.
        ManifestError: the manifest of a source is missing or cannot be read.
    """
    if group not in GROUPS:
        raise QualityError(f"no group '{group}'; there are: {', '.join(GROUPS)}")
    if not group_sources(group, params):
        return _nothing_to_judge(group, out)
    tables = read_tables(group, root, params)
    from dav2.quality import checkpoint, contact_sheet, messages, site, suites

    checkpoint.import_great_expectations()
    checked = [
        checkpoint.Table(f"{group}-frames", tables.frames, "key", suites.frames_suite(group, params)),
        checkpoint.Table(f"{group}-sources", tables.sources, "source", suites.sources_suite(group, params)),
    ]
    partial = out / f".{DOCS}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    results = checkpoint.run(checked, partial, run_name=tables.digest[:12])
    findings = [
        _with_reasons(messages.finding(result, table.rows, table.name_column), table, tables)
        for table in checked
        for result in results[table.name]
        if not result.success
    ]
    result = _verdict(findings, sum(len(table.expectations) for table in checked), len(tables.frames))
    failing = _failing_frames(findings, tables)
    contact_sheet.draw(failing, root, params, partial / "failing.jpg")
    site.finish(partial, group, result, tables)
    shutil.rmtree(out / DOCS, ignore_errors=True)
    partial.rename(out / DOCS)
    _write_result(out / RESULT, group, result, tables, failing)
    return result


def _nothing_to_judge(group: GateGroup, out: Path) -> GateResult:
    """A project without data of a group passes its gate, and the files say that nothing was looked at."""
    said = f"params.yaml has no data set of group {group}: nothing was judged."
    shutil.rmtree(out / DOCS, ignore_errors=True)
    write_whole(out / DOCS / "index.html", f"<!doctype html><title>{group}</title><p>{said}</p>\n")
    Verdict(group=group, passed=True, expectations=0, frames=0).write(out / RESULT)
    return GateResult(True, [], {"expectations": 0, "failures": 0, "warnings": 0, "frames": 0})


def _verdict(findings: list[Finding], expectations: int, frames: int) -> GateResult:
    failures = sorted(found.message for found in findings if found.severity == "critical")
    warnings = sorted(found.message for found in findings if found.severity != "critical")
    counts = {
        "expectations": expectations,
        "failures": len(failures),
        "warnings": len(warnings),
        "frames": frames,
    }
    return GateResult(passed=not failures, failures=failures, counts=counts, warnings=warnings)


def _with_reasons(found: Finding, table: checkpoint.Table, tables: Tables) -> Finding:
    """A finding about sources also says why frames are in quarantine."""
    if table.name_column != "source":
        return found
    reasons = [f"{name}: {tables.reasons[name]}" for name in found.keys if tables.reasons.get(name)]
    return replace(found, message=f"{found.message} (quarantine: {' | '.join(reasons)})") if reasons else found


def _failing_frames(findings: list[Finding], tables: Tables) -> pd.DataFrame:
    """Rows of frames that fail, critical findings first, each once."""
    ordered = sorted(findings, key=lambda found: found.severity != "critical")
    keys = list(dict.fromkeys(key for found in ordered for key in found.keys))
    rows = tables.frames[tables.frames["key"].isin(keys)].drop_duplicates("key").set_index("key", drop=False)
    return rows.reindex([key for key in keys if key in rows.index])


def _write_result(path: Path, group: str, result: GateResult, tables: Tables, failing: pd.DataFrame) -> None:
    sources = {
        row["source"]: {**json.loads(row.drop("source").to_json()), "manifest": tables.digests[row["source"]]}
        for _, row in tables.sources.iterrows()
    }
    Verdict(
        group=group,
        passed=result.passed,
        failures=result.failures,
        warnings=result.warnings,
        failing=[str(key) for key in failing["key"]],
        expectations=result.counts["expectations"],
        frames=result.counts["frames"],
        sources=sources,
        digest=tables.digest,
    ).write(path)
