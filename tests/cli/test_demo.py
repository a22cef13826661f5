"""``dav2 demo`` in a real browser."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import Browser

from dav2.families.depth_anything.model import build
from dav2.families.depth_anything.weights import save_directory
from tests.answering import wait_for_answer
from tests.conftest import PATIENCE


@pytest.fixture(scope="module")
def page_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a demo with two random models, stopped at the end."""
    folder = tmp_path_factory.mktemp("demo")
    for seed, name in enumerate(("one", "two")):
        torch.manual_seed(seed)
        save_directory(build("vitn"), folder / name)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "dav2.cli", "demo", str(folder / "one"), str(folder / "two"), "--port", str(port)]
    log = folder / "demo.log"
    with log.open("w") as output:
        server = subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_for_answer(f"http://127.0.0.1:{port}", server, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


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


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dav2.cli", "demo", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "is not a model directory" in done.stderr
