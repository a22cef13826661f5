"""A store that stops in the middle of the work ends it with its reason, spoils nothing, and the next run goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import s3fs

from dav2.data import storage
from dav2.data.store.ingest import ingest
from dav2.failures import foreseen, reason
from tests.data.builders import contents, ingestion, photographs, write_photographs
from tests.data.conftest import _use
from tests.data.outage import StoppableServer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StoppableServer]:
    with StoppableServer() as started:
        _use(monkeypatch, started.url)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # Others ask again and wait, too; ours are enough here.
        yield started


@pytest.fixture
def store(server: StoppableServer) -> str:
    name = f"bucket-{uuid4().hex[:12]}"
    s3fs.S3FileSystem().mkdir(name)
    return f"s3://{name}"


@pytest.mark.parametrize("remote", ["source", "out"])
def test_ingestion_ends_with_the_reason_and_takes_nothing_for_damaged(
    server: StoppableServer, store: str, tmp_path: Path, remote: str
) -> None:
    write_photographs(tmp_path / "raw", 24)
    expected = ingest("views", photographs(tmp_path / "raw"), ingestion(4), tmp_path / "expected")
    source, out = str(tmp_path / "raw"), str(tmp_path / "out")
    if remote == "source":
        s3fs.S3FileSystem().put(f"{source}/", f"{store}/raw/", recursive=True)
        source = f"{store}/raw"
    else:
        out = f"{store}/out"

    def stop_once(done: int, total: int) -> None:
        if 0 < done < total:
            server.stop()

    with pytest.raises(Exception) as failed:
        ingest("views", photographs(source), ingestion(4), out, progress=stop_once)
    assert foreseen(failed.value), repr(failed.value)
    assert "\n" not in reason(failed.value)
    server.come_back()
    s3fs.S3FileSystem.clear_instance_cache()
    found = ingest("views", photographs(source), ingestion(4), out)
    assert (found.frames, found.quarantined) == (expected.frames, expected.quarantined) == (24, 0)
    for name, data in contents(tmp_path / "expected").items():
        if name.endswith(".tar"):  # The other files say where the photographs came from.
            assert storage.read(storage.join(out, name)) == data, name
