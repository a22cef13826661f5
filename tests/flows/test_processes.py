from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from flows import access, processes, servers
from flows.processes import Server, ServerError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder of its own: the state of servers lies below the working directory."""
    monkeypatch.chdir(tmp_path)
    processes.STATE.mkdir()
    return tmp_path


def web_server(port: int) -> list[str]:
    return [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"]


def test_a_server_is_found_again_and_stopped() -> None:
    port = processes.free_port(18200)
    server = processes.start("page", web_server(port), port, "/", {})
    try:
        assert processes.running("page") == server
        assert processes.healthy(server.url)
        assert os.getsid(server.pid) == server.pid, "it must outlive the terminal that started it"
    finally:
        assert processes.stop("page")
    assert not psutil.pid_exists(server.pid)
    assert processes.running("page") is None
    assert not processes.stop("page")


def test_an_experiments_copy_uses_the_servers_of_its_project(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = processes.free_port(18250)
    server = processes.start("page", web_server(port), port, "/", {})
    copy = folder / ".dvc/tmp/exps/standalone/tmp1"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    try:
        assert processes.running("page") is None
        processes.share_state()
        assert processes.running("page") == server and processes.home() == folder.resolve()
    finally:
        monkeypatch.chdir(folder)
        processes.stop("page")
    monkeypatch.chdir(copy)
    started = processes.start("page", web_server(port), port, "/", {})
    # DVC removes the copy; what it started is the project's, and stays.
    monkeypatch.chdir(folder)
    shutil.rmtree(copy)
    try:
        assert processes.running("page") == started
    finally:
        processes.stop("page")


def test_a_folder_that_is_no_copy_keeps_to_itself(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "inside").mkdir()
    monkeypatch.chdir(folder / "inside")
    processes.share_state()
    assert not processes.STATE.exists()


def test_a_process_that_took_over_the_number_is_not_our_server() -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        record = {"name": "page", "pid": stranger.pid, "started": 12345.0, "port": 1}
        (processes.STATE / "page.json").write_text(json.dumps(record))
        assert processes.running("page") is None
        assert not processes.stop("page")
        assert stranger.poll() is None, "a stranger must not be stopped"
    finally:
        stranger.kill()
        stranger.wait()


def test_a_half_written_record_counts_as_no_server() -> None:
    (processes.STATE / "page.json").write_text('{"name": "pa')
    assert processes.running("page") is None


def test_a_taken_port_is_passed_over_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert servers._choose_port("Prefect", port) > port
    assert f"port {port} is taken by a program that is not this project's Prefect server" in capsys.readouterr().err


def test_an_answer_from_whoever_took_the_port_meanwhile_is_not_our_servers() -> None:
    port = processes.free_port(18300)
    stranger = subprocess.Popen(web_server(port))
    try:
        while not processes.healthy(f"http://127.0.0.1:{port}/"):
            assert stranger.poll() is None
        with pytest.raises(ServerError, match=r"(?s)page server did not start.*in use"):
            processes.start("page", web_server(port), port, "/", {})
    finally:
        stranger.kill()
        stranger.wait()
    assert processes.running("page") is None


def test_a_server_that_does_not_start_shows_the_end_of_its_log() -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no such database')"]
    with pytest.raises(ServerError, match=r"(?s)page server did not start.*page\.log.*no such database"):
        processes.start("page", command, 1, "/", {})


def test_children_that_ignore_the_request_to_end_are_killed() -> None:
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", stubborn], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    process.stdout.readline()
    processes.stop_group(process.pid, patience=0.5)
    assert not psutil.pid_exists(process.pid)


def test_a_given_prefect_address_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"http://127.0.0.1:{processes.free_port(18400)}/api"
    monkeypatch.setenv("PREFECT_API_URL", address)
    monkeypatch.setattr(access, "PATIENCE", 0.0)
    with pytest.raises(ServerError, match=f"PREFECT_API_URL is {address}, but no Prefect server answers there"):
        servers.prefect_access()


def test_a_port_that_another_program_takes_in_between_costs_only_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[int] = []
    other = socket.socket()

    def start(port: int) -> Server:
        tried.append(port)
        if len(tried) == 1:
            other.bind(("127.0.0.1", port))
            other.listen()
            raise ServerError("address already in use")
        return Server("test", os.getpid(), 0.0, port)

    with other:
        made = servers._on_a_free_port("Test", 41_000, start)
        assert made.port == tried[1] != tried[0]
    with pytest.raises(ServerError, match="broken"):
        servers._on_a_free_port("Test", 41_000, lambda port: (_ for _ in ()).throw(ServerError("broken")))
