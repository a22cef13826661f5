"""What Prometheus reads: whether each service is well, how far each run is, how many photographs are labelled.

``python -m flows.team metrics`` prints it once, for node_exporter's folder of text files; with ``--port`` it is
served at ``http://127.0.0.1:<port>/metrics``. All is read from the files that training and labelling write anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from dav2 import layout
from dav2.documents import DocumentError
from dav2.params import Params, load
from dav2.pseudo_label.receipts import RECEIPT
from dav2.training.journal import read_run, read_steps

HELP = {
    "dav2_service_up": "1 where a service of the team's stack is well",
    "dav2_run_step": "updates of a training run",
    "dav2_run_steps": "updates that a training run is to have",
    "dav2_run_finished": "1 where a training run is finished",
    "dav2_run_loss": "loss of the last update",
    "dav2_run_images_per_second": "images that the last update trained on per second",
    "dav2_run_peak_ratio": "share of the GPU's data sheet peak that the last update reached",
    "dav2_run_data_wait_ratio": "share of the last update's time that was spent waiting for data",
    "dav2_label_shards": "shards of a source that are labelled",
    "dav2_recordings_waiting": "recordings that MLflow has not taken yet",
}
Sample = tuple[str, dict[str, str], float]


def samples(root: Path, wrong: dict[str, str]) -> Iterator[Sample]:
    """Name, labels and value of every metric of the project at ``root``.

    Args:
        wrong: service → what is wrong with it, empty where nothing is.
    """
    for service, problem in wrong.items():
        yield "dav2_service_up", {"service": service}, float(not problem)
    for folder in sorted((root / layout.TRAINING).glob("*")):
        yield from _run(folder)
    params = load(root / "params.yaml")
    yield from _labels(root, params)
    waiting = [each for each in (root / layout.STATE / "outbox").glob("*") if not each.name.startswith(".")]
    yield "dav2_recordings_waiting", {}, float(len(waiting))


def _run(folder: Path) -> Iterator[Sample]:
    label, steps = {"run": folder.name}, read_steps(folder)
    try:
        record = read_run(folder)
    except DocumentError:
        record = None
    if record is not None:
        yield "dav2_run_steps", label, float(record.steps)
        yield "dav2_run_finished", label, float(record.status == "finished")
    if steps:
        last = steps[-1]
        yield "dav2_run_step", label, float(last.step)
        yield "dav2_run_images_per_second", label, last.images_per_second
        yield "dav2_run_data_wait_ratio", label, last.data_wait
        if last.peak_share is not None:
            yield "dav2_run_peak_ratio", label, last.peak_share
        if last.loss is not None:
            yield "dav2_run_loss", label, last.loss


def _labels(root: Path, params: Params) -> Iterator[Sample]:
    for source in params.pseudo_label.sources:
        found = list((root / params.labels(source)).glob(f"*{RECEIPT}"))
        yield "dav2_label_shards", {"source": source}, float(len(found))


def text(found: Iterator[Sample]) -> str:
    """Samples in Prometheus' text format, those of a metric together."""
    lines: dict[str, list[str]] = {}
    for name, labels, value in found:
        inside = ",".join(f'{key}="{each}"' for key, each in labels.items())
        lines.setdefault(name, []).append(f"{name}{{{inside}}} {value:g}" if inside else f"{name} {value:g}")
    heads = {name: [f"# HELP {name} {HELP[name]}", f"# TYPE {name} gauge"] for name in lines}
    return "\n".join(line for name in lines for line in (*heads[name], *lines[name])) + "\n"


def serve(root: Path, port: int, ask: Callable[[], dict[str, str]]) -> None:
    """Serve the metrics to this machine until the process is ended.

    Args:
        ask: called for what is wrong with each service.
    """

    class Handler(BaseHTTPRequestHandler):
        """Answers one path."""

        def do_GET(self) -> None:
            """The metrics as they are now."""
            if self.path != "/metrics":
                self.send_error(404)
                return
            body = text(samples(root, ask())).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Not a line for each question."""

    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
