"""Score maps that any program made on the benchmarks of a project, beside its own models and by the same rules."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dav2 import layout
from dav2.data.store.manifest import ManifestError, read_manifest
from dav2.data.store.shards import ShardError, read_frame
from dav2.documents import BenchmarkScores, Da2kScores, JudgedMaps, ScoreFile
from dav2.evaluation.baselines import PREFIX
from dav2.evaluation.doubts import doubts
from dav2.evaluation.evaluate import EvaluationError, chosen_benchmarks, other_protocols
from dav2.evaluation.foreign import Folder, find_maps
from dav2.evaluation.passes import Passes, Progress
from dav2.files import write_whole
from dav2.maps import Quantity
from dav2.names import safe_name
from dav2.params import Params
from dav2.runs import all_runs
from dav2.scores.scoring import NO_MAP, UNREADABLE_MAP

MISSING = 0.05
"""Share of a benchmark's images that may lack a map that can be read, unless told otherwise."""
LONGEST_BY = 200


@dataclass(frozen=True, slots=True)
class Predictions:
    """Maps to be judged.

    Attributes:
        folder: where they lie.
        quantity: what their values are.
        name: under which they stand in the tables; the folder's name if empty.
        by: who made them.
        scale: factor of the values.
        allow_missing: share of a benchmark's images that may lack a map.
        dataset: which array of NPZ and HDF5 files with several is the map.
        gamma_coded: whether the values, of a layer of appearance or light, are x^(1/2.2) of linear ones.
    """

    folder: Path
    quantity: str
    name: str = ""
    by: str = ""
    scale: float = 1.0
    allow_missing: float = MISSING
    dataset: str | None = None
    gamma_coded: bool = False


def evaluate_maps(
    predictions: Predictions,
    params: Params,
    root: Path,
    progress: Progress | None = None,
    *,
    benchmarks: Iterable[str] | None = None,
    protocols: Sequence[str] = (),
) -> ScoreFile:
    """Score a folder of maps and write its score file.

    Args:
        predictions: the maps and what they are.
        params: settings; ``evaluate`` says what is scored.
        root: project folder.
        progress: called with (frames done, frames in all).
        benchmarks: names to limit it to, every one of which must have maps; ``None`` is all that fit and have any.
        protocols: by which every depth benchmark is judged beside its own.

    Returns:
        The content of the score file: that of a model, with ``by``, ``maps`` (digest, counts, names of files without
        an image, reasons of unreadable ones) and ``doubts``.

    Raises:
        EvaluationError: the maps cannot be judged; the message says why and what to do.
    """
    try:
        return _evaluate(predictions, params, root, progress, benchmarks, protocols)
    except (ValueError, OSError) as error:
        raise EvaluationError(str(error)) from error


def _evaluate(
    predictions: Predictions,
    params: Params,
    root: Path,
    progress: Progress | None,
    wanted: Iterable[str] | None,
    protocols: Sequence[str],
) -> ScoreFile:
    quantity, name = _quantity(predictions.quantity), _name(predictions, params, root)
    coded, fitting = _coded(predictions, quantity), chosen_benchmarks(name, quantity, params, wanted, part=True)
    if not fitting:
        raise ValueError(f"no benchmark judges {quantity.value}; 'evaluate.benchmarks' needs one whose protocol does")
    keys = _keys(fitting, params, root, required=wanted is not None)
    folder = find_maps(
        predictions.folder,
        quantity,
        _keys(["da2k", *params.evaluate.benchmarks], params, root),
        predictions.scale,
        predictions.dataset,
        gamma_coded=coded,
    )
    chosen = [each for each in fitting if _has_maps(folder, keys.get(_source(each, params), []), wanted is not None)]
    if not chosen:
        raise ValueError(f"{predictions.folder}: no map of any benchmark that takes {quantity.unit}")
    _enough(folder, {each: keys[_source(each, params)] for each in chosen}, predictions.allow_missing)
    started = time.perf_counter()
    others = other_protocols(chosen, quantity, params, protocols)
    passes = Passes(params, root, folder, 8, progress, chosen, others=others, predictions=folder.predictions)
    da2k = passes.da2k() if "da2k" in chosen else None
    judged = {each: passes.benchmark(each) for each in chosen if each != "da2k"}
    _still_enough(folder, da2k, judged, predictions.allow_missing)
    result = ScoreFile(
        model=name,
        by=predictions.by,
        quantity=quantity.value,
        da2k=da2k,
        benchmarks=judged,
        maps=_described(folder),
        doubts=doubts(folder.seen.values(), da2k, quantity),
        seconds=round(time.perf_counter() - started, 3),
    )
    result.write(layout.scores(root, name))
    return result


def _quantity(name: str) -> Quantity:
    if name not in list(Quantity):
        raise ValueError(f"--quantity {name or '(missing)'}: say what the values are: {', '.join(Quantity)}")
    return Quantity(name)


