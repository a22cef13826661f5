"""The page for people who bring their own data names every reader and every option."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

import dav2.data.raw.sources as sources
from dav2.data.raw.sources.item import Options

PAGE = Path(__file__).parents[3] / "docs" / "data-sets.md"


@pytest.mark.parametrize("reader", sources.READERS)
def test_a_reader_and_its_options_are_on_the_page(reader: str) -> None:
    module, _, kind = sources.READERS[reader].partition(":")
    options = getattr(importlib.import_module(f"dav2.data.raw.sources.{module}"), kind).options_type.model_fields
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith(f"| `{reader}` |")]
    assert len(rows) == 1
    for option in set(options) - set(Options.model_fields):
        assert f"`{option}" in rows[0]


def test_the_options_of_every_reader_are_on_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert all(f"`{option}`" in text for option in Options.model_fields)
