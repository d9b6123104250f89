"""An HTTP server on 127.0.0.1 with the faults of real ones: it drops, stalls, lies, turns away and changes files."""

import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request; the default is nothing.

    `drop_at`: the connection ends after this fraction of the body, with a reset if `reset`. `claims`: bytes added to
    the stated length. `shifts`: the range begins so many bytes before what was asked. `changes_to`: the file becomes
    this just before the request.
    """

    status: int | None = None
    retry_after: str | None = None
    drop_at: float | None = None
    reset: bool = False
    claims: int = 0
    ignores_range: bool = False
    shifts: int = 0
    changes_to: bytes | None = None


@dataclass
class Served:
    """One file and how the server behaves about it. `validator`: the header that tells its version, or none."""

    data: bytes
    ranges: bool = True
    validator: str | None = "ETag"
    heeds_if_range: bool = True
    framing: str = "length"  # length | chunked | close
    headers: dict[str, str] = field(default_factory=dict)
    redirect: str | None = None
    bytes_per_s: float | None = None
    faults: deque[Fault] = field(default_factory=deque)
    version: int = 1

    def validators(self) -> dict[str, str]:
        value = {
            "ETag": f'"v{self.version}"',
            "weak ETag": f'W/"v{self.version}"',
            "Last-Modified": f"Sat, 21 Nov 2026 10:00:{self.version % 60:02} GMT",
        }
        return {self.validator.removeprefix("weak "): value[self.validator]} if self.validator else {}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "Loopback"

    def do_GET(self) -> None:
        self.server.requests.append((self.path, dict(self.headers)))
        served = self.server.files.get(self.path.partition("?")[0])
        if served is None:
            return self._refuse(404)
        if served.redirect:
            return self._redirect(served.redirect)
        fault = served.faults.popleft() if served.faults else Fault()
        if fault.changes_to is not None:
            served.data, served.version = fault.changes_to, served.version + 1
        if fault.status:
            return self._refuse(fault.status, fault.retry_after)
        self._send(served, fault)

    def _send(self, served: Served, fault: Fault) -> None:
        start = 0
        wanted = self.headers.get("Range")
        fits = self.headers.get("If-Range") in (*served.validators().values(), None) or not served.heeds_if_range
        if wanted and served.ranges and fits and not fault.ignores_range:
            start = max(1, int(wanted.removeprefix("bytes=").partition("-")[0]) - fault.shifts)
            if start >= len(served.data):
                return self._refuse(416)
        body = served.data[start:]
        self.send_response(206 if start else 200)
        for name, value in (served.validators() | served.headers).items():
            self.send_header(name, value)
        if start:
            end = len(served.data) - 1 + fault.claims
            self.send_header("Content-Range", f"bytes {start}-{end}/{end + 1}")
        framing = "length" if start else served.framing
        if framing == "length":
            self.send_header("Content-Length", str(len(body) + fault.claims))
        elif framing == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Connection", "close")
        self.end_headers()
        sent = body if fault.drop_at is None else body[: int(len(body) * fault.drop_at)]
        self._write(sent, framing, served.bytes_per_s)
        if fault.drop_at is not None or fault.claims:
            self._drop(fault.reset)
        elif framing == "chunked":
            self.wfile.write(b"0\r\n\r\n")

    def _write(self, body: bytes, framing: str, bytes_per_s: float | None) -> None:
        size = 4096 if bytes_per_s else max(1, len(body) // 3)
        for at in range(0, len(body), size):
            piece = body[at : at + size]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if framing == "chunked" else piece)
            if bytes_per_s:
                time.sleep(len(piece) / bytes_per_s)

    def _drop(self, reset: bool) -> None:
        self.wfile.flush()
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def _refuse(self, status: int, retry_after: str | None = None) -> None:
        self.send_response(status)
        if retry_after is not None:
            self.send_header("Retry-After", retry_after)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _redirect(self, to: str) -> None:
        self.send_response(302)
        self.send_header("Location", to)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


class Loopback(ThreadingHTTPServer):
    """`files`: path -> what is served there. `requests`: path and headers of every request so far."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, Served] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no error here."""


@contextmanager
def loopback() -> Iterator[Loopback]:
    with Loopback() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
