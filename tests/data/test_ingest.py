"""Ingestion accounts for every frame, gives the same bytes however it was run, and takes up where it was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import psutil
import pytest

from dav2.data import storage
from dav2.data.raw.sources import SourceError
from dav2.data.store.ingest import IngestError, ingest, read_summary
from dav2.data.store.ingest.plan import val_scenes
from dav2.data.store.ingest.workers import FEW_FRAMES
from dav2.data.store.manifest import manifest_digest, read_manifest, read_quarantine, shard_table
from dav2.data.store.shards import read_frame, walk
from dav2.files import sha256_file
from tests.data.builders import (
    contents,
    ingestion,
    photograph,
    photographs,
    vkitti2,
    write_photographs,
    write_vkitti2,
)

MANY = FEW_FRAMES + 40


@pytest.fixture(scope="module")
def album(tmp_path_factory):
    """Enough photographs that several processes are worth starting, with two duplicates and three bad files."""
    folder = tmp_path_factory.mktemp("album")
    write_photographs(folder, MANY)
    (folder / "album1/again.jpg").write_bytes((folder / "album0/photo002.jpg").read_bytes())
    cv2.imwrite(str(folder / "album1/zz_same_pixels.bmp"), photograph(0)[..., ::-1])
    (folder / "album0/cut.jpg").write_bytes((folder / "album0/photo004.jpg").read_bytes()[:900])
    (folder / "album0/text.jpg").write_bytes(b"<html>not found</html>")
    cv2.imwrite(str(folder / "album0/tiny.png"), photograph(9999, 10, 20))
    return folder


@pytest.fixture(scope="module")
def uninterrupted(album, tmp_path_factory):
    out = tmp_path_factory.mktemp("uninterrupted") / "views"
    summary = ingest("views", photographs(album), ingestion(32), out)
    return summary, contents(out)


def test_every_item_is_accounted_for(uninterrupted, album):
    summary, files = uninterrupted
    assert summary.indexed == MANY + 5 and summary.frames == MANY
    assert (summary.quarantined, summary.duplicates, summary.forbidden) == (3, 2, 0)
    assert summary.splits == {"train": MANY} and summary.as_dict() == json.loads(files["summary.json"])
    tables = {"manifest.parquet", "quarantine.parquet", "duplicates.parquet", "summary.json"}
    assert files.keys() == tables | {f"train-{n:06d}.tar" for n in range(8)}


def test_the_quarantine_names_file_and_reason(album, tmp_path):
    ingest("views", photographs(album), ingestion(300), tmp_path / "views")
    reasons = read_quarantine(tmp_path / "views").set_index("path")["reason"]
    assert "damaged JPEG" in reasons["album0/cut.jpg"]
    assert "not an image" in reasons["album0/text.jpg"]
    assert "20 × 10 pixels, less than min_side" in reasons["album0/tiny.png"]


def test_several_processes_write_the_same_bytes(uninterrupted, album, tmp_path):
    ingest("views", photographs(album), ingestion(32, workers=2), tmp_path / "views")
    assert contents(tmp_path / "views") == uninterrupted[1]


RUN = """
    import sys
    from dav2.data.store.ingest import ingest
    from tests.data.builders import ingestion, photographs
    if __name__ == "__main__":
        ingest("views", photographs(sys.argv[1]), ingestion(32, workers=int(sys.argv[3])), sys.argv[2],
               progress=lambda done, total: print(done, flush=True))
