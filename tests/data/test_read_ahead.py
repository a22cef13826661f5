"""Reading remote shards ahead changes how bytes come, never which."""

from __future__ import annotations

import errno
import io
import itertools
import os
import subprocess
import tempfile
from concurrent.futures import wait

import numpy as np
import pytest
import s3fs
import torch

from dav2.data import ranges
from dav2.data.feed.loader import Part, TrainingData
from dav2.data.feed.read_ahead import FOLDER, ReadAhead, shared_folder, worth_it
from dav2.data.feed.sampler import FrameOrder
from dav2.data.store.ingest import ingest
from dav2.data.store.manifest import read_manifest
from dav2.params import AugmentParams
from tests.data.builders import ingestion, vkitti2, write_vkitti2

FRAMES = 24
BATCHES = 18
"""Three epochs of batches of four."""


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ahead")
    write_vkitti2(folder / "raw", scenes=2, frames=FRAMES // 2)
    ingest("vkitti2", vkitti2(folder / "raw"), ingestion(6), folder / "shards")
    return folder / "shards"


@pytest.fixture
def remote(shards, bucket):
    s3fs.S3FileSystem().put(str(shards), f"{bucket}/shards", recursive=True)
    return f"{bucket}/shards"


@pytest.fixture
def requests(monkeypatch):
    """Every remote range that was asked for."""
    asked, read, fetch = [], ranges._read_remote_ranges, ranges.fetch_range

    def reading(ranges):
        asked.extend(ranges)
        return read(ranges)

    def fetching(path, start, end, file):
        asked.append((path, start, end))
        fetch(path, start, end, file)

    monkeypatch.setattr(ranges, "_read_remote_ranges", reading)
    monkeypatch.setattr(ranges, "fetch_range", fetching)
    return asked


def data_of(place, *, cache_mb=0, window=12):
    data = TrainingData(
        [Part(str(place))], crop=42, batch=4, seed=5, augment=AugmentParams(), workers=2, cache_mb=cache_mb
    )
    data.order = FrameOrder(data.frames.shard_sizes, 5, run=4, window=window)
    return data


def batches(data, count=BATCHES):
    stream = data.iterate()
    found = list(itertools.islice(stream, count))
    stream.close()
    return found


def assert_same(left, right):
    assert [b["keys"] for b in left] == [b["keys"] for b in right]
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(left, right, strict=True))
    assert all(torch.equal(a["target"], b["target"]) for a, b in zip(left, right, strict=True))


def test_a_pass_fetches_runs_not_frames(shards, remote, requests, monkeypatch, tmp_path):
    monkeypatch.setenv(FOLDER, str(tmp_path))
    found = batches(data_of(remote, window=FRAMES), FRAMES // 4)
    assert_same(found, batches(data_of(shards, window=FRAMES), FRAMES // 4))
    # Four shards of six frames, each in runs of four and two; frames whose run still waits its turn come directly.
    assert 8 <= len(requests) < FRAMES


def test_windows_come_and_go_and_the_batches_stay_the_same(shards, remote, monkeypatch, tmp_path):
    monkeypatch.setenv(FOLDER, str(tmp_path))
    data, kept = data_of(remote, window=4), []
    stream = data.iterate()
    found = []
    for batch in itertools.islice(stream, BATCHES):
        found.append(batch)
        kept.append(len([path for path in tmp_path.iterdir() if not path.suffix]))
    stream.close()
    assert_same(found, batches(data_of(shards, window=4)))
    # Eight runs in all; the window before, this one and the next need fewer, loader threads one or two ahead.
    assert max(kept) <= 8 and min(kept[4:]) < 8


def test_frames_in_memory_are_not_fetched_again(remote, requests, monkeypatch, tmp_path):
    monkeypatch.setenv(FOLDER, str(tmp_path))
    stream = data_of(remote, cache_mb=64, window=4).iterate()
    for _ in range(FRAMES // 4 + 4):
        next(stream)
    before = len(requests)
    for _ in range(2 * FRAMES // 4):
        next(stream)
    stream.close()
    assert len(requests) == before


def test_two_processes_of_a_machine_fetch_a_run_once(remote, requests, tmp_path):
    data = data_of(remote)
    everywhere = range(len(data))
    with (
        ReadAhead(data.frames, data.order, lambda _: False, tmp_path) as one,
        ReadAhead(data.frames, data.order, lambda _: False, tmp_path) as two,
    ):
        for ahead in (one, two):
            ahead.approach(0)
            wait(ahead._runs.values())
        places = [[ahead.nearest(frame, data.frames.requests(frame)) for frame in everywhere] for ahead in (one, two)]
    assert len(requests) == len(set(requests)) == 8
    assert places[0][0][0][0].startswith(str(tmp_path))


def test_a_full_disk_costs_the_advantage_and_nothing_else(shards, remote, monkeypatch, caplog, tmp_path):
    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    fetch = ranges.fetch_range
    monkeypatch.setenv(FOLDER, str(tmp_path))
    monkeypatch.setattr(ranges, "fetch_range", lambda path, start, end, file: fetch(path, start, end, Full()))
    assert_same(batches(data_of(remote)), batches(data_of(shards)))
    assert "No space left on device" in caplog.text
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]


def test_a_stretch_that_another_process_deleted_is_read_from_its_origin(shards, remote, monkeypatch, tmp_path):
    monkeypatch.setenv(FOLDER, str(tmp_path))
    data, found = data_of(remote), []
    stream = data.iterate()
    for batch in itertools.islice(stream, BATCHES):
        found.append(batch)
        for path in tmp_path.iterdir():
            path.unlink(missing_ok=True)
    stream.close()
    assert_same(found, batches(data_of(shards)))


def test_bytes_that_mostly_belong_to_others_are_not_fetched(shards, remote):
    data = data_of(remote)
    rows = read_manifest(shards)
    whole = data.frames.stretches(0, 4)
    assert [path for path, _, _ in whole] == [f"{remote}/{rows['shard'][0]}"]
    data.frames._sizes = np.full_like(data.frames._sizes, 10)  # as where a few frames of a large shard were selected
    assert data.frames.stretches(0, 4) == []


def test_a_folder_goes_with_its_launch_and_those_of_killed_launches_go_too(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ended = subprocess.Popen(["true"])
    ended.wait()
    dead, alive = (tmp_path / f"dav2-read-ahead-{pid}-x" for pid in (ended.pid, os.getppid()))
    dead.mkdir()
    alive.mkdir()
    with shared_folder() as folder:
        assert folder.is_dir() and alive.is_dir() and not dead.exists()
    assert not folder.exists()


@pytest.mark.parametrize(
    ("world", "here", "whole"), [(1, None, True), (8, "8", True), (32, "8", True), (64, "8", False), (8, None, False)]
)
def test_runs_are_fetched_whole_where_a_machine_needs_a_quarter_of_them(world, here, whole):
    environment = {} if here is None else {FOLDER: "/somewhere", "LOCAL_WORLD_SIZE": here}
    assert worth_it(world, environment) is whole
