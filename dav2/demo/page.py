"""The page as a Gradio application."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from dav2.demo.examples import write_examples
from dav2.demo.models import Models
from dav2.demo.panels import page_of, style
from dav2.extras import require

if TYPE_CHECKING:
    import gradio

CHECKED = 4
"""Models that are chosen when the page opens: the last of them by name."""
TITLE = "# Depth from one photograph\nNear is red, far is blue. Models that are chosen are shown side by side."


def build_page(folders: dict[str, Path], temporary: Path, keep_seconds: float) -> gradio.Blocks:
    """The page over model directories by name; models are loaded when they are first asked for.

    Args:
        folders: model directories.
        temporary: folder of the page's own, for the examples.
        keep_seconds: an uploaded photograph is deleted when it is this old.

    Raises:
        MissingExtraError: Gradio is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    require("gradio")
    import gradio

    models, names = Models(folders), list(folders)

    def compare(photograph: str | None, chosen: list[str], progress: Any = gradio.Progress()) -> str:  # noqa: B008
        if photograph is None:
            raise gradio.Error("Drop a photograph first, or click an example.")
        # What a page sends is not to be trusted: names of this list alone, each once.
        wanted = [name for name in names if name in chosen]
        if not wanted:
            raise gradio.Error("Choose a model.")
        shown = []
        for done, name in enumerate(wanted):
            progress((done, len(wanted)), desc=name)
            shown.append(models.predict(name, Path(photograph)))
        try:
            return page_of(shown)
        except ValueError as error:
            raise gradio.Error(str(error)) from None

    often = max(1, round(min(60.0, keep_seconds / 2)))
    with gradio.Blocks(
        title="dav2", analytics_enabled=False, delete_cache=(often, max(1, round(keep_seconds)))
    ) as page:
        gradio.Markdown(TITLE)
        with gradio.Row():
            photograph = gradio.Image(
                label="Photograph", type="filepath", image_mode=None, sources=["upload", "clipboard"], height=260
            )
            with gradio.Column():
                chosen = gradio.CheckboxGroup(names, value=names[-CHECKED:], label="Models")
                button = gradio.Button("Compare", variant="primary")
                examples = _examples(gradio, photograph, temporary / "examples")
        inputs = [photograph, chosen]
        result = gradio.HTML(css_template=style())
        if examples is not None:
            examples.load_input_event.then(compare, inputs, result, api_visibility="private")
        button.click(compare, inputs, result, api_name="compare")
        photograph.upload(compare, inputs, result, api_visibility="private")
    return page


def _examples(gradio: ModuleType, photograph: Any, folder: Path) -> Any:
    """Photographs to click, or ``None`` where no installed package ships any."""
    paths = [[str(path)] for path in write_examples(folder)]
    if not paths:
        return None
    return gradio.Examples(paths, [photograph], label="Or click one of these", examples_per_page=len(paths))
