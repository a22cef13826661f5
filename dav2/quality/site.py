"""Makes the Data Docs a site of its own: a front page of ours, and no request to anywhere.

Great Expectations writes pages that load style sheets and scripts from half a dozen public servers and draw their front
page with them. Here those references are removed, a small style sheet stands in for them, and the front page is
written directly. What the pages say is left as it is, but for the time of day and what is drawn by lot: the same data
must make the same bytes, or DVC would take every run for news.
"""

from __future__ import annotations

import os
import re
import shutil
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from dav2.files import write_whole

if TYPE_CHECKING:
    from dav2.quality.gate import GateResult
    from dav2.quality.tables import Tables

STYLE = "dav2.css"
PICTURE = "failing.jpg"

_REMOTE = re.compile(
    r"<link\b[^>]*href=[\"']https?://[^>]*>"
    r"|<script\b[^>]*src=[\"']https?://[^>]*>\s*</script>"
    r"|<img\b[^>]*src=[\"']https?://[^>]*>",
    re.IGNORECASE,
)
_REMOTE_STYLE = re.compile(r"url\([\"']?https?://[^)]*\)", re.IGNORECASE)
_LOCAL_ICON = re.compile(r"<link\b[^>]*rel=[\"']shortcut icon[^>]*>", re.IGNORECASE)
_SCRIPT = re.compile(r"<script\b[^>]*>.*?</script>", re.IGNORECASE | re.DOTALL)
_TIMED_ROW = re.compile(r"<tr>(?:(?!</tr>).)*?>(?:Run Time|ge_load_time)<(?:(?!</tr>).)*</tr>", re.DOTALL)
_TIMED_CRUMB = re.compile(r" / \d{4}-\d\d-\d\dT[\d:]+Z(?=</li>)")
_LOT = re.compile(r"(?<=-collapse-body)-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def finish(docs: Path, group: str, result: GateResult, tables: Tables) -> None:
    """Turn the pages that the library wrote below ``docs`` into a self-contained site with ``index.html``."""
    pages = sorted([*(docs / "expectations").glob("*.html"), *_one_page_each(docs / "validations")])
    for page in pages:
        up = os.path.relpath(docs, page.parent)
        write_whole(page, _timeless(_self_contained(page.read_text(encoding="utf-8"), up)))
    shutil.rmtree(docs / "static")
    write_whole(docs / "static" / STYLE, _resource(STYLE))
    write_whole(docs / "index.html", _front_page(docs, group, result, tables, pages))


def _one_page_each(validations: Path) -> list[Path]:
    """``suite/run/time/batch.html`` becomes ``suite.html``, links and all: a run has one page of each suite."""
    pages = []
    for suite in sorted(path for path in validations.iterdir() if path.is_dir()):
        (found,) = suite.rglob("*.html")
        text = found.read_text(encoding="utf-8").replace('href="../../../../', 'href="../')
        pages.append(suite.with_suffix(".html"))
        write_whole(pages[-1], text)
        shutil.rmtree(suite)
    return pages


def _timeless(page: str) -> str:
    """``page`` without when it was made; the report and the run's page at Prefect say that."""
    return _LOT.sub("", _TIMED_CRUMB.sub("", _TIMED_ROW.sub("", page)))


def _self_contained(page: str, up: str) -> str:
    """``page`` without anything remote, with our style and a way back; ``up`` leads to the site's folder."""
    page = _SCRIPT.sub("", _REMOTE.sub("", page))
    page = _LOCAL_ICON.sub("", _REMOTE_STYLE.sub("none", page))
    page = page.replace("</head>", f'<link rel="stylesheet" href="{up}/static/{STYLE}"></head>', 1)
    return page.replace("<body>", f'<body><a class="back" href="{up}/index.html">← Data quality</a>', 1)


def _resource(name: str) -> str:
    return resources.files("dav2.quality").joinpath("templates", name).read_text(encoding="utf-8")


def _front_page(docs: Path, group: str, result: GateResult, tables: Tables, pages: list[Path]) -> str:
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    links = [
        {
            "kind": path.relative_to(docs).parts[0],
            "name": path.stem,
            "url": path.relative_to(docs).as_posix(),
        }
        for path in pages
    ]
    return environment.from_string(_resource("index.html.j2")).render(
        group=group,
        result=result,
        columns=[column for column in tables.sources.columns if column != "quarantined_share"],
        sources=tables.sources.to_dict("records"),
        reasons=tables.reasons,
        promised=tables.promised,
        digest=tables.digest,
        picture=PICTURE if (docs / PICTURE).is_file() else None,
        validations=[link for link in links if link["kind"] == "validations"],
        suites=[link for link in links if link["kind"] == "expectations"],
        style=f"static/{STYLE}",
    )
