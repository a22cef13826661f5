from __future__ import annotations

import base64
import io
import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import dav2
from dav2.params import Params
from dav2.tracking import registry, store
from tests.answering import wait_for_answer
from tests.tracking import builders


def photograph(width: int, height: int) -> tuple[np.ndarray, str]:
    rgb = np.random.default_rng(width).integers(0, 255, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "PNG")
    return rgb, base64.b64encode(buffer.getvalue()).decode()


@pytest.fixture(scope="module")
def server(template: Path, tmp_path_factory: pytest.TempPathFactory, params: Params) -> Iterator[tuple[str, Path]]:
    """``mlflow models serve`` of a registered version, with pickles forbidden."""
    import shutil

    project = tmp_path_factory.mktemp("served") / "project"
    shutil.copytree(template, project)
    registry.register("teacher", project, params, builders.scores(project, "teacher", 0.8))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/dav2-teacher@candidate"]
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # It starts uvicorn by name.
        "MLFLOW_TRACKING_URI": store.tracking_uri(project),
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "OMP_NUM_THREADS": "1",
    }
    with (project / "serve.log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--env-manager", "local", "-h", "127.0.0.1", "-p", str(port), "--workers", "1"],
            env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        wait_for_answer(f"http://127.0.0.1:{port}/ping", process, project / "serve.log")
        yield f"http://127.0.0.1:{port}/invocations", project
    finally:
        os.killpg(process.pid, 15)
        process.wait()


def ask(url: str, body: Any) -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_png_and_arrays_hold_what_the_model_predicts(server: tuple[str, Path]) -> None:
    url, project = server
    (first, first_text), (second, second_text) = photograph(80, 60), photograph(50, 70)
    model = dav2.load(project / "artifacts/models/teacher", device="cpu")
    expected = model.infer_images([first, second], 56)
    rows = [{"image": first_text}, {"image": second_text}]
    status, answer = ask(url, {"dataframe_records": rows, "params": {"format": "array", "input_size": 56}})
    assert status == 200
    for row, depth in zip(answer["predictions"], expected, strict=True):
        np.testing.assert_allclose(np.array(row["depth"]), depth, rtol=0.02, atol=0.02 * depth.max())
        assert row["unit"] == "relative disparity"
    status, answer = ask(url, {"dataframe_records": rows, "params": {"input_size": 56}})
    for row, depth in zip(answer["predictions"], expected, strict=True):
        codes = np.array(Image.open(io.BytesIO(base64.b64decode(row["depth_png"]))))
        decoded = codes / 65535 * (row["maximum"] - row["minimum"]) + row["minimum"]
        assert codes.shape == depth.shape == (row["height"], row["width"])
        np.testing.assert_allclose(decoded, depth, rtol=0.02, atol=0.02 * depth.max())


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"dataframe_records": [{"image": "not base64!"}]}, "row 0: 'image' is not base64"),
        ({"dataframe_records": [{"image": base64.b64encode(b"text").decode()}]}, "row 0"),
        ({"dataframe_records": [{"picture": "x"}]}, "image"),
        ({"dataframe_records": [{"image": 7}]}, "image"),
        ({"dataframe_records": []}, ""),
        ({"inputs": {"image": [photograph(20, 20)[1]]}, "params": {"input_size": 15}}, "multiple of 14"),
        ({"inputs": {"image": [photograph(20, 20)[1]]}, "params": {"format": "tiff"}}, "png or array"),
        ({"dataframe_records": [{"image": photograph(20, 20)[1]}] * 65}, "at most 64"),
        (b"{", ""),
    ],
)  # fmt: skip
def test_bad_requests_get_a_4xx_that_says_why(server: tuple[str, Path], body: Any, why: str) -> None:
    status, answer = ask(server[0], body)
    assert 400 <= status < 500
    assert why in json.dumps(answer, ensure_ascii=False)
