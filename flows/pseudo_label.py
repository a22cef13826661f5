"""Stage ``pseudo_label``: the teacher labels every unlabelled photograph, shard by shard, once.

A shard that has a valid receipt is left alone. The others are spread over the workers; one that fails is tried again,
then set aside and reported while the rest goes on, and the stage ends with an error. Tasks run in threads that wait for
a worker: processes and Ray actors are held by :mod:`dav2.pseudo_label.workers`, not by a Prefect task runner, so that a
killed worker costs one shard, not the pool, and a model stays loaded from shard to shard.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import flow, task
from prefect.futures import PrefectFuture, as_completed
from prefect.logging import get_run_logger
from prefect.runtime import task_run
from prefect.task_runners import ThreadPoolTaskRunner

from dav2 import layout, limits, locks, machine
from dav2.files import remove_unfinished, write_whole
from dav2.params import NamedTeacherParams, Params, PseudoLabelParams
from flows.processes import STATE
from flows.runtime import TASK, Progress, StageError, read_params, run_stage, show_picture, show_table

if TYPE_CHECKING:
    from dav2.pseudo_label.receipts import LabelOptions, ShardTask
    from dav2.pseudo_label.workers import Workers, WorkerSetup

TEACHER = f"{layout.MODELS}/teacher"
MOST_TASKS = 500
"""Task runs of one flow run: with more shards than this a task labels several, as each costs the server requests."""


def name_of_run() -> str:
    """Name of a task run: the source and the first shard."""
    first = task_run.parameters["shards"][0]
    return f"label-{Path(first.out).name}-{Path(first.shard).stem}"


@task(task_run_name=name_of_run, retry_delay_seconds=[1, 10, 60], retry_jitter_factor=0.3, **TASK)
def label(shards: list[ShardTask], workers: Workers) -> int:
    """Label shards that are not done yet, also when one before them fails; returns the number of photographs."""
    from dav2.pseudo_label import LabelError, receipts
    from dav2.pseudo_label.workers import WorkerLost

    failures = []
    for shard in shards:
        try:
            if not receipts.is_done(shard):
                workers.label(shard)
        except (LabelError, WorkerLost) as error:
            failures.append(str(error))
    if failures:
        raise LabelError("\n".join(failures))
    return sum(shard.frames for shard in shards)


@flow(name="pseudo-label")
def pseudo_label_flow(params_path: str = "params.yaml") -> dict[str, object]:
    """Label the photographs of every source in ``pseudo_label.sources``."""
    from dav2 import pseudo_label
    from dav2.families.directory import WeightsError, weights_digest
    from dav2.pseudo_label.pools import open_workers
    from dav2.pseudo_label.slurm_jobs import end_left_over
    from dav2.pseudo_label.workers import WorkerSetup

    params = read_params(params_path)
    settings = params.pseudo_label
    try:
        digest = weights_digest(TEACHER)
    except WeightsError as error:
        raise StageError(f"{error}; train the teacher first ('dvc repro teacher')") from error
    if not settings.sources:
        write_whole(Path(layout.PSEUDO) / "note.txt", "pseudo_label.sources names no photographs.\n")
        return {"labels": 0, "newly labelled": 0}
    options = label_options(params, digest)
    refuse_gaps(params)
    with only_one("pseudo-label"):
        if settings.runner == "slurm":
            end_left_over(Path())
        shards = []
        for source in settings.sources:
            remove_unfinished(Path(params.labels(source)))
            shards += pseudo_label.plan_shards(params.shards(source), params.labels(source), digest, options)
        get_run_logger().info(f"{len(shards)} shards to label with teacher {digest[:12]}")
        failed: list[str] = []
        if shards:
            count, threads = label_shares(settings)
            setup = WorkerSetup(TEACHER, options, threads, timeout=settings.timeout_minutes * 60)
            if settings.runner == "slurm":
                failed = label_as_jobs(shards, setup, settings, count)
            else:
                with open_workers(settings.runner, count, setup) as workers:
                    failed = label_all(shards, workers, settings.retries)
        rows = [conclude(source, params_path) for source in settings.sources]
    title = f"Photographs that the teacher labelled (weights {digest[:12]}, {options.input_size} px)"
    show_table("pseudo-labels", rows, title)
    if failed:
        listed = "\n  ".join(failed)
        raise StageError(f"{len(failed)} tasks failed {settings.retries + 1} times, the rest is labelled:\n  {listed}")
    return {"labels": sum(row["labels"] for row in rows), "newly labelled": sum(shard.frames for shard in shards)}


def refuse_gaps(params: Params) -> None:
    """Stop before the first label where a teacher of finished maps has none for some photographs."""
    from dav2.pseudo_label.teacher import unlabelled

    if not isinstance(params.teacher, NamedTeacherParams) or params.outside[params.teacher.name].kind != "maps":
        return
    lacking = unlabelled(TEACHER, [params.shards(source) for source in params.pseudo_label.sources])
    if lacking:
        named = ", ".join(lacking[:5]) + (" …" if len(lacking) > 5 else "")
        raise StageError(
            f"{len(lacking)} photographs have no map in {params.outside[params.teacher.name].source}: {named}; make "
            "them, or take these photographs out of the source"
        )


def label_options(params: Params, digest: str) -> LabelOptions:
    """What ``params.yaml`` says about labels by the teacher ``digest``, in the library's terms."""
    from dav2.pseudo_label import LabelOptions, label_precision
    from dav2.pseudo_label.teacher import label_code

    settings = params.pseudo_label
    options = LabelOptions(
        input_size=settings.input_size,
        codec=settings.codec,
        bits=settings.bits,
        flip_agreement=settings.flip_agreement,
        scale_agreement=settings.scale_agreement,
        embedding=settings.embedding,
        code=label_code(TEACHER),
        batch=settings.batch,
    )
    outs = [params.labels(source) for source in settings.sources]
    precision = label_precision(settings, outs, digest, options)
    get_run_logger().info(f"labels are made in {precision}")
    if precision.warning:
        get_run_logger().warning(precision.warning)
    return replace(options, precision=precision.name)


