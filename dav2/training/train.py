"""One run from its settings to its model directory, as one of the ranks that the environment announces.

The same call starts a run, goes on with an interrupted one, and only writes the model directory again when the run is
finished and nothing changed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dav2 import layout, limits, locks, machine
from dav2.code_state import git_state
from dav2.documents import Code, DocumentError, Resumed, RunRecord
from dav2.files import remove_unfinished
from dav2.imports import code_digest
from dav2.params import Params
from dav2.training import checkpoints
from dav2.training.errors import TrainingError
from dav2.training.journal import EVALUATIONS, METRICS, RUN, Began, Journal, announce, read_run

if TYPE_CHECKING:
    from dav2.training.ranks import Ranks
    from dav2.training.recipes import Recipe
    from dav2.training.task import Trains
    from dav2.training.trainer import Trainer

RANK = "dav2.families.rank"
"""Module that every rank runs; it stands above this room, because it knows the families."""
STOPPED = 75
"""Exit status of a run that was asked to stop and can go on (EX_TEMPFAIL)."""
ERROR = "error: "
"""What the line begins with in which a rank says why it ends."""
STOP_NOTE = "DAV2_STOP_NOTE"
"""Environment variable: a file that a rank makes when it stops in order."""
LOCK_SECONDS = 60.0


def train(params: Params, run: str, root: Path, family: Trains) -> Path:
    """Train one run of ``family`` in this process.

    Returns:
        The model directory.

    Raises:
        Interrupted: a signal asked to stop; a checkpoint has been written.
        TrainingError: the run cannot start or go on.
    """
    import torch

    from dav2.training.ranks import from_environment
    from dav2.training.recipes import build_recipe
    from dav2.training.repeat import repeat_exactly

    if params.compute.deterministic:
        repeat_exactly()
    ranks = from_environment()
    torch.set_num_threads(_threads(params, ranks))
    folder, target = layout.training(root, run), layout.model(root, run)
    folder.mkdir(parents=True, exist_ok=True)
    with _process_group(ranks), _only_one(folder, ranks):
        begun = ranks.share(_begun(folder) if ranks.first else None)
        precision = ranks.share(_precision(params, run, root, family, begun, ranks) if ranks.first else None)
        assert precision is not None, "the first rank has said which"
        recipe = build_recipe(params, run, root, family, precision.name)
        fingerprint = recipe.fingerprint()
        if len(set(ranks.gather(fingerprint))) > 1:
            raise TrainingError(f"{run}: the ranks do not see the same settings and data below {root}; make them equal")
        last = layout.checkpoints(root, run) / checkpoints.folder_name(recipe.settings.steps)
        code = Code(**git_state(root), digest=code_digest([type(family).__module__, __name__]))
        # The first rank decides for all: another process may be finishing the run while the others look.
        finished = ranks.share(ranks.first and checkpoints.problem(last) is None)
        if begun is None and ranks.share(ranks.first and _belongs(folder, fingerprint)):
            finished = False  # the loop finds nothing left to do, and the record is written again
        elif begun is None or begun.fingerprint != fingerprint or (finished and begun.code.digest != code.digest):
            begun, finished = None, False
            if ranks.first:
                _start_afresh(folder)
        if finished:
            if ranks.first and begun is not None:
                _finish(folder, last, target, begun)
        else:
            if ranks.first:
                _announce(run, precision)
            trainer = _prepare(params, recipe, ranks, folder, root, fingerprint)
            described = _description(params, recipe, trainer, precision, _started(code, begun, trainer))
            trainer.journal.run(described)
            trainer.run()
            if ranks.first:
                _finish(folder, last, target, described)
        ranks.wait()
    return target


def _threads(params: Params, ranks: Ranks) -> int:
    """Threads of this rank: what is asked for, or its share of the cores where that is less."""
    asked, cores = params.compute.threads, limits.cores()
    threads = machine.threads(asked, int(os.environ.get("LOCAL_WORLD_SIZE", ranks.world)))
    if threads < asked and ranks.first:
        announce(
            f"warning: compute.threads asks for {asked} threads a rank; {cores} cores are there for the ranks of this "
            f"machine, so each takes {threads}"
        )
    return threads


def _precision(
    params: Params, run: str, root: Path, family: Trains, begun: RunRecord | None, ranks: Ranks
) -> machine.Precision:
    """What the settings mean on this machine, or what the run began with elsewhere."""
    from dav2.training.recipes import build_recipe

    chosen = machine.precision(params.compute.precision, ranks.device)
    if begun is not None and params.compute.precision == "auto" and begun.precision != chosen.name:
        name = begun.precision
        if build_recipe(params, run, root, family, name).fingerprint() == begun.fingerprint:
            return machine.Precision(name, "this run began in it", machine.precision(name, ranks.device).warning)
    return chosen


def _announce(run: str, precision: machine.Precision) -> None:
    """Say what the run computes in."""
    announce(f"{run}: {precision.name}, {precision.why}")
    if precision.warning:
        announce(f"warning: {precision.warning}")


def _prepare(params: Params, recipe: Recipe, ranks: Ranks, folder: Path, root: Path, fingerprint: str) -> Trainer:
    """The trainer, at the step where the newest whole checkpoint left off."""
    from dav2.tf32 import allow_tf32
    from dav2.training.compiling import choose
    from dav2.training.engine import Engine
    from dav2.training.trainer import Trainer
    from dav2.training.validation import Validator

    settings = recipe.settings
    task = recipe.task()
    if params.compute.activation_checkpointing:
        task.save_memory()
    engine = Engine(task, settings, root / params.compute.deepspeed, ranks)
    if engine.stage > 0 and ranks.world == 1:
        announce(
            f"warning: {params.compute.deepspeed} asks for ZeRO stage {engine.stage}, which divides memory among "
            "ranks; one rank keeps all of it and pays for the division. A new run is faster with stage 0 (cpu.json or "
            "gpu.json in infra/deepspeed)"
        )
    compiled = choose(params.compute.compile, task.suits, ranks.device.type, engine.stage)
    if compiled.how != "none":
        engine.task.compile_network(compiled.how, dynamic=len(settings.shapes) > 1)
        if ranks.first:
            announce(f"{recipe.name}: compiles its network ({compiled.how}): {compiled.why}")
    da2k = root / params.shards(params.evaluate.da2k)
    has_da2k = ranks.share((da2k / "manifest.parquet").exists())
    validator = Validator(recipe, settings.checkpoint.evaluate_frames, da2k if has_da2k else None, ranks)
    trainer = Trainer(recipe, engine, ranks, folder, validator, fingerprint, params.compute.loader_workers)
    trainer.compiled = compiled.how
    resumable = ranks.share(str(checkpoints.newest(folder / "checkpoints") or "") if ranks.first else None)
    if resumable:
        trainer.resume(Path(resumable))
        if ranks.first:
            announce(f"{recipe.name}: goes on from step {trainer.state.step}")
    elif task.began and ranks.first:
        announce(f"{recipe.name} starts from {settings.start}: {task.began}")
    trainer.journal.rewind(trainer.state.step)
    # Last of all: whatever loads a model in float32 switches TF32 off.
    allow_tf32(params.compute.tf32)
    return trainer


def _begun(folder: Path) -> RunRecord | None:
    """The record of what was begun here; a damaged one is set aside and said."""
    try:
        return read_run(folder)
    except DocumentError as error:
        aside = folder / "run.damaged.json"
        (folder / RUN).replace(aside)
        announce(f"warning: {error}. It is now {aside.name}, and a record is made anew")
        return None


def _belongs(folder: Path, fingerprint: str) -> bool:
    """Whether the checkpoints are of this recipe, as they say themselves; for a run whose record is lost."""
    newest = checkpoints.newest(folder / "checkpoints")
    return newest is not None and checkpoints.read_state(newest).get("fingerprint") == fingerprint


def _description(
    params: Params, recipe: Recipe, trainer: Trainer, precision: machine.Precision, started: Began
) -> RunRecord:
    """What decides the run's weights, and with what it computes."""
    import torch

    ranks = trainer.ranks
    return RunRecord(
        run=recipe.name,
        status="running",
        fingerprint=trainer.state.fingerprint,
        steps=recipe.settings.steps,
        settings=recipe.settings.model_dump(mode="json"),
        precision=precision.name,
        precision_why=precision.why,
        seed=recipe.seed,
        compute=params.compute.model_dump(mode="json"),
        world=ranks.world,
        zero_stage=trainer.engine.stage,
        device=str(ranks.device.type),
        threads=torch.get_num_threads(),
        compiled=trainer.compiled,
        parameters=trainer.engine.parameter_count,
        training_frames=len(trainer.data),
        origins=recipe.origins(),
        **started,
    )


