from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from dav2.params import ParamsError, load, scale_names, scale_text
from dav2.params.recipes import AugmentParams, LossParams, OptimParams
from dav2.runs import all_runs, get_run

ROOT = Path(__file__).parents[2]
SAMPLE = (ROOT / "infra/scales/sample.yaml").read_text()


def refused(tmp_path: Path, text: str) -> str:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(ParamsError) as caught:
        load(path)
    return str(caught.value)


def line_of(text: str, part: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if part in line)


def test_the_project_stands_at_the_sample_scale() -> None:
    assert (ROOT / "params.yaml").read_text() == SAMPLE


@pytest.mark.parametrize("name", scale_names(ROOT / "infra/scales"))
def test_every_scale_is_valid_and_says_its_own_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(scale_text(name, ROOT / "infra/scales"))
    assert load(path).scale == name
    events = yaml.parse(path.read_text())
    named = [event for event in events if getattr(event, "anchor", None)]
    assert not named, "a value with a name is one that 'dvc exp run --set-param' cannot change"


def test_an_overlay_changes_what_it_names_and_keeps_the_rest() -> None:
    tiny, sample = (yaml.safe_load(scale_text(name, ROOT / "infra/scales")) for name in ("tiny", "sample"))
    assert tiny["students"]["vitt"]["steps"] == 4
    assert tiny["students"]["vitt"]["optim"] == sample["students"]["vitt"]["optim"]
    assert tiny["benchmarks"] == {name: sample["benchmarks"][name] for name in ("da2k", "nyu")}, "null takes away"


def test_an_unknown_scale_is_refused_with_the_list_of_those_there_are() -> None:
    with pytest.raises(ParamsError, match="no scale named 'huge'; there are: paper, rgbd, sample, student"):
        scale_text("huge", ROOT / "infra/scales")


def test_an_unknown_key_is_named_with_its_line_and_what_is_allowed(tmp_path: Path) -> None:
    text = SAMPLE.replace("shard_frames: 64", "shard_frame: 64")
    message = refused(tmp_path, text)
    assert f"params.yaml:{line_of(text, 'shard_frame:')}: unknown key 'ingest.shard_frame'" in message
    assert "allowed here: shard_frames, workers" in message


def test_an_unknown_key_inside_a_named_entry_lists_the_keys_of_that_entry(tmp_path: Path) -> None:
    message = refused(tmp_path, SAMPLE.replace("reader: irs", "readr: irs"))
    assert "unknown key 'sources.irs.readr'; allowed here: reader, path, group" in message
    assert "key 'sources.irs.reader' is missing" in message


def test_a_wrong_value_is_named_with_its_line_and_the_value(tmp_path: Path) -> None:
    text = SAMPLE.replace("steps: 260", "steps: -1")
    assert f"params.yaml:{line_of(text, 'steps: -1')}: teacher.steps" in refused(tmp_path, text)
    assert "(got -1)" in refused(tmp_path, text)


def test_a_crop_that_is_no_multiple_of_the_patch_is_refused(tmp_path: Path) -> None:
    said = "teacher.crop: 90 should be a multiple of 14 for vitt, such as 84 or 98"
    assert said in refused(tmp_path, SAMPLE.replace("crop: 84", "crop: 90", 1))
    said = "teacher.crop: 84 should be a multiple of 16 for vitt3, such as 80 or 96"
    assert said in refused(tmp_path, SAMPLE.replace("size: vitt", "size: vitt3", 1))


def test_a_loss_that_a_run_cannot_learn_by_is_refused(tmp_path: Path) -> None:
    message = refused(tmp_path, SAMPLE.replace("loss: {kind: silog}", "loss: {kind: relative}"))
    assert "metric.indoor.loss.kind is relative, but metric models learn metres" in message
    message = refused(tmp_path, SAMPLE.replace("loss: {gradient: 0.25}", "loss: {kind: silog}"))
    assert "teacher.loss.kind is silog" in message


def test_real_labels_for_the_teacher_are_refused_with_the_reason(tmp_path: Path) -> None:
    message = refused(tmp_path, SAMPLE.replace("sources: [hypersim, vkitti2, ", "sources: [photos, vkitti2, "))
    assert "teacher.sources: 'photos' is unlabelled; the teacher learns from synthetic images only" in message


def test_students_cannot_learn_from_what_is_not_labelled(tmp_path: Path) -> None:
    message = refused(
        tmp_path, SAMPLE.replace("pseudo_label: {sources: [photos, views]", "pseudo_label: {sources: [photos]")
    )
    assert "students.vitt.sources: views not in pseudo_label.sources" in message


def test_a_metric_model_must_have_the_size_of_its_student(tmp_path: Path) -> None:
    message = refused(tmp_path, SAMPLE.replace("start: models/student-vitt", "start: models/student-vitn"))
    assert "metric.indoor.start: student-vitn is depth_anything vitn, but this run is depth_anything vitt" in message


