"""What a model stands on is followed through its parents, kept with its version, and stands in the way when asked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from dav2 import layout
from dav2.cli import build
from dav2.documents import Evidence, LicenceLine, Origin
from dav2.licences import NO_ADVICE
from dav2.params import Params, RegisterParams
from dav2.tracking import gates, promotion, registry, store
from dav2.tracking.licences import complete_card, licences_of_run
from tests.evaluation.conftest import depth_frames, write_shards
from tests.tracking import builders


def _lines(run: str, root: Path, params: Params) -> dict[str, LicenceLine]:
    found = licences_of_run(run, root, params, lambda uri: None)
    assert len({(line.name, line.licence) for line in found}) == len(found)
    return {line.name: line for line in found}


def _changed(params: Params, **changes: Any) -> Params:
    return Params.model_validate({**params.model_dump(mode="json", by_alias=True), **changes})


def _ingest(root: Path, params: Params, source: str, licence: str) -> None:
    folder = root / params.shards(source)
    shutil.rmtree(folder, ignore_errors=True)
    write_shards(folder, depth_frames(source, 2), params.data_sets[source].group, licence)


def test_a_metric_model_stands_on_its_data_its_student_and_the_student_s_teacher(project: Path, params: Params) -> None:
    params = _changed(params, licences={"views": "Apache-2.0", "photos": "CC0-1.0"})
    for source, licence in {"hypersim": "CC BY-SA 3.0", "vkitti2": "CC BY-NC-SA 3.0", "irs": "Apache-2.0"}.items():
        _ingest(project, params, source, licence)
    lines = _lines("metric-indoor", project, params)
    assert {name: line.through for name, line in lines.items()} == {
        "hypersim": [],
        "irs": [],
        "photos": ["student-vitt"],
        "views": ["student-vitt"],
        "vkitti2": ["student-vitt", "teacher"],
        "tartanair": ["student-vitt", "teacher"],
        "blendedmvs": ["student-vitt", "teacher"],
    }
    assert (lines["vkitti2"].licence, lines["vkitti2"].commercial) == ("CC BY-NC-SA 3.0", "no")
    assert lines["hypersim"].share_alike == "yes"
    assert (lines["photos"].licence, lines["photos"].declared) == ("CC0-1.0", "params.yaml")
    # Not at hand, so not known.
    assert (lines["tartanair"].licence, lines["tartanair"].commercial) == ("unknown", "unknown")


def test_settings_may_declare_another_licence_and_what_the_reader_says_is_told_beside_it(
    project: Path, params: Params
) -> None:
    params = _changed(params, licences={"hypersim": "Apache-2.0"})
    _ingest(project, params, "hypersim", "CC BY-SA 3.0")
    line = _lines("teacher", project, params)["hypersim"]
    assert (line.licence, line.declared) == ("Apache-2.0", "params.yaml (its reader says CC BY-SA 3.0)")


def test_settings_cannot_license_what_is_not_there(params: Params) -> None:
    with pytest.raises(ValueError, match=r"licences.moon: no data set of that name; there are: hypersim"):
        _changed(params, licences={"moon": "MIT"})


def test_photographs_say_their_licences_one_by_one(project: Path, params: Params) -> None:
    params = _changed(params, licences={"views": "Apache-2.0"})
    folder = project / params.shards("photos")
    shutil.rmtree(folder, ignore_errors=True)
    frames = depth_frames("photos", 3)
    for frame, licence in zip(frames, ("CC0 (A)", "CC BY 2.0 (B)", "CC0 (A)"), strict=True):
        frame.extra["licence"] = licence
    write_shards(folder, frames, "unlabelled", "by photograph, in photos.yaml")
    found = licences_of_run("student-vitt", project, params, lambda uri: None)
    assert [(line.licence, line.commercial) for line in found if line.name == "photos"] == [
        ("CC BY 2.0 (B)", "yes"),
        ("CC0 (A)", "yes"),
    ]


def _outside(root: Path, licence: str | None, registered: str | None = None) -> None:
    digest = "0" * 64
    Origin(
        name="gift",
        kind="model",
        source="somewhere",
        registered=registered,
        source_sha256=digest,
        weights_sha256=digest,
        family="depth_anything",
        quantity="disparity",
        licence=licence,
    ).write(layout.outside(root, "gift") / layout.ORIGIN)


@pytest.mark.parametrize(("licence", "answer"), [("cc-by-nc-4.0", "no"), ("apache-2.0", "yes"), (None, "unknown")])
def test_a_teacher_made_elsewhere_counts(project: Path, params: Params, licence: str | None, answer: str) -> None:
    params = _changed(
        params, outside={"gift": {"model": "gift.pth", "licence": licence}}, teacher={"use": "outside/gift"}
    )
    _outside(project, licence)
    line = _lines("student-vitt", project, params)["gift"]
    assert (line.kind, line.commercial, line.through) == ("model", answer, [])
    assert line.licence == (licence or "unknown")


def test_a_registered_model_taken_in_stands_on_what_it_was_made_from(project: Path, params: Params) -> None:
    builders.write_run(project, params, "teacher", 1)
    registry.register("teacher", project, params, builders.scores(project, "teacher", 0.8))
    below = registry.licences_of("models:/dav2-teacher/1", project)
    assert below is not None
    named = _changed(params, outside={"gift": {"model": "models:/dav2-teacher/1"}}, teacher={"use": "outside/gift"})
    _outside(project, None, "models:/dav2-teacher/1")
    found = licences_of_run("student-vitt", project, named, lambda uri: registry.licences_of(uri, project))
    through = {line.name: line.through for line in found}
    assert through["hypersim"] == ["gift"]
    assert registry.licences_of("models:/nobody/1", project) is None


def _evidence(*lines: LicenceLine) -> Evidence:
    return Evidence(kind="teacher", licences=list(lines))


def test_the_gate_refuses_for_commercial_use_and_names_the_line(project: Path, params: Params) -> None:
    _ingest(project, params, "vkitti2", "CC BY-NC-SA 3.0")
    vkitti2 = _lines("teacher", project, _changed(params, licences={}))["vkitti2"]
    irs = vkitti2.model_copy(update={"name": "irs", "licence": "Apache-2.0", "commercial": "yes"})
    unknown = vkitti2.model_copy(update={"name": "gift", "licence": "unknown", "commercial": "unknown", "says": "why"})
    any_use, commercial = RegisterParams(), RegisterParams(use="commercial")
    gate = gates.licence(_evidence(irs, vkitti2), commercial)
    assert not gate.passed
    assert gate.detail == (
        "commercial use is asked; vkitti2 (CC BY-NC-SA 3.0): no commercial use; what is adapted from it is passed on "
        "under the same licence"
    )
    assert not gates.licence(_evidence(irs, unknown), commercial).passed
    assert not gates.licence(_evidence(), commercial).passed
    assert not gates.licence(Evidence(kind="teacher"), commercial).passed
    assert gates.licence(_evidence(irs), commercial).passed
    told = gates.licence(_evidence(irs, vkitti2), any_use)
    assert told.passed
    assert told.detail.startswith("any use is asked; not for commercial use: vkitti2")
    assert gates.licence(Evidence(kind="teacher"), any_use).passed


def test_registering_keeps_licences_as_tags_evidence_and_card_and_promotion_asks(project: Path, params: Params) -> None:
    _ingest(project, params, "vkitti2", "CC BY-NC-SA 3.0")
    params = _changed(params, licences={**params.licences, "vkitti2": "CC BY-NC-SA 3.0"})
    registry.register("teacher", project, params, builders.scores(project, "teacher", 0.8))
    api = store.client(project)
    version = api.get_model_version("dav2-teacher", "1")
    assert version.tags["licence.commercial"] == "no"
    assert version.tags["licence.data.vkitti2"] == "CC BY-NC-SA 3.0"
    package = Path(registry.files_of(api, version).removeprefix("file://"))
    (card,) = package.rglob(layout.CARD)
    assert "| data | vkitti2 | CC BY-NC-SA 3.0 | no | yes | yes |" in card.read_text()
    assert card.read_text().startswith("a model")
    refused = promotion.promote(
        "dav2-teacher", project, _changed(params, register={"use": "commercial", "min_over_baseline": 0.0})
    )
    assert [gate.gate for gate in refused.gates if not gate.passed] == ["licence"]
    # Licences that change with the settings are brought up to date, as scores are.
    free = _changed(params, licences=dict.fromkeys(params.sources, "Apache-2.0"), register={"use": "commercial"})
    registry.register("teacher", project, free, builders.scores(project, "teacher", 0.8))
    assert api.get_model_version("dav2-teacher", "1").tags["licence.commercial"] == "yes"
    assert promotion.promote("dav2-teacher", project, free).promoted


def test_the_card_of_a_finished_run_says_it_once_and_as_it_is_now(project: Path, params: Params) -> None:
    path = layout.model(project, "teacher") / layout.CARD
    for licence in ("CC BY-NC-SA 3.0", "Apache-2.0", "Apache-2.0"):
        changed = _changed(params, licences={"vkitti2": licence})
        complete_card("teacher", project, changed, lambda uri: None)
        text = path.read_text()
        assert text.startswith("a model\n\n## Licences of what it was made from")
        assert text.count("## Licences") == 1
        assert text.count("| data | vkitti2 |") == 1
        assert f"| data | vkitti2 | {licence} |" in text


def _run(project: Path, params: Params, *arguments: str) -> tuple[int, str]:
    settings = project / "asked.yaml"
    settings.write_text(yaml.safe_dump(params.model_dump(mode="json", by_alias=True)))
    command = ["licences", *arguments, "--params", str(settings), "--root", str(project)]
    result = CliRunner(env={"COLUMNS": "200"}).invoke(build("licences"), command)
    return result.exit_code, result.output


def test_the_command_speaks_of_runs_versions_folders_and_says_no_advice(project: Path, params: Params) -> None:
    _ingest(project, params, "irs", "Apache-2.0")
    code, output = _run(project, params, "teacher")
    assert code == 0, output
    assert "irs" in output and NO_ADVICE in output
    assert "Apache License 2.0, sections 2 and 4" in output
    registry.register("teacher", project, params, builders.scores(project, "teacher", 0.8))
    code, output = _run(project, params, "dav2-teacher@candidate", "--json")
    assert code == 0, output
    document = json.loads(output)
    assert {line["name"] for line in document["lines"]} == set(params.teacher.sources)  # type: ignore[union-attr]
    folder = project / "downloaded"
    folder.mkdir()
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# A model\n")
    code, output = _run(project, params, "downloaded")
    assert "Commercial use: not allowed; in the way: downloaded (cc-by-nc-4.0)." in output
    code, output = _run(project, params, "nobody")
    assert code == 2
    assert "Traceback" not in output and "'nobody'" in output