"""


def run_and_kill(script, album, out, workers, lines):
    """Start an ingestion, kill it with SIGKILL after so many lines of progress, and wait for its workers to be gone."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, str(script), str(album), str(out), str(workers)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        for _ in range(lines):
            process.stdout.readline()
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive and process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_and_resumed_it_keeps_what_is_whole_and_gives_the_same_bytes(uninterrupted, album, tmp_path, workers):
    script, out = tmp_path / "run.py", tmp_path / "views"
    script.write_text(textwrap.dedent(RUN))
    for lines in (2, 3):
        run_and_kill(script, album, out, workers, lines)
    assert not (out / "manifest.parquet").exists()
    kept = {p.name: p.stat().st_ino for p in out.glob("*.tar") if (out / f".ingest/{p.name}.json").exists()}
    assert kept
    damaged = sorted(kept)[0]
    (out / damaged).write_bytes((out / damaged).read_bytes()[:-512])
    ingest("views", photographs(album), ingestion(32), out)
    assert contents(out) == uninterrupted[1]
    # Shards that lose a duplicate are written again by the last step; all others must be the very same files.
    rewritten = {damaged, *pd.read_parquet(out / "duplicates.parquet")["shard"]}
    assert kept.keys() - rewritten
    for name in kept.keys() - rewritten:
        assert (out / name).stat().st_ino == kept[name]


def test_a_finished_ingestion_does_nothing_until_something_changes(album, tmp_path):
    out = tmp_path / "views"
    first = ingest("views", photographs(album), ingestion(300), out)
    before = {p: p.stat().st_mtime_ns for p in out.iterdir()}
    assert ingest("views", photographs(album), ingestion(300, workers=2), out) == first
    assert {p: p.stat().st_mtime_ns for p in out.iterdir()} == before
    ingest("views", photographs(album), ingestion(100), out)
    assert read_summary(out).shards == 3 and len(list(out.glob("*.tar"))) == 3


def test_a_lost_shard_is_made_again(album, tmp_path):
    out = tmp_path / "views"
    ingest("views", photographs(album), ingestion(150), out)
    before = contents(out)
    (out / "train-000001.tar").unlink()
    ingest("views", photographs(album), ingestion(150), out)
    assert contents(out) == before


def test_a_changed_file_is_read_again(tmp_path):
    write_photographs(tmp_path / "raw", 4)
    out = tmp_path / "views"
    ingest("views", photographs(tmp_path / "raw"), ingestion(), out)
    before = manifest_digest(out)
    cv2.imwrite(str(tmp_path / "raw/album1/photo001.jpg"), photograph(77))
    ingest("views", photographs(tmp_path / "raw"), ingestion(), out)
    assert manifest_digest(out) != before


def test_manifest_rows_lead_to_frames_and_agree_with_them(tmp_path):
    write_vkitti2(tmp_path / "raw", frames=3)
    out = tmp_path / "vkitti2"
    ingest("vkitti2", vkitti2(tmp_path / "raw"), ingestion(4), out)
    for _, row in read_manifest(out).iterrows():
        frame = read_frame(out, row)
        assert frame.rgb.shape == (row["height"], row["width"], 3) == (94, 310, 3)
        finite = frame.depth[np.isfinite(frame.depth)]
        assert row["depth_min"] == pytest.approx(finite.min(), rel=1e-6)
        assert row["depth_max"] == pytest.approx(finite.max(), rel=1e-6)
        assert row["depth_median"] == pytest.approx(np.median(finite), rel=3e-4)
        assert row["valid"] == 1.0 and row["sky"] == pytest.approx(np.isinf(frame.depth).mean())
        grey = frame.rgb @ np.array([0.299, 0.587, 0.114])
        assert row["brightness"] == pytest.approx(grey.mean(), abs=0.6)
        assert row["contrast"] == pytest.approx(grey.std(), abs=0.6)
        raw = tmp_path / f"raw/{row['scene']}/clone/frames/rgb/Camera_0/rgb_{row['key'][-5:]}.jpg"
        assert frame.jpeg == raw.read_bytes()


def test_shard_table_and_shards_agree(uninterrupted, album, tmp_path):
    ingest("views", photographs(album), ingestion(100), tmp_path)
    for shard, about in shard_table(tmp_path).items():
        assert about["sha256"] == sha256_file(tmp_path / shard)
        assert about["frames"] == sum(1 for member in walk(tmp_path / shard) if member.field == "json")


