"""``dav2 demo`` in a real browser."""

from __future__ import annotations

import os
import re
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import Browser, Page

from dav2.demo.models import find_models
from dav2.families.depth_anything.model import build
from dav2.families.depth_anything.weights import save_directory
from tests.answering import wait_for_answer
from tests.conftest import PATIENCE

KEPT = 20.0
"""Seconds that an upload lives here: long enough for a page on a busy machine to be answered."""


@dataclass(frozen=True)
class Demo:
    """A running demo, its address, the folder in which temporary files are made, and an upload of its first moment."""

    server: subprocess.Popen[bytes]
    address: str
    temporary: Path
    upload: Path


def uploaded(address: str, name: str) -> Path:
    """A file sent to the page; returns where it keeps it."""
    sent = {"files": (name, b"private")}
    return Path(httpx.post(f"{address}/gradio_api/upload", files=sent, timeout=60).json()[0])


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """A demo with two random models and a metric one, whose uploads live for some seconds; stopped at the end."""
    folder = tmp_path_factory.mktemp("demo")
    for seed, (name, metres) in enumerate({"one": None, "two": None, "metric": 10.0}.items()):
        torch.manual_seed(seed)
        save_directory(build("vitn", metres), folder / name)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    models = [str(folder / name) for name in ("one", "two", "metric")]
    command = [sys.executable, "-m", "dav2.cli", "demo", *models, "--port", str(port), "--keep", str(KEPT / 60)]
    log, temporary = folder / "demo.log", folder / "tmp"
    temporary.mkdir()
    with log.open("w") as output:
        environment = {**os.environ, "TMPDIR": str(temporary)}
        server = subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT, env=environment)
    try:
        wait_for_answer(f"http://127.0.0.1:{port}", server, log)
        address = f"http://127.0.0.1:{port}"
        upload = uploaded(address, "first.png")
        assert upload.is_file()
        yield Demo(server, address, temporary, upload)
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def page_address(demo: Demo) -> str:
    return demo.address


@dataclass
class Watched:
    """A page, and what went wrong or went out while it was open."""

    page: Page
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@pytest.fixture(params=[1280, 390])
def opened(browser: Browser, page_address: str, request: pytest.FixtureRequest) -> Iterator[Watched]:
    """The page in a wide and in a narrow window; at the end nothing has failed, gone out, or run over the edge."""
    context = browser.new_context(viewport={"width": request.param, "height": 900})
    watched = Watched(context.new_page())
    watched.page.set_default_timeout(PATIENCE)
    watched.page.on("pageerror", lambda error: watched.errors.append(str(error)))
    watched.page.on("request", lambda asked: watched.requests.append(asked.url))
    watched.page.goto(page_address)
    yield watched
    assert watched.page.evaluate("document.documentElement.scrollWidth") <= request.param
    assert watched.errors == []
    assert [url for url in watched.requests if not url.startswith((page_address, "data:", "blob:"))] == []
    context.close()


def test_a_dropped_photograph_is_shown_beside_every_models_depth(opened: Watched, tmp_path: Path) -> None:
    photograph = tmp_path / "photograph.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)).save(photograph)
    page = opened.page
    page.set_input_files("input[type=file]", str(photograph))
    page.wait_for_selector(".dav2 iframe")
    assert page.locator(".dav2 figure img").evaluate_all("all => all.map(each => each.alt)") == [
        "photograph", "one", "two", "metric"
    ]  # fmt: skip
    assert page.locator(".dav2 .ticks").inner_text().split() == ["far", "near"]
    words = page.locator(".dav2 figcaption").all_inner_texts()
    assert "120 × 90 pixels" in words[0]
    assert re.search(
        r"two\s+\S+ to \S+ \(relative disparity, no unit\) · \d+\.\d\d s.* · 2\.3 M parameters, 9 MB", words[2]
    )
    assert re.search(r"metric\s+\S+ to \S+ m · ", words[3]) and "60° across taken" in words[4]
    (points,) = [frame for frame in page.frames if frame.url == "about:srcdoc"]
    points.wait_for_function("Number(document.body.dataset.drawn) === 90 * 120")


def test_an_example_is_a_click_and_metric_models_alone_get_a_legend_in_metres(opened: Watched) -> None:
    page = opened.page
    for name in ("one", "two"):
        page.get_by_label(name, exact=True).uncheck()
    page.locator(".gallery-item").first.click()
    page.wait_for_selector(".dav2 iframe")
    ticks = [float(each) for each in page.locator(".dav2 .ticks").inner_text().replace("m", "").split()]
    assert len(ticks) == 5 and ticks == sorted(ticks, reverse=True) and ticks[-1] > 0
    assert page.locator(".dav2 figure img").count() == 2


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9"},
        {"Origin": "http://localhost:70000"},
    ],
    ids=str,
)
def test_foreign_names_and_pages_are_refused(demo: Demo, method: str, headers: dict[str, str]) -> None:
    for path in ("", "config", "gradio_api/info", "gradio_api/upload", "gradio_api/call/compare"):
        answer = httpx.request(method, f"{demo.address}/{path}", headers=headers, timeout=60)
        assert answer.status_code in (400, 403), path
        # Around ours, Gradio's own layer greets other ports of this machine, whatever stands in the answer.
        near = "Origin" in headers and "//evil" not in headers["Origin"] and headers["Origin"] != "null"
        assert answer.text == "foreign origin" if near else "access-control-allow-origin" not in answer.headers


def test_a_page_may_name_no_file_of_the_machine(demo: Demo, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    asked = {"data": [{"path": str(tmp_path / "secret.png"), "meta": {"_type": "gradio.FileData"}}, ["one"]]}
    event = httpx.post(f"{demo.address}/gradio_api/call/compare", json=asked, timeout=60).json()["event_id"]
    told = httpx.get(f"{demo.address}/gradio_api/call/compare/{event}", timeout=60).text
    assert "event: error" in told


def test_an_upload_is_deleted_while_the_page_goes_on(demo: Demo) -> None:
    deadline = time.monotonic() + 60
    while demo.upload.exists():
        assert time.monotonic() < deadline, "the upload is still there"
        time.sleep(0.2)
    assert demo.server.poll() is None


def test_uploads_lie_in_a_private_folder_that_is_gone_at_the_end(demo: Demo) -> None:
    kept = uploaded(demo.address, "last.png")
    (private,) = demo.temporary.iterdir()
    assert kept.is_relative_to(private)
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    demo.server.terminate()
    assert demo.server.wait() == 0
    assert list(demo.temporary.iterdir()) == []


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dav2.cli", "demo", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "is not a model directory" in done.stderr


def test_two_models_of_one_name_are_refused(tmp_path: Path) -> None:
    for parent in ("old", "new"):
        (tmp_path / parent / "vits").mkdir(parents=True)
        (tmp_path / parent / "vits" / "model.safetensors").touch()
    with pytest.raises(ValueError, match="both called 'vits'"):
        find_models([tmp_path / "old/vits", tmp_path / "new/vits"])
