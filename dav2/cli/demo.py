"""``dav2 demo``: a page on this machine where a person drops a photograph and compares two models with a slider."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from dav2 import layout

if TYPE_CHECKING:
    from dav2.families.family import Model

PHOTOGRAPH = "photograph"
LARGEST_UPLOAD = "25mb"


def demo(
    models: Annotated[
        list[Path] | None, typer.Argument(help="Model directories; none means every one in artifacts/models.")
    ] = None,
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 7860,
) -> None:
    """Open a page to try models on photographs."""
    with _private_folder():
        try:
            page = build_page(find_models(models or []))
        except (ValueError, ImportError) as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(2) from None
        _serve(page, port)


def _serve(page: Any, port: int) -> None:
    from starlette.middleware import Middleware

    from dav2.pages import OwnPages

    page.launch(
        server_name="127.0.0.1",
        server_port=port,
        share=False,
        max_file_size=LARGEST_UPLOAD,
        app_kwargs={"middleware": [Middleware(OwnPages)]},
    )


@contextmanager
def _private_folder() -> Iterator[None]:
    """A folder of our own user for photographs and pictures, removed when the page ends, by SIGTERM too.

    Gradio reads the variable when it is imported, and keeps uploads in a folder that all users share without it.
    """

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        with tempfile.TemporaryDirectory(prefix="dav2-demo-", ignore_cleanup_errors=True) as folder:
            os.environ["GRADIO_TEMP_DIR"] = tempfile.tempdir = folder  # the second: where parts of an upload arrive
            try:
                yield
            except KeyboardInterrupt:
                return
    finally:
        tempfile.tempdir = None
        signal.signal(signal.SIGTERM, before)


def find_models(given: list[Path]) -> dict[str, Path]:
    """Model directories by name: those given, or all of the project.

    Raises:
        ValueError: a path is no model directory, or there is none.
    """
    candidates = given or sorted(Path(layout.MODELS).glob("*"))
    wrong = [path for path in given if not (path / layout.WEIGHTS).is_file()]
    if wrong:
        raise ValueError(f"{wrong[0]} is not a model directory: it has no model.safetensors")
    found = {path.name: path for path in candidates if (path / layout.WEIGHTS).is_file()}
    if not found:
        raise ValueError("there are no models in artifacts/models; run 'dvc repro', or name model directories")
    return found


def build_page(choices: dict[str, Path]) -> Any:
    """The page as a Gradio application; models are loaded when they are first asked for.

    Raises:
        ImportError: Gradio is not installed.
    """
    from dav2.pictures import coloured
    from dav2.report.pictures import nearness_of

    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
    except ModuleNotFoundError:
        raise ImportError("'dav2 demo' needs Gradio: pip install 'dav2[demo]'") from None

    @lru_cache(maxsize=4)
    def model(name: str) -> Model:
        import dav2

        return dav2.load(choices[name])

    def compare(rgb: NDArray[np.uint8] | None, left: str, right: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        if rgb is None:
            raise gradio.Error("Drop a photograph first.")
        return panel(rgb, left), panel(rgb, right)

    def panel(rgb: NDArray[np.uint8], name: str) -> NDArray[np.uint8]:
        return rgb if name == PHOTOGRAPH else coloured(nearness_of(model(name), rgb))

    names = list(choices)
    with gradio.Blocks(title="dav2", analytics_enabled=False) as page:
        gradio.Markdown("# Depth from one photograph\nNear is red, far is blue. Move the slider to compare.")
        with gradio.Row():
            with gradio.Column(scale=1):
                photograph = gradio.Image(
                    label="Photograph", type="numpy", image_mode="RGB", sources=["upload", "clipboard"]
                )
                left = gradio.Dropdown([PHOTOGRAPH, *names], value=PHOTOGRAPH, label="Left")
                right = gradio.Dropdown([PHOTOGRAPH, *names], value=names[-1], label="Right")
                button = gradio.Button("Compare", variant="primary")
            result = gradio.ImageSlider(label="Left | right", scale=2, interactive=False)
        inputs = [photograph, left, right]
        button.click(compare, inputs, result, api_name="compare")
        photograph.upload(compare, inputs, result, api_name=False)
    return page
