from __future__ import annotations

from pathlib import Path

import pytest

import dav2
from dav2.documents import BenchmarkScores
from dav2.families.directory import WeightsError
from dav2.params import Params
from dav2.runs import get_run
from dav2.tracking import lineage, registry, runs, store
from dav2.tracking.store import TrackingError
from dav2.tracking.versions import model_names
from tests.tracking import builders


def register(project: Path, params: Params, run: str) -> registry.Registered:
    return registry.register(run, project, params, builders.scores(project, run, 0.8))


def test_names_say_what_a_model_is(params: Params) -> None:
    names = [get_run(params, run).registered for run in ("teacher", "student-vitt", "metric-indoor")]
    assert names == ["dav2-teacher", "dav2-student-vitt", "dav2-metric-indoor-vitt"]


def test_a_version_carries_lineage_scores_and_the_versions_of_its_parents(project: Path, params: Params) -> None:
    runs.log_training("teacher", project, params, lineage.collect("teacher", project, params))
    teacher = register(project, params, "teacher")
    student = register(project, params, "student-vitt")
    api = store.client(project)
    version = registry.resolve(api, "dav2-student-vitt@candidate")
    assert version.tags["dav2.weights_sha256"] == student.weights_sha256
    assert version.tags["da2k.accuracy"] == "0.8000"
    assert version.tags["sum.data.photos.raw"] == "md5-of-data/photos.dir"
    (parent,) = registry.lineage_of(api, version).parents
    assert (parent["name"], parent["version"]) == ("dav2-teacher", teacher.version)
    assert registry.read_document(api, version, "params.yaml") == (project / "params.yaml").read_text()
    assert registry.evidence_of(api, version).baselines["baseline-row"] == 0.6


def test_the_same_weights_keep_their_version_and_get_the_new_scores(project: Path, params: Params) -> None:
    first = register(project, params, "teacher")
    again = registry.register("teacher", project, params, builders.scores(project, "teacher", 0.9))
    assert (again.version, again.model_id, again.new) == (first.version, first.model_id, False)
    api = store.client(project)
    version = registry.resolve(api, "dav2-teacher")
    da2k = registry.evidence_of(api, version).da2k
    assert da2k is not None and da2k.accuracy == 0.9
    assert version.tags["da2k.accuracy"] == "0.9000"


def test_scores_of_other_weights_are_refused(project: Path, params: Params) -> None:
    scores = builders.scores(project, "teacher", 0.8)
    builders.write_run(project, params, "teacher", seed=9)
    with pytest.raises(TrackingError, match="made from other weights"):
        registry.register("teacher", project, params, scores)


def test_a_model_can_be_named_by_alias_number_or_nothing(project: Path, params: Params) -> None:
    register(project, params, "teacher")
    builders.write_run(project, params, "teacher", seed=9)
    register(project, params, "teacher")
    api = store.client(project)
    found = [registry.resolve(api, f"dav2-teacher{suffix}").version for suffix in ("", "@candidate", "/1")]
    assert [str(version) for version in found] == ["2", "2", "1"]
    for wrong in ("dav2-nothing", "dav2-teacher@champion", "dav2-teacher/7"):
        with pytest.raises(TrackingError, match=f"answers to '{wrong}'"):
            registry.resolve(api, wrong)


def test_nothing_that_is_registered_is_a_pickle(project: Path, params: Params) -> None:
    register(project, params, "teacher")
    files = [path.suffix for path in (project / ".dav2/mlflow/models").rglob("*") if path.is_file()]
    assert files and not {".pkl", ".pickle", ".pt", ".pth"} & set(files)


def test_scores_are_kept_without_the_outcomes_of_single_images(project: Path, params: Params) -> None:
    scores = builders.scores(
        project, "teacher", 0.8, benchmarks={"nyu": {"per_frame": {"keys": ["a"]}, "metrics": {"abs_rel": 0.1}}}
    )
    registry.register("teacher", project, params, scores)
    api = store.client(project)
    kept = registry.evidence_of(api, registry.resolve(api, "dav2-teacher")).scores
    assert kept is not None and kept.benchmarks["nyu"] == BenchmarkScores(metrics={"abs_rel": 0.1})


@pytest.mark.parametrize("address", ["models:/dav2-teacher@candidate", "models:/dav2-teacher/1", "models:/{model_id}"])
def test_weights_that_changed_in_the_registry_are_not_loaded(
    project: Path, params: Params, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    found = register(project, params, "teacher")
    monkeypatch.chdir(project)
    dav2.load(address.format(model_id=found.model_id), "cpu")
    (path,) = (project / ".dav2/mlflow").rglob("model.safetensors")
    content = bytearray(path.read_bytes())
    content[-3] ^= 0x40
    path.write_bytes(bytes(content))
    with pytest.raises(WeightsError, match="the weights are damaged"):
        dav2.load(address.format(model_id=found.model_id), "cpu")


def test_models_beyond_the_first_page_are_listed(project: Path) -> None:
    api = store.client(project)
    for number in range(103):
        api.create_registered_model(f"dav2-student-{number:03d}")
    api.create_registered_model("of-others")
    assert model_names(api) == [f"dav2-student-{number:03d}" for number in range(103)]
