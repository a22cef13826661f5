"""A real S3 server for tests, and one that fails on purpose."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from uuid import uuid4

import pytest


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Address of an S3 server that lives as long as the test run."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def _use(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    # fsspec keeps one client per arguments, and the address is none of them.
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """``s3://`` address of a new bucket."""
    import s3fs

    _use(monkeypatch, s3_server)
    name = f"bucket-{uuid4().hex[:12]}"
    s3fs.S3FileSystem().mkdir(name)
    return f"s3://{name}"


@pytest.fixture
def failing_bucket(bucket: str, s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The bucket behind a proxy that answers every tenth request with an error of the server."""
    address = s3_server.removeprefix("http://")
    counter = iter(range(10**9))

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if next(counter) % 10 == 9:
                self._answer(500, {"Content-Type": "text/plain"}, b"made to fail")
                return
            upstream = http.client.HTTPConnection(address)
            upstream.request(self.command, self.path, body, dict(self.headers))
            reply = upstream.getresponse()
            self._answer(reply.status, dict(reply.getheaders()), reply.read())
            upstream.close()

        def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response_only(status)
            kept = {k: v for k, v in headers.items() if k.lower() not in ("transfer-encoding", "connection")}
            if self.command != "HEAD":
                kept = {k: v for k, v in kept.items() if k.lower() != "content-length"} | {
                    "Content-Length": str(len(body))
                }
            for name, value in kept.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass_on

        def log_message(self, *arguments: object) -> None:
            """Quiet."""

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    _use(monkeypatch, f"http://127.0.0.1:{proxy.server_port}")
    yield bucket
    proxy.shutdown()
