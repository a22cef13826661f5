"""What each part of the recipe does, on whatever data the project holds: one student, several recipes.

    python benchmarks/ablation.py                     # losses: ssi only, + gradient matching, + features, trimming off
    python benchmarks/ablation.py --data              # data: pseudo-labels, synthetic images, both
    python benchmarks/ablation.py --select 0.25       # photographs: all, a quarter selected, a quarter at random

Every variant is trained from the same weights on the same batches with every seed of --seeds, in a project folder of
its own below .dav2/ablation that borrows data and labels. The table gives mean and range over the seeds of
validation loss and DA-2K accuracy of the last step. Variants whose ranges overlap have not been told apart. A second
table has the mean accuracy on each kind of scene.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from dav2 import layout
from dav2.data.store.manifest import read_table
from dav2.params import load
from dav2.params.base import ALL_LABELS, SELECTIONS
from dav2.pseudo_label.select import Choice, select, write_selection
from dav2.training.journal import read_evaluations
from dav2.training.launch import launch

KEY = "ablated"
FOLDER = Path(".dav2/ablation")


def loss_variants(student: dict[str, Any], teacher: Path) -> dict[str, dict[str, Any]]:
    """The losses of the paper, one after another."""
    loss = {**student.get("loss", {}), "trim": 0.1}
    features = {"feature": 1.0, "feature_encoder": str(teacher.resolve())}
    return {
        "ssi only": {**student, "loss": {**loss, "gradient": 0.0}},
        "+ gradient matching (the recipe)": {**student, "loss": loss},
        "+ feature alignment to the teacher's encoder": {**student, "loss": {**loss, **features}},
        "the recipe, trimming off": {**student, "loss": {**loss, "trim": 0.0}},
    }


def data_variants(student: dict[str, Any], synthetic: list[str]) -> dict[str, dict[str, Any]]:
    """What the student learns from. The teacher's recipe is used for synthetic images only."""
    return {
        "pseudo-labelled photographs (the recipe)": student,
        "photographs and synthetic images": {**student, "synthetic": synthetic},
        "synthetic images only": {**student, "as_teacher": True},
    }


def selection_variants(student: dict[str, Any], share: float, seed: int) -> dict[str, dict[str, Any]]:
    """All labels, a budget chosen by ``dav2.pseudo_label.select``, and as many at random (others for every seed)."""
    folders = {source: str(Path("artifacts", "pseudo", source)) for source in student["sources"]}
    budget = round(share * sum(len(read_table(folder, ["key"])) for folder in folders.values()))

    def at_random(table: pd.DataFrame) -> pd.DataFrame:
        return table.sample(budget, random_state=seed).sort_index()

    ways = {"selected": partial(select, choice=Choice(budget)), f"random{seed}": at_random}
    for name, choose in ways.items():
        out = FOLDER / "selections" / name
        shutil.rmtree(out, ignore_errors=True)
        write_selection(folders, str(out), choose)
    return {
        "all photographs": student,
        f"{budget} selected": {**student, "labels": "selections/selected"},
        f"{budget} at random": {**student, "labels": f"selections/random{seed}"},
    }


def prepare(root: Path, tree: dict[str, Any], variant: dict[str, Any], seed: int) -> str:
    """Write the variant's project; returns the name of its run."""
    root.mkdir(parents=True, exist_ok=True)
    for name in ("shards", "pseudo"):
        link = root / "artifacts" / name
        link.parent.mkdir(exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(Path("artifacts", name).resolve())
    name = str(variant.get("labels", ALL_LABELS))
    if name != ALL_LABELS:
        link = root / "artifacts" / "selections"
        if not link.is_symlink():
            link.symlink_to((FOLDER / "selections").resolve())
        kept = {"sources": variant["sources"], "budget": 1}
        tree = {**tree, "selections": {name.removeprefix(SELECTIONS): kept}}
    changed = {**tree, "seed": seed, "evaluate": {**tree["evaluate"], "models": ["teacher"]}, "metric": {}}
    changed["compute"] = {**tree["compute"], "deepspeed": str(Path(tree["compute"]["deepspeed"]).resolve())}
    variant = dict(variant)
    if variant.pop("as_teacher", False):
        recipe = {name: value for name, value in variant.items() if name not in ("synthetic", "labels")}
        changed |= {"teacher": {**recipe, "sources": tree["teacher"]["sources"]}, "students": {}}
    else:
        changed["students"] = {KEY: variant}
    (root / "params.yaml").write_text(yaml.safe_dump(changed))
    load(root / "params.yaml")
    return "teacher" if not changed["students"] else f"student-{KEY}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--student", default="vitn")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, help="instead of the student's own number")
    vary = parser.add_mutually_exclusive_group()
    vary.add_argument("--data", action="store_true", help="vary the data, not the losses")
    vary.add_argument("--select", type=float, metavar="SHARE", help="vary the choice of photographs")
    options = parser.parse_args()
    params = load(options.params)
    tree = params.model_dump(mode="json", by_alias=True)
    student = tree["students"][options.student]
    student["steps"] = options.steps or student["steps"]
    teacher = Path("artifacts/models/teacher")
    kind = "data" if options.data else "loss" if options.select is None else "select"

    def variants(seed: int) -> dict[str, dict[str, Any]]:
        if options.select is not None:
            return selection_variants(student, options.select, seed)
        return data_variants(student, params.teacher.sources) if options.data else loss_variants(student, teacher)

    print(
        f"student {student['size']}, {student['steps']} steps of {student['batch']} at {student['crop']} px, seeds "
        f"{options.seeds}: mean (lowest to highest). Small; differences within the ranges mean nothing.\n"
    )
    print("| recipe | validation loss | DA-2K accuracy |\n|---|---|---|")
    kinds: dict[str, pd.DataFrame] = {}
    by_seed = {seed: variants(seed) for seed in options.seeds}
    for number, name in enumerate(by_seed[options.seeds[0]]):
        losses, scores, by_kind = [], [], []
        for seed, recipes in by_seed.items():
            root = FOLDER / f"{kind}-{number}-seed{seed}"
            run = prepare(root, tree, recipes[name], seed)
            launch(run, root / "params.yaml", root)
            last = read_evaluations(layout.training(root, run))[-1]
            losses.append(last.val_loss)
            scores.append(last.da2k)
            by_kind.append(last.da2k_kinds)
        kinds[name] = pd.DataFrame(by_kind)
        print(f"| {name} | {spread(losses)} | {spread(scores)} |", flush=True)
    table = pd.DataFrame({name: found.mean() for name, found in kinds.items()}).T
    print(f"\n| recipe | {' | '.join(table.columns)} |\n|{'---|' * (len(table.columns) + 1)}")
    for name, row in table.iterrows():
        print(f"| {name} | {' | '.join(f'{value:.3f}' for value in row)} |")


def spread(values: list[float]) -> str:
    """Mean and range."""
    return f"{statistics.mean(values):.4f} ({min(values):.4f} to {max(values):.4f})"


if __name__ == "__main__":
    main()
