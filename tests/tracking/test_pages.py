"""What a person sees first on MLflow's pages: columns that tell models apart, and a card for each version."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path

from dav2.maps import Maps, Quantity
from dav2.params import Params
from dav2.tracking import card, lineage, registry, runs, store, view
from tests.tracking import builders


def test_a_registered_run_has_columns_scores_a_card_and_a_warning(project: Path, params: Params) -> None:
    runs.log_training("teacher", project, params, lineage.collect("teacher", project, params))
    nyu = {"nyu": {"metrics": {"abs_rel": 0.25}, "intervals": {"abs_rel": [0.2, 0.3]}, "scored": 8, "protocol": "p"}}
    rooms = {"rooms": {"metrics": {"mean": 40.0, "median": 30.0}}}
    scores = builders.scores(project, "teacher", 0.8, benchmarks=nyu | rooms)
    made = registry.register("teacher", project, params, scores)
    api = store.client(project)
    version = api.get_model_version(made.name, made.version)
    assert "| DA-2K, 100 pairs | 80.0 % right | 75.0 to 85.0 % |" in version.description
    assert "| nyu, 8 images, p | AbsRel 0.250 | 0.200 to 0.300 |" in version.description
    assert f"get-artifact?path=previews/step-000100.png&run_uuid={version.run_id}" in version.description
    for told in (*params.teacher.sources, "Commercial use", f"dav2 promote {made.name}", "dav2 lineage"):
        assert told in version.description
    assert len(version.description) <= card.LONGEST
    assert "go around dav2's gates" in api.get_registered_model(made.name).description
    scored = api.get_run(version.run_id).data.metrics
    assert (scored["scores/da2k"], scored[view.abs_rel("nyu")]) == (0.8, 0.25)
    assert scored["scores/mean rooms"] == 40.0
    shown = json.loads(api.get_experiment(store.experiment(api, project)).tags[view.VIEW_TAG])["selectedColumns"]
    assert f"metrics.`{view.abs_rel('nyu')}`" in shown and "metrics.`scores/da2k`" in shown
    readable = [tag for tag in sorted(version.tags) if not tag.startswith((f"{lineage.HASH}.", "dav2."))]
    hashed = [tag for tag in sorted(version.tags) if tag.startswith(f"{lineage.HASH}.")]
    assert hashed and max(readable) < min(hashed), "MLflow sorts tags by name"


def test_a_view_that_somebody_spoilt_is_written_anew(project: Path) -> None:
    api = store.client(project)
    number = store.experiment(api, project)
    for spoilt in ("no view", "[]", '{"selectedColumns": 3}', "{}"):
        api.set_experiment_tag(number, view.VIEW_TAG, spoilt)
        view.describe(api, number, ["nyu"])
        shown = json.loads(api.get_experiment(number).tags[view.VIEW_TAG])["selectedColumns"]
        assert shown == [*view.COLUMNS, f"metrics.`{view.abs_rel('nyu')}`", *view.LAST]


def test_loss_and_accuracy_stand_before_the_groups_in_mlflows_order() -> None:
    names = ["da2k_kinds.aerial", "lr_encoder", "images_per_second", "steps", "ssi", "grad_norm"]
    groups = {runs.shown_as(name).partition("/")[0] for name in names}
    assert all("/" not in runs.shown_as(name) for name in runs.FIRST)
    assert min(groups, key=str.lower).lower() > "model metrics"


def test_the_declared_outputs_are_those_that_are_answered(project: Path) -> None:
    import cv2
    import numpy as np

    from dav2.tracking import serving
    from dav2.tracking.layer_answers import layer_answer
    from dav2.tracking.pyfunc import signature

    declared = {column.name: column.required for column in signature().outputs.inputs}
    for form in serving.FORMATS:
        answered = set(serving._answer(np.ones((2, 3), np.float32), form, "m"))
        assert {name for name, needed in declared.items() if needed} < answered <= set(declared)
        albedo = Maps(Quantity.ALBEDO, np.full((3, 2, 3), 0.25, np.float32), None, "linear")
        layers = replace(albedo, beside=(Maps(Quantity.ROUGHNESS, np.ones((2, 3), np.float32), None, "linear"),))
        answer = layer_answer(layers, form)
        assert {name for name, needed in declared.items() if needed} < set(answer) <= set(declared)
        assert answer["unit"] == "albedo, roughness" and (answer["height"], answer["width"]) == (2, 3)
    png = base64.b64decode(str(layer_answer(layers, "png")["albedo_png"]))
    codes = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    assert codes.shape == (2, 3, 3) and codes.dtype == np.uint16 and (codes == 16384).all()
