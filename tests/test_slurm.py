"""dav2 on a real Slurm of two nodes: what is preempted comes back and ends with the same bytes."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from dav2 import layout, slurm
from dav2.families.directory import weights_digest
from dav2.pseudo_label import finish, plan_shards
from dav2.pseudo_label.receipts import is_done, read_receipt
from dav2.pseudo_label.slurm_jobs import label_on_slurm
from dav2.pseudo_label.workers import InProcessWorker, WorkerSetup
from dav2.training import checkpoints
from dav2.training.errors import Interrupted, TrainingError
from dav2.training.journal import METRICS, Line, read_run
from dav2.training.launch import launch
from tests.conftest import ROOT, clone
from tests.pseudo_label.conftest import OPTIONS, save_teacher, write_shards
from tests.slurm import LocalSlurm, lacking, local_slurm
from tests.training import processes
from tests.training.processes import read_lines
from tests.training.world import COMMON, make_project

pytestmark = [
    pytest.mark.skipif(bool(lacking()), reason=f"no Slurm here; 'apt-get install slurm-wlm munge' brings {lacking()}"),
    pytest.mark.timeout(1200),
]
RUN = "teacher"
PATIENCE = 300.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalSlurm]:
    """Two nodes, for the tests of this file."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    patch = pytest.MonkeyPatch()
    with local_slurm(folder) as made:
        for name, value in made.environment.items():
            patch.setenv(name, value)
        patch.setenv("PYTHONPATH", str(ROOT))
        yield made
        made.run("scancel", "--quiet", "--me")
    patch.undo()
    shutil.rmtree(folder, ignore_errors=True)


def project(folder: Path, launcher: str = "slurm", **teacher: object) -> Path:
    """A small project for two ranks; its ``params.yaml``."""
    compute = {"world_size": 2, "launcher": launcher, **({"slurm": {"nodes": 2}} if launcher == "slurm" else {})}
    params = make_project(folder, compute=compute, teacher={**COMMON, "sources": ["rooms"], **teacher})
    shutil.copytree(ROOT / slurm.SCRIPTS, folder / slurm.SCRIPTS)
    return params