def _started(code: Code, begun: RunRecord | None, trainer: Trainer) -> Began:
    """Code and machine of the run's first step, and of every time that it was taken up again.

    Read before the first step: what is edited while a run trains did not make its weights. A run that is half done goes
    on with edited code, so that a mended log line does not cost days; both states stand in its record.
    """
    here = machine.look().record()
    if begun is None:
        return {"code": code, "machine": here}
    if begun.code.digest != code.digest and trainer.ranks.first:
        announce(
            f"warning: the code that trains has changed since this run began; it goes on, and its record names both "
            f"states. To train all of it with the code of now, remove {trainer.folder} first"
        )
    again = Resumed(step=trainer.state.step, code=code, machine=here)
    return {"code": begun.code, "machine": begun.machine, "resumed": [*begun.resumed, again]}


def _finish(folder: Path, last: Path, target: Path, described: RunRecord) -> None:
    """Copy the last checkpoint's model into ``artifacts/models`` and say that the run is finished."""
    checkpoints.export_model(last, target)
    state = checkpoints.read_state(last)
    known = {name: state[name] for name in ("skipped", "failed_checkpoints", "best_step", "best_value")}
    Journal(folder, active=True).run(described.model_copy(update={**known, "status": "finished"}))


def _start_afresh(folder: Path) -> None:
    """Remove what belongs to another recipe."""
    (folder / RUN).unlink(missing_ok=True)
    for name in ("checkpoints", "previews"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (METRICS, EVALUATIONS):
        (folder / name).unlink(missing_ok=True)


@contextmanager
def _only_one(folder: Path, ranks: Ranks) -> Iterator[None]:
    """Hold the run's lock on the first rank: two processes that write one run would spoil it.

    The lock goes with the process, so a killed run leaves none behind. One that is just writing its last checkpoint is
    waited for. Without the lock no rank goes on.
    """
    with ExitStack() as stack:
        held = True
        if ranks.first:
            try:
                stack.enter_context(locks.exclusive(folder / "lock", LOCK_SECONDS))
            except locks.Held:
                held = False
        if not ranks.share(held):
            raise TrainingError(f"{folder} is being trained by another process; wait for it or stop it")
        if ranks.first:
            # Of a writer that was killed; nobody else writes here now.
            remove_unfinished(folder)
        yield


@contextmanager
def _process_group(ranks: Ranks) -> Iterator[None]:
    """torch.distributed, as DeepSpeed needs it even for one rank."""
    import torch
    import torch.distributed as dist

    if dist.is_initialized():
        # Ray has brought the ranks together already, and takes them apart again.
        yield
        return
    device = ranks.device if ranks.device.type == "cuda" else None
    backend = "gloo" if device is None else "nccl"
    if device is not None:
        torch.cuda.set_device(device)
    if "MASTER_ADDR" in os.environ:
        dist.init_process_group(backend, device_id=device)
    else:
        # Alone: no port to open, nobody to meet. DeepSpeed wants to read a local rank all the same.
        os.environ.setdefault("LOCAL_RANK", "0")
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, device_id=device)
    try:
        yield
    finally:
        dist.destroy_process_group()
