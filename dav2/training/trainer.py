"""The loop: data, update, metrics, evaluation, checkpoint — and stopping without losing anything."""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import torch

from dav2.documents import EvaluationLine, StepLine
from dav2.memory import peak_megabytes
from dav2.training import checkpoints
from dav2.training.checkpoints import CheckpointError, NoSpaceError
from dav2.training.compiling import How
from dav2.training.ema import Averages
from dav2.training.engine import Engine, Update
from dav2.training.errors import Interrupted, TrainingError, explained
from dav2.training.feed import feeding
from dav2.training.journal import Journal, announce
from dav2.training.ranks import Ranks
from dav2.training.recipes import Recipe
from dav2.training.schedules import learning_rate_factor
from dav2.training.speed import reached
from dav2.training.state import State
from dav2.training.task import Batch
from dav2.training.validation import Validator
from dav2.training.window import Window


class Trainer:
    """One run under way.

    Args:
        recipe: what is trained.
        engine: the task under DeepSpeed.
        ranks: the processes that train together.
        folder: ``artifacts/training/<run>``.
        validator: measures it.
        fingerprint: of the recipe.
        workers: threads that decode training images.
    """

    def __init__(
        self,
        recipe: Recipe,
        engine: Engine,
        ranks: Ranks,
        folder: Path,
        validator: Validator,
        fingerprint: str,
        workers: int,
    ) -> None:
        self.recipe, self.engine, self.ranks, self.folder = recipe, engine, ranks, folder
        self.validator = validator
        self.rules = recipe.settings.checkpoint
        self.journal = Journal(folder, ranks.first)
        self.state = State(fingerprint=fingerprint)
        self.window = Window()
        own = engine.task.averages()
        self.averages = Averages(engine.task.model, recipe.settings.optim.ema, own)
        if self.averages.all and engine.stage == 3:
            what, cure = ("the objective of this run", "") if own else ("optim.ema", ", or ema 0")
            raise TrainingError(f"{what} needs whole weights on every rank; use a ZeRO stage below 3{cure}")
        self.data = recipe.data(ranks.rank, ranks.world, workers)
        if self.data.repeated and ranks.first:
            announce(f"{self.data.repeated} frames left out: other sources of this run hold the same pictures")
        self.compiled: How = "none"
        self.stop_requested = False
        self.last_checkpoint = time.monotonic()

    @property
    def directory(self) -> Path:
        """Folder of the checkpoints."""
        return self.folder / "checkpoints"

    def run(self) -> None:
        """Train to the last step.

        Raises:
            Interrupted: a signal asked to stop; a checkpoint has been written.
            TrainingError: too many updates in a row were not finite.
        """
        if threading.current_thread() is threading.main_thread():
            # Under Ray the loop runs in a thread, and Ray itself says when to stop.
            signal.signal(signal.SIGTERM, self._on_signal)
        total = self.recipe.settings.steps
        first = self.state.step * self.recipe.settings.optim.accumulate
        with feeding(self.data.iterate(first), self.ranks.device) as batches:
            while self.state.step < total:
                stop, due = self._step(batches)
                step = self.state.step
                regular = step % self.rules.every_steps == 0 or step == total
                if regular or step % self.rules.evaluate_every == 0:
                    self._evaluate(kept=regular)
                if regular or stop or due:
                    self._checkpoint(needed=stop or step == total)
                if stop and step < total:
                    raise Interrupted(f"{self.recipe.name}: stopped at step {step} of {total}; start it again to go on")

    def _on_signal(self, *_: object) -> None:
        self.stop_requested = True

    def _step(self, batches: Iterator[Batch]) -> tuple[bool, bool]:
        """One update with its bookkeeping; whether to stop, and whether a checkpoint is due by the clock."""
        settings = self.recipe.settings
        began = time.monotonic()
        torch.manual_seed(_mixed(self.recipe.seed, self.state.step, self.ranks.rank))
        share = [next(batches) for _ in range(settings.optim.accumulate)]
        waited = time.monotonic() - began
        factor = learning_rate_factor(self.state.step, settings.steps, settings.optim)
        rates = self.engine.set_learning_rates(factor)
        try:
            update = self.engine.update(share)
        except RuntimeError as error:
            if (cure := explained(error, self.recipe)) is None:
                raise
            raise cure from error
        self.state.step += 1
        if update.applied:
            self.averages.update()
        seconds = time.monotonic() - began
        if update.applied:
            self.state.bad = 0
            self.window.add(update.terms, waited, seconds)
            if self.state.step % self.rules.log_every and self.state.step < settings.steps:
                return False, False
            window, self.window = self.window, Window()
            _, stop, due = self._note(window, update, rates)
            return stop, due
        self.state.skipped += 1
        self.state.bad += 1
        window = Window()
        window.add(update.terms, waited, seconds)
        suspects, stop, due = self._note(window, update, rates)
        if self.state.bad >= self.rules.max_bad_steps:
            raise TrainingError(
                f"{self.recipe.name}: {self.state.bad} updates in a row were not finite, up to step {self.state.step}; "
                f"last seen with {', '.join(suspects[:16])}. Look at these frames, lower the learning rates or set "
                "optim.clip_norm"
            )
        return stop, due

    def _note(self, window: Window, update: Update, rates: dict[str, float]) -> tuple[list[str], bool, bool]:
        """Write a line about a window that ends with ``update``; the ranks also agree on stopping and checkpoints.

        Returns:
            Frames that may be at fault, whether to stop, and whether a checkpoint is due by the first rank's clock.
        """
        due = self.ranks.first and time.monotonic() - self.last_checkpoint > 60 * self.rules.every_minutes
        own = {**window.means(), "waited": window.waited, "stop": float(self.stop_requested), "due": float(due)}
        shared = self.ranks.sum(torch.tensor(list(own.values()), dtype=torch.float64)).tolist()
        means = {name: value / self.ranks.world for name, value in zip(own, shared, strict=True)}
        waited, stop, due = means.pop("waited"), means.pop("stop") > 0, means.pop("due") > 0
        gathered = [] if update.applied else self.ranks.gather(update.suspects)
        suspects = sorted({key for keys in gathered for key in keys})
        rate = self.recipe.settings.batch * window.timed / window.seconds
        line = StepLine(
            step=self.state.step,
            steps=self.recipe.settings.steps,
            **{name: _json_number(value) for name, value in means.items()},
            **rates,
            grad_norm=_json_number(update.gradient_norm),
            images_per_second=round(rate, 2),
            **reached(self.engine.task, self.recipe.settings, rate / self.ranks.world, self.ranks.device),
            data_wait=round(waited / window.seconds, 4),
            memory_mb=round(_peak_memory_mb(self.ranks.device)),
            time=round(time.time(), 3),
            skipped_update=not update.applied,
            suspects=suspects,
        )
        self.journal.metrics(line)
        return suspects, stop, due

    def _evaluate(self, kept: bool) -> None:
        """Measure and draw; only where a checkpoint is ``kept`` can this be the best one."""
        began = time.monotonic()
        with self.averages.applied():
            scores = self.validator.measure(self.engine.task)
            picture = self.folder / "previews" / f"{checkpoints.folder_name(self.state.step)}.png"
            self.validator.picture(self.engine.task, picture)
        loss = scores.get("val_loss")
        value = scores.get("da2k", -math.inf if loss is None else -loss)
        if kept and value > self.state.best_value:
            self.state.best_step, self.state.best_value = self.state.step, value
        seconds, now = round(time.monotonic() - began, 2), round(time.time(), 3)
        self.journal.evaluation(EvaluationLine(step=self.state.step, **scores, seconds=seconds, time=now))

    def _checkpoint(self, needed: bool) -> None:
        """Write a checkpoint; one that does not fit is counted and tried again later, unless it is ``needed`` now."""
        self.last_checkpoint = time.monotonic()
        try:
            self.save()
        except CheckpointError as error:
            # Ranks agree on too little space beforehand. Other failures hit one rank alone, so none can go on.
            if needed or not (isinstance(error, NoSpaceError) or self.ranks.world == 1):
                raise
            self.state.failed_checkpoints += 1
            announce(f"warning: {error}; training goes on and tries again")

    def save(self) -> Path:
        """Write the state of now as a checkpoint and prune old ones.

        Raises:
            CheckpointError: it cannot be written; nothing is left of it and older ones are whole.
        """
        temporary = self._begin()
        model = self.engine.whole_model()
        actions: list[Callable[[Path], object]] = []
        if self.ranks.first:
            actions = [lambda folder: self._write_model(model, folder), self.averages.save]
        actions.append(lambda folder: self.engine.save(folder, checkpoints.ENGINE))
        checkpoints.write_with(temporary, actions)
        self.ranks.wait()
        folder = self.directory / checkpoints.folder_name(self.state.step)
        if self.ranks.first:
            self.state.window = self.window.sums()
            state = {**asdict(self.state), "world": self.ranks.world, "zero_stage": self.engine.stage}
            state["best_value"] = _json_number(self.state.best_value)
            checkpoints.commit(temporary, state)
            checkpoints.prune(self.directory, self.rules, self.state.best_step)
        self.ranks.wait()
        return folder

    def _begin(self) -> Path:
        """Temporary folder of the checkpoint, made by the first rank; every rank raises if there is no space for it."""
        shortage: str | None = None
        if self.ranks.first:
            self.directory.mkdir(parents=True, exist_ok=True)
            checkpoints.clean(self.directory)
            try:
                # Weights, two moments, the model directory and averages, all float32, and a little for the rest.
                copies = 4 + len(self.averages.all)
                checkpoints.require_space(self.directory, 4 * copies * self.engine.parameter_count + 2**20)
                checkpoints.begin(self.directory, self.state.step)
            except NoSpaceError as error:
                shortage = str(error)
        shortage = self.ranks.share(shortage)
        if shortage is not None:
            raise NoSpaceError(shortage)
        return checkpoints.temporary_folder(self.directory, self.state.step)

    def _write_model(self, model: object, folder: Path) -> None:
        with self.averages.applied():
            extra = {"run": self.recipe.name, "step": self.state.step}
            self.recipe.family.save(model, folder, self._card(), extra)

    def _card(self) -> str:
        settings = self.recipe.settings
        recipe = json.dumps(settings.model_dump(mode="json"), indent=1)
        return (
            f"# {self.recipe.name}, step {self.state.step} of {settings.steps}\n\n"
            f"Family {self.recipe.run.family}, size {settings.size}; predicts {self.recipe.run.quantity.unit}. "
            f"Trained on {', '.join(settings.sources)} "
            f"with batches of {settings.batch} at {settings.crop} pixels.\n\n"
            f"Recipe `{self.state.fingerprint[:16]}`:\n\n```json\n{recipe}\n```\n"
        )

    def resume(self, folder: Path) -> None:
        """Go on from a verified checkpoint."""
        saved = checkpoints.read_state(folder)
        self.engine.load(folder, checkpoints.ENGINE, saved["world"], saved["zero_stage"])
        best = saved["best_value"]
        fields = {name: saved[name] for name in State.__dataclass_fields__ if name in saved}
        self.state = State(**{**fields, "best_value": -math.inf if best is None else best})
        self.window = Window.of_sums(self.state.window, self.ranks.device)
        self.averages.load(folder)


def _mixed(*numbers: int) -> int:
    """One seed from several numbers, by the usual 64-bit mixing constants."""
    seed = 0
    for number in numbers:
        seed = ((seed ^ (number + 0x9E3779B97F4A7C15)) * 0xBF58476D1CE4E5B9) % 2**63
    return seed


def _json_number(value: float) -> float | None:
    """JSON has no infinity and no NaN."""
    return round(value, 8) if math.isfinite(value) else None


def _peak_memory_mb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return peak_megabytes()