def until(what: Callable[[], bool], why: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline, why
        time.sleep(0.2)


def weights(root: Path) -> bytes:
    return (layout.model(root, RUN) / layout.WEIGHTS).read_bytes()


def restarts(cluster: LocalSlurm, number: str) -> int:
    return int(cluster.run("scontrol", "--oneliner", "show", "job", number).partition("Restarts=")[2].split()[0])


def steps(root: Path) -> int:
    path = layout.training(root, RUN) / METRICS
    return int(read_lines(path)[-1]["step"]) if path.exists() and read_lines(path) else 0


def test_two_nodes_preempted_and_queued_again_end_with_the_same_bytes(cluster: LocalSlurm, tmp_path: Path) -> None:
    rules = {"every_steps": 40, "evaluate_every": 400, "evaluate_frames": 4}
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    launch(RUN, project(alone, "local", steps=400, checkpoint=rules), alone)
    params = project(shared, steps=400, checkpoint=rules)
    events: list[Line] = []

    def take_the_nodes() -> None:
        until(lambda: steps(shared) >= 60, "the run does not get on")
        cluster.run("srun", "--partition=urgent", "--nodes=2", "--exclusive", "true")

    taking = threading.Thread(target=take_the_nodes)
    taking.start()
    model = launch(RUN, params, shared, events.append)
    taking.join()
    job = next((shared / layout.STATE / "slurm").glob("*.log")).stem.rpartition("-")[2]
    assert restarts(cluster, job) >= 1
    assert model == layout.model(shared, RUN)
    assert weights(shared) == weights(alone)
    record = read_run(layout.training(shared, RUN))
    assert record is not None and record.world == 2 and record.resumed[-1].step >= 60
    lines = [processes.comparable(read_lines(layout.training(root, RUN) / METRICS)) for root in (alone, shared)]
    assert lines[0] == lines[1]


def launcher(root: Path) -> subprocess.Popen[str]:
    """A process that launches the run below ``root``, as a stage of ``dvc repro`` does."""
    program = (
        "import sys; from pathlib import Path; from dav2.training.launch import launch; root = Path(sys.argv[1]); "
        f"launch('{RUN}', root / 'params.yaml', root, lambda event: print('event', flush=True))"
    )
    return subprocess.Popen([sys.executable, "-c", program, str(root)], stdout=subprocess.PIPE, text=True)


def wait_for_event(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert any(line == "event\n" for line in process.stdout), "the launcher ended"


def test_a_launcher_that_is_killed_finds_its_job_again_and_one_that_is_stopped_ends_it(
    cluster: LocalSlurm, tmp_path: Path
) -> None:
    rules = {"every_steps": 4000, "evaluate_every": 4000, "evaluate_frames": 4}
    project(tmp_path, steps=4000, checkpoint=rules)
    for signum in (signal.SIGKILL, signal.SIGTERM):
        process = launcher(tmp_path)
        wait_for_event(process)
        process.send_signal(signum)
        process.wait()
        assert (slurm.find(tmp_path, RUN) is None) == (signum == signal.SIGTERM)
    assert len(list((tmp_path / layout.STATE / "slurm").glob("*.log"))) == 1, "one job, found again"
    newest = checkpoints.newest(layout.checkpoints(tmp_path, RUN))
    assert newest is not None and checkpoints.step_of(newest) == steps(tmp_path) < 4000


def test_what_a_rank_says_when_it_fails_is_in_the_error(cluster: LocalSlurm, tmp_path: Path) -> None:
    params = project(tmp_path)
    params.write_text(params.read_text().replace("infra/deepspeed/cpu.json", "infra/deepspeed/absent.json"))
    with pytest.raises(TrainingError, match=r"(?s)ended as FAILED.*absent\.json does not exist"):
        launch(RUN, params, tmp_path)


def test_a_cancelled_job_can_go_on(cluster: LocalSlurm, tmp_path: Path) -> None:
    params = project(tmp_path, steps=2000)

    def cancel() -> None:
        until(lambda: steps(tmp_path) >= 10, "the run does not get on")
        found = slurm.find(tmp_path, RUN)
        assert found is not None
        cluster.run("scancel", found[0].number)

    cancelling = threading.Thread(target=cancel)
    cancelling.start()
    with pytest.raises(Interrupted, match="the same command goes on"):
        launch(RUN, params, tmp_path)
    cancelling.join()


def test_what_slurm_refuses_is_said(cluster: LocalSlurm, tmp_path: Path) -> None:
    params = project(tmp_path)
    params.write_text(params.read_text().replace("nodes: 2", "nodes: 2\n    options: [--partition=absent]"))
    with pytest.raises(TrainingError, match="invalid partition"):
        launch(RUN, params, tmp_path)


def test_an_array_labels_every_photograph_once_though_a_node_is_taken_away(cluster: LocalSlurm, tmp_path: Path) -> None:
    source, teacher = write_shards(tmp_path / "photos", shards=6), save_teacher(tmp_path / "teacher")
    digest = weights_digest(str(teacher))
    shutil.copytree(ROOT / slurm.SCRIPTS, tmp_path / slurm.SCRIPTS)
    expected, out = str(tmp_path / "expected"), str(tmp_path / "labels")
    setup = WorkerSetup(str(teacher), OPTIONS, threads=1)
    worker = InProcessWorker(setup)
    for task in plan_shards(str(source), expected, digest, OPTIONS):
        worker.label(task)
    tasks = plan_shards(str(source), out, digest, OPTIONS)
    seen: list[int] = []
    said: list[str] = []

    def take_a_node() -> None:
        until(lambda: any("RUNNING" in line for line in said), "the array does not start")
        cluster.run("srun", "--partition=urgent", "--nodes=2", "--exclusive", "true")

    taking = threading.Thread(target=take_a_node)
    taking.start()
    shown = lambda done, total: seen.append(done)  # noqa: E731
    assert not label_on_slurm(tasks, setup, 2, [], 1, tmp_path, shown, said.append)
    taking.join()
    assert seen[-1] == sum(task.frames for task in tasks) == 42
    assert finish(out).labels == finish(expected).labels
    for task in tasks:
        assert (Path(out) / task.shard).read_bytes() == (Path(expected) / task.shard).read_bytes()
        assert read_receipt(out, task.shard) == read_receipt(expected, task.shard)


def test_a_shard_that_cannot_be_labelled_is_named_and_the_others_are_labelled(
    cluster: LocalSlurm, tmp_path: Path
) -> None:
    source, teacher = write_shards(tmp_path / "photos", shards=3), save_teacher(tmp_path / "teacher")
    shutil.copytree(ROOT / slurm.SCRIPTS, tmp_path / slurm.SCRIPTS)
    shard = source / "train-000001.tar"
    shard.write_bytes(bytes(shard.stat().st_size))
    out = str(tmp_path / "labels")
    tasks = plan_shards(str(source), out, weights_digest(str(teacher)), OPTIONS)
    setup = WorkerSetup(str(teacher), OPTIONS, threads=1)
    failed = label_on_slurm(tasks, setup, 2, [], 0, tmp_path, lambda *_: None, lambda _: None)
    assert len(failed) == 1 and "train-000001.tar" in failed[0] and "the shard is damaged" in failed[0]
    assert sum(is_done(task) for task in tasks) == 2


def test_a_repro_on_a_login_node_submits_training_and_labelling_and_waits(cluster: LocalSlurm, tmp_path: Path) -> None:
    made = clone(tmp_path / "dav2")
    try:
        made.run("dav2", "scale", "tiny")
        path = made.folder / "params.yaml"
        tree = yaml.safe_load(path.read_text())
        # Nothing that this test can do without: each stage costs a start of Python and its libraries.
        del tree["sources"]["vkitti2"], tree["sources"]["views"], tree["benchmarks"]["nyu"]
        del tree["students"]["vitn"]
        tree["licences"] = {"hypersim": "Apache-2.0"}
        tree["evaluate"] |= {"benchmarks": {}, "models": ["teacher"]}
        tree["teacher"]["sources"] = ["hypersim"]
        tree["pseudo_label"]["sources"] = tree["students"]["vitt"]["sources"] = ["photos"]
        tree["compute"] |= {"launcher": "slurm", "world_size": 2, "threads": 1, "slurm": {"nodes": 2}}
        tree["pseudo_label"] |= {"runner": "slurm", "workers": 2, "threads": 1}
        path.write_text(yaml.safe_dump(tree, sort_keys=False))
        done = made.run("dvc", "repro", "pseudo_label")
        assert "Running stage 'pseudo_label'" in done.stdout
        # The photographs are one shard here, so that of two workers one is asked for.
        logs = sorted(log.name for log in (made.folder / ".dav2" / "slurm").glob("*.log"))
        shards = len(list((made.folder / "artifacts" / "pseudo" / "photos").glob("*.tar")))
        assert [name.split("-")[2] for name in logs] == ["pseudo"] * min(2, shards) + ["teacher"]
        record = read_run(layout.training(made.folder, RUN))
        assert record is not None and record.world == 2 and record.status == "finished"
        assert "are up to date" in made.run("dvc", "repro", "pseudo_label").stdout
    finally:
        made.run("dav2", "down")
