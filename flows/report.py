"""Stage ``report``: one self-contained page, the metrics of ``dvc metrics show`` and the data of ``dvc plots``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_link_artifact
from prefect.logging import get_run_logger

from dav2 import layout
from flows.page import shown
from flows.runtime import TASK, read_params, run_stage, show_table

OUT = Path(layout.REPORTS)


@task(**TASK)
def write(params_path: str) -> str:
    """Write ``reports/``, with what changed against the champion if there is one; returns the page's path."""
    from dav2.report import write_report
    from dav2.tracking.registry import champion_scores
    from dav2.tracking.store import TrackingError

    params = read_params(params_path)

    def champion(run: str) -> dict[str, Any] | None:
        try:
            return champion_scores(run, Path(), params)
        except TrackingError as error:
            get_run_logger().warning(f"the report compares {run} with no champion: {error}")
            return None

    return str(write_report(params, Path(), OUT, champion=champion))


@flow(name="report")
def report_flow(params_path: str = "params.yaml") -> str:
    """Gather scores, curves, pictures and lineage into one page."""
    page = Path(write(params_path))
    scores = json.loads((OUT / "metrics.json").read_text())["da2k"]
    rows = [
        {"model": model, "accuracy": round(100 * value["accuracy"], 1), "low": value["low"], "high": value["high"]}
        for model, value in scores.items()
    ]
    show_table("da2k", rows, "DA-2K accuracy in percent, with its 95 % interval")
    shown(create_link_artifact, page.resolve().as_uri(), key="report", link_text="The report page on this machine")
    return str(page)


if __name__ == "__main__":
    run_stage(report_flow)
