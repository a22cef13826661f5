"""An S3 server as it is on a bad day: a proxy that fails, slows and cuts off answers, by a seeded draw."""

from __future__ import annotations

import http.client
import random
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class UnreliableProxy:
    """Passes requests on to ``address`` (host:port); of ten, about one fails, one is slow and one is cut off."""

    def __init__(self, address: str, seed: int) -> None:
        draw, lock = random.Random(seed), threading.Lock()
        self.faults = {"fail": 0, "slow": 0, "truncate": 0}

        def choose() -> str:
            with lock:
                fault = draw.choices(["none", "fail", "slow", "truncate"], [7, 1, 1, 1])[0]
                if fault != "none":
                    self.faults[fault] += 1
                return fault

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                fault = choose()
                if fault == "fail":
                    self.send_response_only(500)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                if fault == "slow":
                    time.sleep(0.2)
                self.pass_on(body, cut=fault == "truncate")

            def pass_on(self, body: bytes, cut: bool) -> None:
                upstream = http.client.HTTPConnection(address)
                upstream.request(self.command, self.path, body, dict(self.headers))
                reply = upstream.getresponse()
                answer = reply.read()
                self.send_response_only(reply.status)
                for name, value in reply.getheaders():
                    if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                        self.send_header(name, value)
                length = reply.getheader("Content-Length") if self.command == "HEAD" else str(len(answer))
                self.send_header("Content-Length", length or "0")
                self.end_headers()
                self.wfile.write(answer[: len(answer) // 2] if cut else answer)
                upstream.close()
                if cut:
                    self.close_connection = True

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = handle_any

            def log_message(self, format: str, *args: object) -> None:
                return None

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
