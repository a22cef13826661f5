"""What a stage leaves on its run's page for a stranger: what it did, what came out, and where to look."""

from __future__ import annotations

import os

from prefect.artifacts import create_markdown_artifact

from dav2 import layout
from flows import processes
from flows.documents import address
from flows.page import access_in_use, artifact_key, shown

SECTIONS = {
    "ingest": "data", "validate": "data", "pseudo_label": "data", "select": "data", "outside": "lineage",
    "train": "training", "codec": "training", "latents": "data", "evaluate": "scores", "report": "scores",
    "register": "lineage",
}  # fmt: skip
"""Flow → section of the report that tells of it."""


def stage_name(flow: str) -> str:
    """The stage of ``dvc.yaml`` that runs, or the flow's own name outside of DVC."""
    return os.environ.get("DVC_STAGE") or flow


def show(flow: str, parameters: dict[str, object], result: object, seconds: float) -> None:
    """Put the summary of a stage that ended well on its run's page; flows that are no stage tell in their own way."""
    if flow not in SECTIONS:
        return
    stage = stage_name(flow)
    lines = [f"## {stage}", f"Done in {seconds:.0f} s. Where to look:", *_links(flow, parameters, result)]
    title = f"Start here: what stage {stage} made, and where to look"
    shown(create_markdown_artifact, "\n".join(lines), key=artifact_key(f"summary-{stage}"), description=title)


def _links(flow: str, parameters: dict[str, object], result: object) -> list[str]:
    access, found = access_in_use(), list[str]()
    report = f"{layout.REPORTS}/index.html"
    page = address(access, report)
    later = "" if flow == "report" else " (as of the last stage `report`)"
    section = f"the report, section {SECTIONS[flow]}"
    found.append(_link(section, f"{page}#{SECTIONS[flow]}" if page else None, report) + later)
    group = parameters.get("group")
    if flow == "validate" and group:
        path = f"{layout.QUALITY}/{group}/docs/index.html"
        found.append(_link(f"Data Docs of the gate {group}", address(access, path), path))
    if isinstance(result, dict) and "run_id" in result:
        page = f"/#/experiments/{result['experiment_id']}/runs/{result['run_id']}?workflowType=machine_learning"
        found.append(_link("its run in MLflow: curves, pictures, checkpoints", _mlflow(page), "dav2 up"))
    if flow == "register":
        found.append(_link("registered models in MLflow", _mlflow("/#/models"), "dav2 models"))
    return [f"- {line}" for line in found]


def _link(text: str, url: str | None, otherwise: str) -> str:
    return f"[{text}]({url})" if url else f"{text}: `{otherwise}`"


def _mlflow(page: str) -> str | None:
    """Address on the MLflow page, where one is up."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if uri.startswith(("http://", "https://")):
        return f"{uri.rstrip('/')}{page}"
    own = processes.running("mlflow")
    return f"{own.url}{page}" if own is not None else None