VITN = "  vitn:\n    size: vitn\n    start: "


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("start: random", "start: weights/dinov2.pth", "teacher.start: String should match pattern"),
        (
            "start: random",
            "start: outside/dinov2",
            "teacher.start: no model 'dinov2' in section 'outside'",
        ),
        ("start: random", "start: models/student-vitt", "teacher.start: student-vitt is trained after teacher"),
        (
            "start: models/student-vitt",
            "start: models/student-vitx",
            "metric.indoor.start: no run named 'student-v",
        ),
        (
            VITN + "random",
            VITN + "models/student-vitn",
            "student-vitn from student-vitn is a circle",
        ),
        ("outside: {}", "outside: {a: {}}", "outside.a: say one of model, encoder, onnx and maps (there are 0)"),
        ("outside: {}", "outside: {a: {model: a.pth, maps: b}}", "outside.a: say one of model, encoder, onnx and maps"),
        ("outside: {}", "outside: {a: {onnx: a.onnx}}", "outside.a: quantity belongs to onnx and maps, which need it"),
        (
            "outside: {}",
            "outside: {a: {model: a.pth, quantity: depth}}",
            "outside.a: quantity belongs to onnx and maps",
        ),
        (
            "outside: {}\n\nteacher:\n  size: vitt\n  start: random",
            "outside: {a: {onnx: a.onnx, quantity: depth}}\n\nteacher:\n  size: vitt\n  start: outside/a",
            "teacher.start: outside.a is given as 'onnx'; it has no weights that dav2 can train",
        ),
    ],
)
def test_a_start_that_cannot_be_begun_from_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in SAMPLE
    assert said in refused(tmp_path, SAMPLE.replace(old, new))


def named_teacher(use: str, outside: str) -> str:
    """The sample with a teacher that is named instead of trained."""
    head, rest = SAMPLE.split("outside: {}")
    settings = rest[rest.index("pseudo_label:") :]
    return f"{head}outside: {outside}\n\nteacher: {{use: {use}}}\n\n{settings}"


def test_a_teacher_may_be_named_instead_of_trained(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(named_teacher("outside/midas", "{midas: {onnx: midas.onnx, quantity: disparity, size: 256}}"))
    params = load(path)
    assert "teacher" not in all_runs(params)
    assert get_run(params, "student-vitt").outside == {"teacher": "midas"}
    assert params.held_out == ["hypersim", "vkitti2", "tartanair", "irs", "blendedmvs"]


@pytest.mark.parametrize(
    ("use", "outside", "said"),
    [
        ("outside/a", "{}", "teacher.use: no model 'a' in section 'outside'; there are: none"),
        ("outside/a", "{a: {encoder: a.pth}}", "teacher.use: outside.a is given as 'encoder'; an encoder alone cannot"),
        ("a.onnx", "{}", "teacher.use: String should match pattern"),
        ("outside/a, steps: 3", "{a: {model: a.pth}}", "unknown key 'teacher.steps'; allowed here: use"),
    ],
)
def test_a_named_teacher_that_cannot_label_is_named(tmp_path: Path, use: str, outside: str, said: str) -> None:
    assert said in refused(tmp_path, named_teacher(use, outside))


def test_a_benchmark_among_the_sources_is_refused(tmp_path: Path) -> None:
    message = refused(tmp_path, SAMPLE.replace("path: data/irs, group: synthetic", "path: data/irs, group: benchmark"))
    assert "sources.irs: 'irs' is benchmark; benchmarks go under 'benchmarks'" in message


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="is missing; run from the project folder, or write it with 'dav2 scale"):
        load(tmp_path / "params.yaml")


def test_broken_yaml_is_named(tmp_path: Path) -> None:
    assert "not valid YAML" in refused(tmp_path, "teacher: [")
    assert "must be a mapping" in refused(tmp_path, "- teacher")


def test_a_run_is_found_by_its_name(tmp_path: Path) -> None:
    params = load(ROOT / "params.yaml")
    assert get_run(params, "student-vitn").settings.size == "vitn"
    with pytest.raises(ParamsError, match=r"named 'student-vitx'; did you mean 'student-vit.'\? there are: teacher"):
        get_run(params, "student-vitx")


def test_defaults_are_the_published_recipe() -> None:
    optim, loss = OptimParams(), LossParams()
    assert (optim.optimizer, optim.encoder_lr, optim.decoder_lr) == ("adam", 5e-6, 5e-5)
    assert (loss.ssi, loss.gradient, loss.gradient_scales, loss.feature_margin) == (1.0, 2.0, 4, 0.85)
    assert AugmentParams().flip == 0.5
