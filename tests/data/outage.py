"""Real S3 servers that stop and come back with all that they held."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Self

from moto.server import ThreadedMotoServer

from tests.slurm import free_port

WEED = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
"""SeaweedFS, which the extra ``team`` brings; ``None`` where it is not installed."""


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5)
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False
    return True


class _Server(ABC):
    """A server that is stopped where the block that it was made for ends."""

    @abstractmethod
    def stop(self) -> None:
        """From now on nothing listens at the port."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class StoppableServer(_Server):
    """What it holds lives in this process, so that a server started again at the same port has it all."""

    def __init__(self) -> None:
        self._port = 0
        self._server = self._started()

    def _started(self) -> ThreadedMotoServer:
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=self._port, verbose=False)
        server.start()
        self._port = server.get_host_and_port()[1]
        return server

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def stop(self) -> None:
        self._server.stop()
        assert self._server._server is not None
        self._server._server.server_close()

    def come_back(self) -> None:
        """Listen again."""
        self._server = self._started()


class SeaweedServer(_Server):
    """SeaweedFS in processes of its own, as a team runs it: stopped, it is gone with every connection to it.

    Args:
        folder: where it keeps what it holds.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True)
        names = ("master.port", "volume.port", "filer.port", "s3.port")
        names += tuple(f"{name}.grpc" for name in names)
        self._ports = {name: free_port() for name in names}
        self._process = self._started()

    def _started(self) -> subprocess.Popen[bytes]:
        assert WEED is not None
        ports = [f"-{name}={port}" for name, port in self._ports.items()]
        command = [WEED, "server", f"-dir={self._folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3",
                   *ports,
                   "-s3.ip.bind=127.0.0.1", "-volume.max=0", "-master.volumeSizeLimitMB=64", "-master.telemetry=false",
                   "-s3.port.iceberg=0"]  # fmt: skip
        with (self._folder / "log").open("ab") as log:
            process = subprocess.Popen(command, cwd=self._folder, stdout=log, stderr=log)
        deadline = time.monotonic() + 120
        while not self._answers():
            assert process.poll() is None and time.monotonic() < deadline, (self._folder / "log").read_text()[-2000:]
            time.sleep(0.1)
        return process

    def _answers(self) -> bool:
        """Whether what holds the bytes has joined, too: until then every object is an internal error."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._ports['master.port']}/dir/status", timeout=5) as told:
                joined = json.load(told)["Topology"]["DataCenters"]
        except OSError:
            return False
        return bool(joined) and _answers(self.url)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._ports['s3.port']}"

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def come_back(self) -> None:
        """Listen again."""
        self._process = self._started()