def test_pictures_of_a_benchmark_stay_out_of_training(album, tmp_path):
    (tmp_path / "test").mkdir()
    for number in (5, 9):
        cv2.imwrite(str(tmp_path / f"test/{number}.png"), photograph(number)[..., ::-1])
    for suffix in ("png", "jpg"):
        cv2.imwrite(str(tmp_path / f"test/same.{suffix}"), photograph(500)[..., ::-1])
    (tmp_path / "test/same2.jpg").write_bytes((tmp_path / "test/same.jpg").read_bytes())
    benchmark = photographs(tmp_path / "test").model_copy(update={"group": "benchmark"})
    kept = ingest("bench", benchmark, ingestion(), tmp_path / "bench")
    assert kept.frames == 5 and kept.duplicates == 0  # scored as published, equal pictures and all
    summary = ingest("views", photographs(album), ingestion(100), tmp_path / "views", forbidden=[tmp_path / "bench"])
    assert summary.forbidden == 1  # photograph 9 is a PNG in the album, 5 a JPEG with other pixels
    assert summary.frames + summary.quarantined + summary.duplicates + summary.forbidden == summary.indexed
    hashes = [set(read_manifest(tmp_path / name)["pixel_sha256"]) for name in ("views", "bench")]
    assert hashes[0].isdisjoint(hashes[1])


def test_benchmark_pictures_keep_their_pixels(tmp_path):
    (tmp_path / "raw").mkdir()
    cv2.imwrite(str(tmp_path / "raw/a.png"), photograph(1)[..., ::-1])
    benchmark = photographs(tmp_path / "raw").model_copy(update={"group": "benchmark"})
    ingest("bench", benchmark, ingestion(), tmp_path / "out")
    frame = read_frame(tmp_path / "out", read_manifest(tmp_path / "out").iloc[0])
    assert np.array_equal(frame.rgb, photograph(1)) and frame.jpeg is None


def test_whole_scenes_are_held_out(tmp_path):
    write_vkitti2(tmp_path / "raw", scenes=5, frames=2)
    ingest("vkitti2", vkitti2(tmp_path / "raw", val_share=0.4), ingestion(), tmp_path / "out")
    frames = read_manifest(tmp_path / "out")
    by_scene = frames.groupby("scene")["split"].nunique()
    assert (by_scene == 1).all() and set(frames["split"]) == {"train", "val"}


def test_held_out_scenes_stay_when_others_come_and_at_least_one_is_on_each_side():
    scenes = {f"scene{n}" for n in range(1000)}
    chosen = val_scenes(scenes, 0.1, "0/x")
    assert 60 < len(chosen) < 140
    assert val_scenes(scenes | {"new1", "new2"}, 0.1, "0/x") - {"new1", "new2"} == chosen
    assert len(val_scenes({"a", "b"}, 0.001, "0/x")) == 1 and len(val_scenes({"a", "b"}, 0.999, "0/x")) == 1
    assert val_scenes({"a"}, 0.5, "0/x") == set() and val_scenes(scenes, 0.0, "0/x") == set()


def test_depth_that_says_nothing_is_quarantined(tmp_path):
    write_vkitti2(tmp_path / "raw", scenes=1, frames=4)
    folder = tmp_path / "raw/Scene01/clone/frames/depth/Camera_0"
    cv2.imwrite(str(folder / "depth_00000.png"), np.zeros((94, 310), np.uint16))
    cv2.imwrite(str(folder / "depth_00001.png"), np.full((94, 310), 500, np.uint16))
    cv2.imwrite(str(folder / "depth_00002.png"), np.full((40, 30), 500, np.uint16))
    summary = ingest("vkitti2", vkitti2(tmp_path / "raw"), ingestion(), tmp_path / "out")
    reasons = sorted(read_quarantine(tmp_path / "out")["reason"])
    assert summary.frames == 1 and len(reasons) == 3
    assert all(words in " ".join(reasons) for words in ("no pixel", "everywhere", "30 × 40"))


