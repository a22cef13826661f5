"""Stages ``evaluate@<model>``: every benchmark that fits the model, under named protocols."""

from __future__ import annotations

import argparse
from pathlib import Path

from prefect import flow, task

from dav2.documents import ScoreFile
from flows.runtime import TASK, Progress, StageError, read_params, run_stage, show_table


@task(task_run_name="evaluate-{model}", **TASK)
def evaluate(model: str, params_path: str) -> ScoreFile:
    """Scores of one model or trivial baseline, written to ``artifacts/scores/<model>.json``."""
    from dav2.evaluation.evaluate import EvaluationError, evaluate_model

    try:
        return evaluate_model(model, read_params(params_path), Path(), Progress(f"evaluate-{model}", "images"))
    except EvaluationError as error:
        raise StageError(str(error)) from error


def _show(model: str, scores: ScoreFile) -> None:
    da2k = scores.known_da2k
    if da2k is not None and da2k.accuracy is not None:
        kinds = [{"scene kind": kind, **share.model_dump()} for kind, share in da2k.kinds.items()]
        right = f"{100 * da2k.accuracy:.1f} % of {da2k.pairs} pairs of points are ordered rightly"
        show_table(f"da2k-{model}", kinds, f"DA-2K of {model} by kind of scene; {right}")
    rows = [{"benchmark": name, **entry.metrics} for name, entry in scores.benchmarks.items()]
    if rows:
        show_table(f"benchmarks-{model}", rows, f"Scores of {model} on benchmarks whose truth is known")


@flow(name="evaluate")
def evaluate_flow(models: list[str], params_path: str = "params.yaml") -> list[str]:
    """Score models on the benchmarks that fit them, and the trivial baselines of the layers that they predict."""
    from dav2.evaluation.evaluate import beaten_baselines

    results = {model: evaluate(model, params_path) for model in models}
    settings = read_params(params_path)
    for scores in list(results.values()):
        # No stage of their own: a project without benchmarks of layers has none to run.
        results |= {each: evaluate(each, params_path) for each in beaten_baselines(scores, settings, Path())}
    for model, scores in results.items():
        _show(model, scores)
    return list(results)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, nargs="+")
    run_stage(evaluate_flow, models=parser.parse_args().model)
