"""Stage ``outside@<name>``: a model made elsewhere is read, checked, and kept with where it came from."""

from __future__ import annotations

import argparse
from pathlib import Path

from prefect import flow, task

from flows.runtime import TASK, StageError, read_params, run_stage, show_table


@task(task_run_name="take-in-{name}", **TASK)
def take_in(name: str, params_path: str) -> dict[str, object]:
    """Take one model in; returns what is known of it."""
    from dav2.families import outside
    from dav2.families.directory import WeightsError

    params = read_params(params_path)
    if name not in params.outside:
        raise StageError(f"no model '{name}' in section 'outside'; there are: {', '.join(params.outside) or 'none'}")
    try:
        origin = outside.take_in(name, params.outside[name], Path())
    except WeightsError as error:
        raise StageError(f"outside.{name}: {error}") from error
    return origin.model_dump(exclude={"format"}, exclude_none=True)


@flow(name="outside")
def outside_flow(name: str, params_path: str = "params.yaml") -> dict[str, object]:
    """Take one model in and show where it comes from."""
    origin = take_in(name, params_path)
    rows = [{"what": key, "value": value} for key, value in {"licence": "unknown", **origin}.items()]
    show_table(f"outside-{name}", rows, f"Model {name}, made elsewhere: what it is and where it comes from")
    return origin


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True)
    run_stage(outside_flow, name=parser.parse_args().name)