def test_nothing_sound_gives_an_empty_data_set_and_no_shard(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/a.jpg").write_bytes(b"nothing")
    summary = ingest("views", photographs(tmp_path / "raw"), ingestion(), tmp_path / "out")
    assert (summary.frames, summary.quarantined, summary.shards) == (0, 1, 0)
    assert read_manifest(tmp_path / "out").empty and not list((tmp_path / "out").glob("*.tar"))


def test_data_that_is_not_there_says_what_to_do(tmp_path):
    with pytest.raises(SourceError, match="dvc pull"):
        ingest("views", photographs(tmp_path / "nowhere"), ingestion(), tmp_path / "out")


def test_a_second_writer_is_turned_away(album, tmp_path):
    script, out = tmp_path / "run.py", tmp_path / "views"
    script.write_text(textwrap.dedent(RUN))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, str(script), str(album), str(out), "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(IngestError, match="another process is writing"):
            ingest("views", photographs(album), ingestion(), out)
        process.kill()


def test_from_bucket_to_bucket(uninterrupted, album, bucket):
    import s3fs

    few = [p for p in sorted(album.rglob("*")) if p.is_file()][:30]
    files = s3fs.S3FileSystem()
    for path in few:
        files.put_file(str(path), f"{bucket}/raw/{path.relative_to(album)}")
    first = ingest("views", photographs(f"{bucket}/raw"), ingestion(8), f"{bucket}/shards")
    assert first.frames + first.quarantined + first.duplicates == 30 and first.shards == 4
    assert not storage.names(f"{bucket}/shards/.ingest")
    row = read_manifest(f"{bucket}/shards").iloc[-1]
    assert read_frame(f"{bucket}/shards", row).rgb.shape == (row["height"], row["width"], 3)
    assert ingest("views", photographs(f"{bucket}/raw"), ingestion(8), f"{bucket}/shards") == first
    storage.remove(f"{bucket}/shards/{row['shard']}")
    assert ingest("views", photographs(f"{bucket}/raw"), ingestion(8), f"{bucket}/shards") == first


def test_a_bucket_that_fails_one_request_in_ten_gives_the_same_bytes(album, failing_bucket, tmp_path):
    few = tmp_path / "few"
    write_photographs(few, 20)
    expected = ingest("views", photographs(few), ingestion(4), tmp_path / "out")
    assert ingest("views", photographs(few), ingestion(4), f"{failing_bucket}/out") == expected
    for name, data in contents(tmp_path / "out").items():
        assert storage.read(f"{failing_bucket}/out/{name}") == data


def test_a_full_disk_stops_with_an_error_and_the_next_run_goes_on(album, tmp_path):
    few = tmp_path / "few"
    write_photographs(few, 30)
    code = """
        import resource, signal, sys
        from dav2.data.store.ingest import ingest
        from tests.data.builders import ingestion, photographs
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
        ingest("views", photographs(sys.argv[1]), ingestion(10), sys.argv[2])
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", textwrap.dedent(code), str(few), str(tmp_path / "out"), "20000"]
    failed = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert failed.returncode == 1 and "File too large" in failed.stderr
    assert not list((tmp_path / "out").glob("*.tar"))
    assert ingest("views", photographs(few), ingestion(10), tmp_path / "out").frames == 30


def test_memory_does_not_grow_with_the_number_of_frames(tmp_path):
    """Receipts and rows are small; decoded pictures are let go of one by one."""
    write_photographs(tmp_path / "raw", 60)
    process = psutil.Process()
    ingest("views", photographs(tmp_path / "raw"), ingestion(10), tmp_path / "warm")
    before, started = process.memory_info().rss, time.monotonic()
    for number in range(3):
        ingest("views", photographs(tmp_path / "raw"), ingestion(10), tmp_path / f"out{number}")
    assert process.memory_info().rss - before < 40 * 2**20, f"after {time.monotonic() - started:.0f} s"
