"""Stages ``validate@<group>``: expectations on the manifests of a group; a failed gate stops the pipeline."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact

from dav2 import layout
from dav2.quality.tables import GROUPS, GateGroup
from flows.page import shown
from flows.runtime import TASK, StageError, read_params, run_stage, show_picture


@task(task_run_name="validate-{group}", **TASK)
def validate_group(group: GateGroup, params_path: str) -> dict[str, Any]:
    """Run the suite of ``group``, write its result and Data Docs; returns the result."""
    from dav2 import quality

    result = quality.validate(group, Path(), read_params(params_path), layout.quality(Path(), group))
    return {"passed": result.passed, "failures": result.failures, "counts": result.counts}


@flow(name="validate")
def validate_flow(group: GateGroup, params_path: str = "params.yaml") -> dict[str, Any]:
    """Judge the data of one group: synthetic, real, unlabelled, benchmark or pseudo."""
    result = validate_group(group, params_path)
    docs = layout.quality(Path(), group)
    verdict = "passed" if result["passed"] else "failed"
    lines = [f"# Gate {group}: {verdict}", *(f"- {failure}" for failure in result["failures"])]
    title = f"Data gate {group}: {verdict}; what every data set of the group must hold"
    shown(create_markdown_artifact, "\n".join(lines), key=f"gate-{group}", description=title)
    for picture in sorted((docs / "docs").glob("*.jpg")):
        shows = picture.stem.replace("-", " ").replace("_", " ")
        show_picture(f"gate-{group}-{picture.stem}", picture, f"Data gate {group}: {shows}")
    if not result["passed"]:
        listed = "\n  ".join(result["failures"])
        raise StageError(f"the gate for {group} data failed:\n  {listed}\nsee {docs}/docs/index.html")
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--group", required=True, choices=GROUPS)
    run_stage(validate_flow, group=parser.parse_args().group)
