"""``dav2 demo`` in a real browser."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import Browser

from dav2.families.depth_anything.model import build
from dav2.families.depth_anything.weights import save_directory
from tests.answering import wait_for_answer
from tests.conftest import PATIENCE


@dataclass(frozen=True)
class Demo:
    """A running demo, its address, and the folder in which temporary files are made."""

    server: subprocess.Popen[bytes]
    address: str
    temporary: Path


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """A demo with two random models, stopped at the end."""
    folder = tmp_path_factory.mktemp("demo")
    for seed, name in enumerate(("one", "two")):
        torch.manual_seed(seed)
        save_directory(build("vitn"), folder / name)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "dav2.cli", "demo", str(folder / "one"), str(folder / "two"), "--port", str(port)]
    log, temporary = folder / "demo.log", folder / "tmp"
    temporary.mkdir()
    with log.open("w") as output:
        environment = {**os.environ, "TMPDIR": str(temporary)}
        server = subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT, env=environment)
    try:
        wait_for_answer(f"http://127.0.0.1:{port}", server, log)
        yield Demo(server, f"http://127.0.0.1:{port}", temporary)
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def page_address(demo: Demo) -> str:
    return demo.address


def test_a_dropped_photograph_is_shown_beside_its_depth(browser: Browser, page_address: str, tmp_path: Path) -> None:
    photograph = tmp_path / "photograph.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)).save(photograph)
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    errors: list[str] = []
    outside: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: outside.append(request.url))
    page.goto(page_address)
    page.set_input_files("input[type=file]", str(photograph))
    page.wait_for_function("document.querySelectorAll('.slider-wrap img, .image-slider img, .slider img').length >= 2")
    page.get_by_role("button", name="Compare").click()
    page.wait_for_load_state("networkidle")
    assert errors == []
    assert [url for url in outside if not url.startswith((page_address, "data:", "blob:"))] == []
    context.close()


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "headers", [{"Host": "evil.example"}, {"Origin": "https://evil.example"}, {"Origin": "null"}], ids=str
)
def test_foreign_names_and_pages_are_refused(demo: Demo, method: str, headers: dict[str, str]) -> None:
    for path in ("", "config", "gradio_api/info", "gradio_api/upload", "gradio_api/call/compare"):
        answer = httpx.request(method, f"{demo.address}/{path}", headers=headers, timeout=60)
        assert answer.status_code in (400, 403), path
        assert "access-control-allow-origin" not in answer.headers


def test_uploads_lie_in_a_private_folder_that_is_gone_at_the_end(demo: Demo) -> None:
    kept = httpx.post(f"{demo.address}/gradio_api/upload", files={"files": ("a.png", b"private")}, timeout=60).json()[0]
    (private,) = demo.temporary.iterdir()
    assert Path(kept).is_relative_to(private)
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    demo.server.terminate()
    assert demo.server.wait() == 0
    assert list(demo.temporary.iterdir()) == []


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dav2.cli", "demo", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "is not a model directory" in done.stderr