def _coded(predictions: Predictions, quantity: Quantity) -> bool:
    if predictions.gamma_coded and (quantity.is_depth or quantity is Quantity.NORMALS):
        raise ValueError(f"--gamma-coded: {quantity.unit} is no colour; it is for layers of appearance and light")
    return predictions.gamma_coded


def _name(predictions: Predictions, params: Params, root: Path) -> str:
    name = safe_name(predictions.name or predictions.folder.resolve().name, "name of the maps (--name)")
    if name in all_runs(params) or name.startswith(PREFIX) or layout.model(root, name).exists():
        raise ValueError(f"--name {name}: is a model of this project, whose scores these would replace; choose another")
    if len(predictions.by) > LONGEST_BY or not predictions.by.isprintable():
        raise ValueError(f"--by: one line of at most {LONGEST_BY} characters")
    if not 0 <= predictions.allow_missing <= 1:
        raise ValueError(f"--allow-missing {predictions.allow_missing:g}: is a share, from 0 to 1")
    return name


def _source(benchmark: str, params: Params) -> str:
    return params.evaluate.da2k if benchmark == "da2k" else params.evaluate.benchmarks[benchmark].source


def _keys(benchmarks: Iterable[str], params: Params, root: Path, required: bool = False) -> dict[str, list[str]]:
    """Data set → keys of its frames, of the sets behind these benchmarks that were ingested."""
    keys: dict[str, list[str]] = {}
    for each in benchmarks:
        source = _source(each, params)
        if source in keys:
            continue
        try:
            keys[source] = [str(key) for key in read_manifest(root / params.shards(source))["key"]]
        except ManifestError:
            if required:
                raise
    if not keys:
        raise ValueError("no benchmark was ingested yet; 'dvc repro benchmark' does it")
    return keys


def _has_maps(folder: Folder, keys: Sequence[str], required: bool) -> bool:
    return required or any(key in folder.maps for key in keys)


def _enough(folder: Folder, chosen: dict[str, list[str]], allowed: float) -> None:
    for name, keys in chosen.items():
        missing = [key for key in keys if key not in folder.maps]
        _refuse(folder, name, missing, len(keys), allowed)


def _still_enough(folder: Folder, da2k: Da2kScores | None, judged: dict[str, BenchmarkScores], allowed: float) -> None:
    """After reading: a map that cannot be read is none."""
    none = (NO_MAP, UNREADABLE_MAP)
    lost = {name: [key for each in none for key in entry.problems.get(each, ())] for name, entry in judged.items()}
    counts = {name: entry.frames for name, entry in judged.items()}
    if da2k is not None:
        lost["da2k"] = [each.key for each in da2k.problem_list if each.reason in none]
        counts["da2k"] = da2k.images + len(lost["da2k"])
    for name, keys in lost.items():
        _refuse(folder, name, keys, counts[name], allowed)


def _refuse(folder: Folder, name: str, missing: Sequence[str], count: int, allowed: float) -> None:
    if len(missing) > allowed * count:
        why = "".join(f"; {file}: {reason}" for file, reason in list(folder.unreadable.items())[:3])
        what = f"have no map{' that can be read' if why else ''}{why}"
        listed = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
        raise ValueError(
            f"{folder.path}: {len(missing)} of {count} images of {name} {what} ({listed}); at most "
            f"{100 * allowed:g} % may lack one: complete them, leave the benchmark out with --benchmark, or say "
            f"--allow-missing {min(1.0, round(len(missing) / count + 0.005, 2)):g}"
        )


def _described(folder: Folder) -> JudgedMaps:
    return JudgedMaps(
        sha256=folder.digest(),
        found=len(folder.maps),
        scale=folder.scale,
        surplus=folder.surplus,
        unreadable=dict(sorted(folder.unreadable.items())),
    )


def write_images(params: Params, root: Path, out: Path, benchmarks: Iterable[str] | None = None) -> int:
    """Write the benchmarks' images as ``out/<key>.png``, the names that maps of them should bear; returns how many.

    Raises:
        EvaluationError: an unknown benchmark, none ingested, or a damaged shard.
    """
    from dav2.data.images import encode_png

    count = 0
    try:
        known = ["da2k", *params.evaluate.benchmarks]
        unknown = [each for each in benchmarks or () if each not in known]
        if unknown:
            raise ValueError(f"no benchmark '{unknown[0]}' in evaluate.benchmarks; there are: {', '.join(known)}")
        for source in _keys(benchmarks or known, params, root, required=benchmarks is not None):
            directory = root / params.shards(source)
            for row in read_manifest(directory).to_dict("records"):
                write_whole(out / f"{row['key']}.png", encode_png(read_frame(directory, row).rgb))
                count += 1
    except (ValueError, OSError, ShardError) as error:
        raise EvaluationError(str(error)) from error
    return count
