"""``dav2 train``, ``dav2 runs``, ``dav2 checkpoint``."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dav2 import layout
from dav2.cli.shown import Listed

if TYPE_CHECKING:
    from dav2.documents import EvaluationLine, StepLine

ParamsPath = Annotated[Path, typer.Option("--params", help="Settings file.")]

checkpoint_app = typer.Typer(help="Checkpoints of training runs.", no_args_is_help=True, cls=Listed)


def train(
    run: Annotated[str, typer.Argument(help="teacher, student-<key> or metric-<range>.")],
    params: ParamsPath = Path("params.yaml"),
) -> None:
    """Train one run, or go on with it where it was stopped. Ctrl-C writes a checkpoint first."""
    from dav2.params import ParamsError, load
    from dav2.runs import get_run
    from dav2.training.errors import Interrupted, TrainingError
    from dav2.training.launch import launch

    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        steps = get_run(load(params), run).settings.steps
        with _progress(run, steps) as report:
            model = launch(run, params, Path(), report)
    except (KeyboardInterrupt, Interrupted):
        typer.echo(f"{run} is stopped; 'dav2 train {run}' goes on with it", err=True)
        raise typer.Exit(130) from None
    except (ParamsError, TrainingError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    typer.echo(f"{run} is trained: {model}")


class _progress:
    """A bar with loss, rate and time left; evaluations are printed above it."""

    def __init__(self, run: str, steps: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self.task = self.bar.add_task(run, total=steps, note="starting")

    def __enter__(self) -> Callable[[StepLine | EvaluationLine], None]:
        self.bar.start()
        return self.report

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def report(self, event: StepLine | EvaluationLine) -> None:
        """Show one line of the run's journal."""
        from dav2.documents import EvaluationLine

        if isinstance(event, EvaluationLine):
            scores = {"val_loss": event.val_loss, "da2k": event.da2k}
            shown = ", ".join(f"{name} {value:.4f}" for name, value in scores.items() if value is not None)
            self.bar.console.print(f"step {event.step}: {shown}", highlight=False)
            return
        from dav2.training.speed import told

        loss = "skipped" if event.loss is None else f"loss {event.loss:.4f}"
        note = f"{loss}  {told(event)}"
        self.bar.update(self.task, completed=event.step, note=note)


def runs(params: ParamsPath = Path("params.yaml")) -> None:
    """List the training runs: how far they are, and how good."""
    from rich.console import Console
    from rich.table import Table

    from dav2.params import ParamsError, load
    from dav2.runs import all_runs

    try:
        settings = load(params)
    except ParamsError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    # Fits a terminal of 80 columns.
    table = Table(title="Training runs", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for name in ("run", "size", "status", "step", "loss", "val", "DA-2K", "best", "kept at"):
        table.add_column(name, no_wrap=name == "run", overflow="fold")
    for name, run in all_runs(settings).items():
        folder = layout.training(Path(), name)
        table.add_row(name, run.settings.size, *_standing(folder, run.settings.steps))
    Console().print(table)


def _standing(folder: Path, steps: int) -> list[str]:
    """Cells that say how far the run in ``folder`` is."""
    from dav2.training import checkpoints
    from dav2.training.journal import read_evaluations, read_run, read_steps

    described, steps_done, evaluations = read_run(folder), read_steps(folder), read_evaluations(folder)
    kept = [str(checkpoints.step_of(path)) for path in checkpoints.list_checkpoints(folder / "checkpoints")]
    skipped = sum(line.skipped_update for line in steps_done)
    last = steps_done[-1] if steps_done else None
    measured = evaluations[-1] if evaluations else None
    return [
        (described.status if described else "not started") + (f", skipped {skipped}" if skipped else ""),
        f"{last.step if last else 0}/{steps}",
        _number(last.loss if last else None),
        _number(measured.val_loss if measured else None),
        _number(measured.da2k if measured else None),
        str((described and described.best_step) or "–"),
        ", ".join(kept) or "–",
    ]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


@checkpoint_app.command("list")
def list_checkpoints(
    run: Annotated[str, typer.Argument(help="teacher, student-<key> or metric-<range>.")],
) -> None:
    """List a run's checkpoints and check every file of them."""
    from dav2.training import checkpoints

    found = checkpoints.list_checkpoints(layout.checkpoints(Path(), run))
    if not found:
        typer.echo(f"no checkpoint of '{run}' below {layout.TRAINING}", err=True)
        raise typer.Exit(2)
    for folder in found:
        typer.echo(f"{folder}  {checkpoints.problem(folder) or 'whole'}")


@checkpoint_app.command("export")
def export(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint folder, …/checkpoints/step-000100.")],
    out: Annotated[Path, typer.Argument(help="Model directory to write.")],
) -> None:
    """Write a checkpoint's model as a model directory of its own."""
    from dav2.training.checkpoints import CheckpointError, export_model

    try:
        export_model(checkpoint, out)
    except CheckpointError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    typer.echo(f"{out} holds the model of {checkpoint}")
