"""``dav2 data list`` and ``dav2 data how``: which data sets there are, and how to get one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dav2.cli.shown import folded, say, table, told
from dav2.failures import reason

PARAMS = Path("params.yaml")
ParamsPath = Annotated[Path, typer.Option("--params", help="Settings file.")]


def list_(params_path: ParamsPath = PARAMS) -> None:
    """The data sets of params.yaml and whether they are ingested, then every data set that can be read."""
    from dav2.data.raw.sources import reader_class, reader_names
    from dav2.data.raw.sources.cleaning import load_rules
    from dav2.data.store.ingest import read_summary
    from dav2.params import load

    params = load(params_path)
    rows, problems = [], list[str]()
    for name, source in params.data_sets.items():
        there = "yes" if "://" in source.path or Path(source.path).exists() else "no"
        frames = "no"
        try:
            frames = f"{read_summary(params.shards(name)).frames} frames"
        except FileNotFoundError:
            pass
        except Exception as error:
            frames = "damaged"
            problems.append(f"{name}: {reason(error)}")
        rows.append([name, source.group, source.reader, source.path, there, frames])
    say(table(str(params_path), ["name", "group", "reader", "path", "there", "ingested"], rows))
    rules = {reader: load_rules(reader_class(reader).rules_name) for reader in reader_names()}
    known = [
        [reader, rule.title, rule.licence, "; ".join(f"{p.frames} {p.subset}" for p in rule.promised)]
        for reader, rule in rules.items()
    ]
    say(table("Readers", ["reader", "data set", "licence", "promised frames"], known))
    told(problems)


def how(
    name: Annotated[str | None, typer.Argument(help="A reader; without one, all of them in a table.")] = None,
) -> None:
    """Say of a public data set what it is, how large, under which licence, and the commands that bring it here."""
    from dav2.data.raw.sources import reader_class, reader_names
    from dav2.data.raw.sources.cleaning import load_rules
    from dav2.names import known as known_names
    from dav2.params import ParamsError

    names = reader_names()
    if name is None:
        known = {each: load_rules(reader_class(each).rules_name) for each in names}
        say(table("Data sets", ["reader", "what", "size", "licence"],
                      [[each, rules.title, rules.size, rules.licence] for each, rules in known.items()]))  # fmt: skip
        return
    if name not in names:
        raise ParamsError(f"no reader named '{name}'; {known_names(name, names)}")
    rules = load_rules(reader_class(name).rules_name)
    frames = "; ".join(f"{promise.frames:,} {promise.subset} ({promise.source})" for promise in rules.promised)
    facts = {"frames": frames, "size": rules.size, "licence": rules.licence, "page": rules.homepage}
    facts["below"] = rules.layout.strip()
    # Not through a table or a wrapper: commands are copied from here.
    typer.echo(f"{rules.title}  (reader {name})")
    for label, text in facts.items():
        if text:
            typer.echo(folded(f"  {label:8} {text}", 11))
    typer.echo("\n".join(["to get it:", *(f"  {line}" for line in rules.get.splitlines())]))
    typer.echo(f"then: dav2 data check {name} data/{name}")
