"""Commands of the documents, as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def commands(page: str) -> list[str]:
    """Every line of an indented block of a page that calls ``dav2``, without its remark."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(r"^ {4}(dav2 [a-z].*?)(?: +#.*)?$", text, flags=re.MULTILINE)
