"""A real HTTP server on loopback that serves one file, well or badly: each request takes the next of a
list of faults.
"""

import email.utils
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Fault = Callable[["Handler"], None]


@dataclass
class Served:
    """What is served, and what was asked. A request without a fault of its own gets the file, as it should
    be.
    """

    content: bytes
    etag: str | None = '"v1"'
    faults: list[Fault] = field(default_factory=list)
    always: Fault | None = None
    bytes_per_second: float = float("inf")
    asked: list[dict[str, str]] = field(default_factory=list)
    port: int = 0

    def url(self, name: str = "birds.tar.gz") -> str:
        return f"http://127.0.0.1:{self.port}/2021/{name}"


class Handler(BaseHTTPRequestHandler):
    """Answers GET as RFC 9110 says, ranges and If-Range included, and is bent by faults."""

    served: Served

    def do_GET(self) -> None:
        self.served.asked.append(dict(self.headers))
        fault = self.served.faults.pop(0) if self.served.faults else self.served.always
        (fault or Handler.proper)(self)
        self.close_connection = True

    def proper(self, ranges: bool = True, conditional: bool = True, **bent: int | str | None) -> None:
        """Send what is asked for; `bent` replaces headers (None leaves one out), `stop` drops the
        connection after some bytes.
        """
        content, start, status = self.served.content, 0, 200
        if ranges and (asked := self.headers.get("Range")):
            start, status = int(asked.removeprefix("bytes=").removesuffix("-")), 206
            condition = self.headers.get("If-Range")
            if conditional and condition is not None and condition != self.served.etag:
                start, status = 0, 200
        headers: dict[str, int | str | None] = {"Content-Type": "application/gzip", "ETag": self.served.etag}
        if status == 206 and start >= len(content):
            status, start = 416, len(content)
            headers["Content-Range"] = f"bytes */{len(content)}"
        elif status == 206:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        stop = bent.pop("stop", None)
        body = content[start:] if status != 416 else b""
        self.answer(
            status,
            body if stop is None else body[: int(stop)],
            headers | {"Content-Length": len(body)} | _named(bent),
        )

    def answer(
        self, status: int, body: bytes = b"", headers: dict[str, int | str | None] | None = None
    ) -> None:
        self.send_response(status)
        for key, value in _named(headers or {}).items():
            if value is not None:
                self.send_header(key, str(value))
        self.end_headers()
        step = 1 << 14
        for at in range(0, len(body), step):
            self.wfile.write(body[at : at + step])
            self.wfile.flush()
            time.sleep(step / self.served.bytes_per_second)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: the tests look at `asked`."""


def _named(headers: Mapping[str, int | str | None]) -> dict[str, int | str | None]:
    return {key.replace("_", "-"): value for key, value in headers.items()}


def bent(**how: int | str | bool | None) -> Fault:
    """The proper answer, but for `how`: see `Handler.proper`."""
    return lambda handler: handler.proper(**how)  # type: ignore[arg-type]


def status(code: int, body: bytes = b"", **headers: int | str | None) -> Fault:
    """A bare answer."""
    return lambda handler: handler.answer(code, body, {"Content-Length": len(body)} | headers)


def scrawl(answer: bytes) -> Fault:
    """These bytes, whether HTTP or not."""
    return lambda handler: handler.wfile.write(answer) and None  # type: ignore[return-value]


def hang(seconds: float, after: int = 0) -> Fault:
    """Send some bytes of the file, then nothing for a while, then drop."""

    def fault(handler: Handler) -> None:
        handler.proper(stop=after)
        time.sleep(seconds)

    return fault


def in_chunks(content: bytes, whole: bool = True) -> Fault:
    """A chunked body without any length; cut off before its end if not `whole`."""

    def fault(handler: Handler) -> None:
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        half = len(content) // 2
        handler.wfile.write(b"%x\r\n%s\r\n" % (half, content[:half]))
        if whole:
            handler.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(content) - half, content[half:]))

    return fault


def becomes(content: bytes, etag: str, then: Fault) -> Fault:
    """The file on the server is replaced, then `then`."""

    def fault(handler: Handler) -> None:
        handler.served.content, handler.served.etag = content, etag
        then(handler)

    return fault


def in_a_moment(seconds: float) -> str:
    """An HTTP date for Retry-After."""
    return email.utils.formatdate(time.time() + seconds, usegmt=True)


@contextmanager
def serving(content: bytes, faults: Sequence[Fault] = (), **kinds: object) -> Iterator[Served]:
    """Serve `content` on a free port of loopback, in threads of this process."""
    served = Served(content, faults=list(faults), **kinds)  # type: ignore[arg-type]
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"served": served}))
    server.daemon_threads = True
    served.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
