"""``dav2 demo``: a page on this machine where a person drops a photograph and sees models side by side."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

LARGEST_UPLOAD = "25mb"


def demo(
    models: Annotated[
        list[Path] | None, typer.Argument(help="Model directories; none means every one in artifacts/models.")
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 7860,
    keep: Annotated[float, typer.Option(min=0.01, help="Minutes after which an uploaded photograph is deleted.")] = 10,
) -> None:
    """Open a page that shows models side by side on photographs, in one scale of colours."""
    from dav2.demo.models import find_models

    _free(port)
    found = find_models(models or [])
    with _private_folder() as folder:
        from dav2.demo.page import build_page

        _serve(build_page(found, folder, 60 * keep), port)


def _free(port: int) -> None:
    """Before seconds of loading.

    Raises:
        ValueError: another program listens there.
    """
    with socket.socket() as trial:
        # As the server will: what a page before this one left behind is not in the way.
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError as error:
            raise ValueError(f"port {port} of 127.0.0.1: {error.strerror}; take another one with --port") from None


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
def _private_folder() -> Iterator[Path]:
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
                yield Path(folder)
            except KeyboardInterrupt:
                return
    finally:
        tempfile.tempdir = None
        signal.signal(signal.SIGTERM, before)
