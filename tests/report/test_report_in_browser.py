"""The report in a real browser: no script error, no outside request, nothing wider than the screen."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.conftest import PATIENCE


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_report_works_on_desktop_and_phone(browser: Browser, reports: Path, width: int, scheme: str) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    errors: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto((reports / "index.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == width
    _use_the_slider(page)
    assert page.evaluate("[...document.images].every(image => image.src.startsWith('data:'))")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(251, 250, 248)") == (scheme == "light")
    page.click("text=Data Docs")
    assert page.title() == "Data Docs"
    assert errors == []
    assert [url for url in requests if not url.startswith(("data:", "file:"))] == []
    context.close()


def _use_the_slider(page: Page) -> None:
    over, under = page.locator(".slider .over"), page.locator(".slider .under")
    before = over.get_attribute("src"), under.get_attribute("src")
    page.select_option("[data-picture]", "1")
    page.select_option("[data-model]", "teacher")
    assert over.get_attribute("src") != before[0]
    assert under.get_attribute("src") != before[1]
    handle = page.locator(".slider input")
    box = handle.bounding_box()
    assert box is not None
    handle.click(position={"x": box["width"] * 0.9, "y": box["height"] / 2})
    cut = page.evaluate("document.querySelector('.stage').style.getPropertyValue('--cut')")
    assert 80 < float(cut.rstrip("%")) <= 100
