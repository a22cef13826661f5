"""Commands about registered models: which there are, where they come from, which one is the champion."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dav2.cli.progress import progress, step
from dav2.cli.shown import folded, in_project

if TYPE_CHECKING:
    from dav2.tracking.promotion import Promotion
    from dav2.tracking.verify import Check

Name = Annotated[str, typer.Argument(help="Registered model, such as dav2-student-vits.")]
Model = Annotated[str, typer.Argument(help="NAME, NAME@alias or NAME/version.")]


@contextmanager
def told() -> Iterator[None]:
    """Errors that a person can mend are one message and exit status 2, without a traceback."""
    from dav2.params import ParamsError
    from dav2.tracking import outbox, store
    from dav2.tracking.store import TrackingError

    if not store.is_remote(store.tracking_uri()):
        in_project()
    try:
        with store.told(Path()):
            if outbox.waiting(Path()):
                for line in outbox.deliver(Path(), store.client()):
                    typer.echo(line, err=True)
            yield
    except (TrackingError, ParamsError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None


def promote(
    name: Name,
    force: Annotated[bool, typer.Option("--force", help="Promote even if a gate fails; needs --reason.")] = False,
    reason: Annotated[str, typer.Option(help="Why it is forced; recorded with the version.")] = "",
) -> None:
    """Run the gates of a model's candidate and make it the champion if it passes."""
    with told(), step("asking the gates", logged=False):
        from dav2.params import load
        from dav2.tracking import promotion

        outcome = promotion.promote(name, Path(), load(), force=force, reason=reason)
    _show(outcome)
    if not outcome.promoted:
        raise typer.Exit(1)


def _show(outcome: Promotion) -> None:
    before = f"champion is version {outcome.champion}" if outcome.champion else "there is no champion yet"
    typer.echo(f"{outcome.name} version {outcome.version}; {before}")
    width = max(len(gate.gate) for gate in outcome.gates)
    for gate in outcome.gates:
        line = f"  {'passed' if gate.passed else 'FAILED'}  {gate.gate:<{width}}  {gate.detail}"
        typer.echo(folded(line, 12 + width))
    if not outcome.promoted:
        typer.echo(f"not promoted: {sum(not gate.passed for gate in outcome.gates)} gate(s) failed")
    elif outcome.forced:
        typer.echo(f"promoted by force: version {outcome.version} is the champion ({outcome.reason})")
    else:
        typer.echo(f"promoted: version {outcome.version} is the champion")


def rollback(name: Name) -> None:
    """Make the version that the champion replaced champion again."""
    with told(), step("deciding", logged=False):
        from dav2.tracking import promotion

        now, before = promotion.rollback(name, Path())
    typer.echo(f"{name}: version {now} is the champion again, version {before} was rolled back")


def models() -> None:
    """List registered models with their versions, aliases and last decisions."""
    with told(), step("reading the registry", logged=False):
        from rich.console import Console
        from rich.table import Column, Table

        from dav2.tracking import decisions, store
        from dav2.tracking.versions import model_names, versions_of

        api = store.client()
        table = Table(
            Column("model", no_wrap=True), Column("v", no_wrap=True), Column("aliases", min_width=10),
            Column("DA-2K", no_wrap=True), Column("weights", no_wrap=True), Column("last decision", min_width=16),
            box=None, padding=(0, 2, 0, 0),
        )  # fmt: skip
        for name in model_names(api):
            decisions.settle(api, name)
            decided = {entry["version"]: entry for entry in decisions.history(api, name)}
            aliases: dict[str, list[str]] = {}
            for alias, number in api.get_registered_model(name).aliases.items():
                aliases.setdefault(str(number), []).append(alias)
            versions = versions_of(api, name)
            for version in sorted(versions, key=lambda each: int(each.version), reverse=True):
                number = str(version.version)
                entry = decided.get(number)
                decision = f"{entry['action']} {entry['when']} by {entry['by']}" if entry else ""
                weights = version.tags.get("dav2.weights_sha256", "")[:8]
                score = version.tags.get("da2k.accuracy", "")
                table.add_row(name, number, ", ".join(sorted(aliases.get(number, []))), score, weights, decision)
    if not table.row_count:
        typer.echo("no registered models yet; 'dvc repro' registers them")
        return
    Console().print(table)


def lineage(
    model: Annotated[str, typer.Argument(help="NAME, NAME@alias, NAME/version, or 'verify'.")],
    verified: Annotated[str, typer.Argument(help="After 'verify': the model; none means every champion.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    picture: Annotated[Path | None, typer.Option(help="Write an SVG picture to this file.")] = None,
) -> None:
    """Print what a model was made from, down to raw data; 'lineage verify' hashes it all again."""
    if model == "verify":
        _verify(verified)
        return
    with told():
        with step("reading the registry", logged=False):
            from dav2.files import write_whole
            from dav2.tracking import registry, store, tree

            api = store.client()
            node = tree.tree_of(api, registry.resolve(api, model))
        if picture is not None:
            write_whole(picture, tree.as_svg(node))
            typer.echo(f"wrote {picture}")
        else:
            typer.echo(json.dumps(node.as_dict(), indent=2) if as_json else _in_lines(tree.as_text(node)))


def _in_lines(text: str) -> str:
    """A tree whose lines fold below their own beginning."""
    return "\n".join(folded(line, len(line) - len(line.lstrip("│├└─ ")) + 2) for line in text.splitlines())


def _verify(model: str) -> None:
    with told():
        with step("reading the registry", logged=False):
            from dav2.params import load
            from dav2.tracking import registry, store
            from dav2.tracking.verify import checks_of
            from dav2.tracking.versions import model_names

            api, params = store.client(), load()
            names = [model] if model else [n for n in model_names(api) if api.get_registered_model(n).aliases]
            waiting = [check for name in names for check in checks_of(api, registry.resolve(api, name), Path(), params)]
        checks: list[Check] = []
        with progress("hashing again", "hashes") as show:
            for make in waiting:
                show(len(checks), len(waiting))
                checks.append(make())
    for check in dict.fromkeys(checks):
        typer.echo(f"{check.state:<8} {check.what}" + (f"  {check.detail}" if check.detail else ""))
    differing = sum(check.state == "differs" for check in set(checks))
    absent = sum(check.state == "absent" for check in set(checks))
    typer.echo(f"{len(set(checks))} hashes: {differing} no longer match, {absent} not at hand")
    if differing:
        raise typer.Exit(1)


def reproduce(
    model: Model,
    into: Annotated[Path | None, typer.Option(help="New folder; by default next to this one.")] = None,
) -> None:
    """Check out code, settings and data hashes of a version into a folder of their own, and say what to run."""
    with told(), step("laying out", logged=False):
        from dav2.tracking import registry, store
        from dav2.tracking.reproduce import reproduce as prepare

        api = store.client()
        version = registry.resolve(api, model)
        folder = into or Path("..", f"{version.name}-{version.version}")
        prepared = prepare(api, version, Path(), folder)
    for warning in prepared.warnings:
        typer.echo(f"note: {warning}", err=True)
    typer.echo(f"{version.name} version {version.version} is laid out in {prepared.folder}; now run:")
    for command in prepared.commands:
        typer.echo(f"  {command}")
