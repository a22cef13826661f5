"""What every stage shares: a server to report to, settings, progress that a person sees, and an honest exit code."""

from __future__ import annotations

import functools
import inspect
import logging
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, ParamSpec, TypeVar, cast
from uuid import UUID

from prefect import Flow
from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext
from prefect.logging import get_logger, get_run_logger
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_URL,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_HOME,
    temporary_settings,
)

from dav2.failures import foreseen, named
from dav2.params import Params, ParamsError, load
from flows import heavy, page, summary
from flows.page import artifact_key
from flows.processes import STATE, ServerError, home, share_state
from flows.servers import prefect_access

# DVC alone decides what is stale, and a task may only pass paths and digests on: nothing is cached by Prefect.
TASK: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False}


HEARTBEAT = 60
"""Seconds between two signs of life of a stage; of a heavy one that gives none is told (:mod:`flows.notices`)."""
PARENT = "DAV2_PARENT_TASK_RUN"
"""Variable in which a rebuild tells its stages inside which of its tasks they run."""
P = ParamSpec("P")
T = TypeVar("T")


class StageError(RuntimeError):
    """The stage cannot do its work; the message is all a person needs, without a traceback."""


def read_params(path: str = "params.yaml") -> Params:
    """``params.yaml`` of the project, as :func:`dav2.params.load`."""
    return load(path)


def run_stage(stage: Flow[..., Any], **parameters: object) -> None:
    """Run a flow as the command of a DVC stage and exit with its result.

    The flow reports to the server of :func:`flows.servers.prefect_access`. SIGTERM ends the run like Ctrl-C, so that
    children are stopped and the run is marked as cancelled, not left running. A server that is lost on the way
    costs the page (:mod:`flows.page`), not the stage. An error that explains itself is one line, without a traceback.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    share_state()
    for runs in ("flow_runs", "task_runs"):
        get_logger(runs).addFilter(_without_needless_traceback)
    try:
        params = load(str(parameters.get("params_path", "params.yaml")))
        access = prefect_access()
        settings = {
            PREFECT_API_URL: access.url,
            PREFECT_API_AUTH_STRING: access.auth,
            PREFECT_HOME: (STATE / "prefect").resolve(),
            PREFECT_FLOWS_HEARTBEAT_FREQUENCY: HEARTBEAT,
        }
        with temporary_settings(settings):
            watched = stage.with_options(flow_run_name=summary.stage_name(stage.name))
            whole = heavy.in_turn(_summed_up(watched.fn, stage.name), stage.name, params)
            watched.fn = page.outlives_server(_tagged(whole), stage.name)
            _run(watched, parameters)
    except ParamsError as error:
        print(f"{stage.name}: {error}", file=sys.stderr)
        sys.exit(2)
    except (StageError, ServerError) as error:
        sys.exit(f"{stage.name}: {error}")
    except KeyboardInterrupt:
        sys.exit(f"{stage.name}: interrupted; run the same command again to go on")
    except Exception as error:
        if not _explains_itself(error):
            raise
        sys.exit(f"{stage.name}: {named(error)}")


def _run(stage: Flow[..., Any], parameters: dict[str, object]) -> None:
    """Run a flow; inside the task of a rebuild that started this process, where there is one."""
    parent = os.environ.pop(PARENT, None)
    if parent is None:
        stage(**parameters)
        return
    from prefect.client.orchestration import get_client
    from prefect.flow_engine import run_flow
    from prefect.states import Pending

    with get_client(sync_client=True) as client:
        name = summary.stage_name(stage.name)
        run = client.create_flow_run(stage, name, parameters, parent_task_run_id=UUID(parent), state=Pending())
    run_flow(stage, flow_run=run, parameters=stage.validate_parameters(parameters))


def _summed_up(function: Callable[..., T], name: str) -> Callable[..., T]:
    """``function``, which tells its run's page at its end what it made and where to look."""

    @functools.wraps(function)
    def run(*arguments: object, **named: object) -> T:
        begun = time.monotonic()
        result = function(*arguments, **named)
        given = inspect.signature(function).bind(*arguments, **named).arguments
        summary.show(name, given, result, time.monotonic() - begun)
        return result

    return run