def label_shares(settings: PseudoLabelParams) -> tuple[int, int]:
    """Workers and threads of each: what is asked for, or their share of this machine, which is said."""
    from dav2.pseudo_label.shares import shares

    gpu, weights = machine.look().gpu, Path(TEACHER) / layout.WEIGHTS
    # Four bytes each; a teacher of finished maps has none.
    parameters = weights.stat().st_size // 4 if weights.exists() else 0
    found = shares(settings, limits.cores(), gpu.count if gpu else 0, parameters)
    if settings.threads != "auto" and found.threads < settings.threads:
        get_run_logger().warning(
            f"pseudo_label.threads asks for {settings.threads} threads a worker; {limits.cores()} cores are there for "
            f"{found.workers}, so each takes {found.threads}"
        )
    get_run_logger().info(f"{found.workers} worker(s) of {found.threads} threads")
    return found


@contextmanager
def only_one(name: str) -> Iterator[None]:
    """Keep a second run of the stage in this project folder out: both would label the same shards."""
    try:
        with locks.exclusive(STATE / f"{name}.lock", wait=0):
            yield
    except locks.Held:
        raise StageError("another run of this stage is at work here; wait for it or stop it first") from None


def label_all(shards: list[ShardTask], workers: Workers, retries: int) -> list[str]:
    """Label ``shards`` as tasks, as many at a time as there are workers.

    Returns:
        One message for each task that failed in spite of its retries.
    """
    size = -(-len(shards) // MOST_TASKS)
    groups = [shards[start : start + size] for start in range(0, len(shards), size)]
    attempt = label.with_options(retries=retries)
    progress, total, done = Progress("pseudo-label", "photographs"), sum(shard.frames for shard in shards), 0
    progress(0, total)
    failed: list[str] = []
    runner: ThreadPoolTaskRunner[int] = ThreadPoolTaskRunner(max_workers=workers.count)
    with runner:
        futures: list[PrefectFuture[int]] = [
            runner.submit(attempt, {"shards": group, "workers": workers}) for group in groups
        ]
        for future in as_completed(futures):
            # The future itself knows its end; its state as the server sees it may lag behind.
            result = future.result(raise_on_failure=False)
            if isinstance(result, BaseException):
                failed.append(str(result))
            else:
                done += result
                progress(done, total)
    return failed


def label_as_jobs(shards: list[ShardTask], setup: WorkerSetup, settings: PseudoLabelParams, count: int) -> list[str]:
    """Label ``shards`` as an array job of the Slurm cluster; returns as :func:`label_all` does."""
    from dav2.pseudo_label import LabelError
    from dav2.pseudo_label.slurm_jobs import label_on_slurm

    shown, logger = Progress("pseudo-label", "photographs"), get_run_logger()
    try:
        return label_on_slurm(shards, setup, count, settings.slurm, settings.retries, Path(), shown, logger.info)
    except LabelError as error:
        raise StageError(str(error)) from error


@task(task_run_name="finish-{source}", **TASK)
def conclude(source: str, params_path: str) -> dict[str, Any]:
    """Write the manifest over all labels of a source, and a picture of some; returns a row for the table."""
    from dav2.pseudo_label import finish, sense
    from dav2.pseudo_label.gallery import write_gallery

    params = read_params(params_path)
    out = params.labels(source)
    summary = finish(out)
    if summary.labels:
        sheet = write_gallery(params.shards(source), out, STATE / f"labels-{source}.png")
        show_picture(f"labels-{source}", sheet, f"Pseudo-labels of {source}: the best, the worst and some at random")
        said = sense.warning(out, _declared())
        if said:
            get_run_logger().warning(said)
    rate = summary.labels / summary.seconds if summary.seconds else 0.0
    return {
        "source": source,
        "shards": summary.shards,
        "labels": summary.labels,
        "MB": round(summary.bytes / 1e6, 1),
        "KiB per label": round(summary.bytes / 1024 / max(summary.labels, 1), 1),
        "labels per second and worker": round(rate, 2),
    }


def _declared() -> str:
    """What the teacher is said to predict."""
    from dav2.documents import Origin

    origin = Path(TEACHER) / layout.ORIGIN
    return Origin.read(origin).quantity if origin.is_file() else "disparity"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--params", default="params.yaml", help="settings (default: %(default)s)")
    run_stage(pseudo_label_flow, params_path=parser.parse_args().params)