def _tagged(function: Callable[P, T]) -> Callable[P, T]:
    """``function``, whose run says of which project it is: several may share a server."""

    @functools.wraps(function)
    def run(*arguments: P.args, **named: P.kwargs) -> T:
        page.shown(_tag)
        return function(*arguments, **named)

    return run


def _tag() -> None:
    from prefect.client.orchestration import get_client

    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    tags = {*context.flow_run.tags, f"{home().name} on {platform.node()}"}
    with get_client(sync_client=True) as client:
        client.update_flow_run(context.flow_run.id, tags=sorted(tags))


def _explains_itself(error: BaseException) -> bool:
    """Whether its text is enough for a person; a bare ``ValueError`` may come from anywhere below."""
    return foreseen(error) and type(error) is not ValueError


def _without_needless_traceback(record: logging.LogRecord) -> bool:
    """Prefect logs every failure with its traceback; whoever runs out of disk needs the reason, not the lines."""
    error = record.exc_info[1] if record.exc_info else None
    if error is not None and _explains_itself(error):
        record.exc_info = None
        record.exc_text = None
    return True


def deliver_waiting(say: Callable[[str], None]) -> None:
    """Record trainings that MLflow could not take earlier, and ``say`` a line about each."""
    from dav2.tracking import outbox, store

    if not outbox.waiting(Path()):
        return
    try:
        for line in outbox.deliver(Path(), store.client()):
            say(line)
    except store.TrackingError as error:
        say(f"recordings wait on in .dav2/outbox: {error}")


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


class Progress:
    """Progress of a task in the Prefect page, with rate and time left in the log, at most every few seconds.

    Call it with (done, total); calls are cheap, so that inner loops may report every step.
    """

    def __init__(self, key: str, unit: str, every: float = 5.0) -> None:
        self._key, self._unit, self._every = artifact_key(f"progress-{key}"), unit, every
        self._title = f"Progress of {key}, in {unit}: how much is done"
        self._artifact: UUID | None = None
        self._begin = time.monotonic()
        self._said = self._begin
        self._first: int | None = None

    def __call__(self, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if self._first is None:
            self._first, self._begin = done, now
        if now - self._said < self._every and done < total:
            return
        self._said = now
        self._show(done, total, now, note)

    def _show(self, done: int, total: int, now: float, note: str) -> None:
        percent = 100.0 * done / max(total, 1)
        if self._artifact is None:
            made = page.shown(create_progress_artifact, percent, key=self._key, description=self._title)
            self._artifact = cast("UUID | None", made)
        else:
            page.shown(update_progress_artifact, self._artifact, percent)
        rate = (done - (self._first or 0)) / max(now - self._begin, 1e-9)
        text = f"{done}/{total} {self._unit}"
        if rate > 0:
            text += f", {rate:.1f}/s, {(total - done) / rate:.0f} s left"
        get_run_logger().info(f"{text}  {note}".rstrip())


def show_table(key: str, rows: Sequence[Mapping[str, object]], description: str) -> None:
    """Put a table on the Artifacts page."""
    page.shown(create_table_artifact, table=[dict(row) for row in rows], key=artifact_key(key), description=description)


def show_picture(key: str, path: Path, caption: str) -> None:
    """Put a picture on the Artifacts page, inside the page itself: the server has no file store to link to.

    Markdown artifacts are text, so that the picture travels as a data address; it is reduced to 900 px width first.
    """
    import base64
    import io

    from PIL import Image
    from prefect.artifacts import create_markdown_artifact

    with Image.open(path) as picture:
        picture.thumbnail((900, 900))
        buffer = io.BytesIO()
        picture.convert("RGB").save(buffer, "JPEG", quality=85)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    text = f"![{caption}](data:image/jpeg;base64,{encoded})\n\n{caption}"
    page.shown(create_markdown_artifact, text, key=artifact_key(key), description=caption)
