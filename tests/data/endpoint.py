"""A real OpenAI-compatible endpoint on loopback, which answers well or badly: what a request meets is a
function of it.
"""

import base64
import email.utils
import io
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

Body = dict[str, Any]
Fault = Callable[["Handler"], None]


@dataclass
class Asked:
    """A request as it came: its text, when, with which headers, and how many were being answered then."""

    text: str
    at: float
    headers: dict[str, str]
    body: Body
    together: int

    @property
    def image(self) -> Image.Image:
        return Image.open(io.BytesIO(base64.b64decode(self.address.partition(",")[2])))

    @property
    def address(self) -> str:
        return str(self.body["messages"][-1]["content"][0]["image_url"]["url"])


@dataclass
class Endpoint:
    """What is said, what goes wrong, and what was asked. `fault` gets the text and how often it was asked
    before.
    """

    say: Callable[[Body], Body] = lambda body: completion("A", usage=counted(body))
    fault: Callable[[str, int], Fault | None] = lambda text, before: None
    seconds: float = 0.0
    asked: list[Asked] = field(default_factory=list)
    busy: int = 0
    seen: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)
    port: int = 0
    path: str = "/v1"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.path}"

    def times(self, text: str) -> list[float]:
        return [asked.at for asked in self.asked if asked.text == text]


def counted(body: Body) -> dict[str, Any]:
    """Tokens of a request: 20 of a text of up to 40 words, else one a word, and 80 of an image."""
    said = [message["content"] for message in body["messages"]]
    words = " ".join(text if isinstance(text, str) else text[-1]["text"] for text in said).split()
    text, cached = len(words) if len(words) > 40 else 20, {"cached_tokens": 64}
    if len(body["messages"][-1]["content"]) == 1:
        return {"prompt_tokens": text, "completion_tokens": 2}
    return {"prompt_tokens": text + 80, "completion_tokens": 2, "prompt_tokens_details": cached}


def completion(text: str | None, finish_reason: str = "stop", **more: Any) -> Body:
    """A chat completion as OpenAI words it; `more` replaces fields."""
    usage = {"prompt_tokens": 100, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 64}}
    message = {"role": "assistant", "content": text, "refusal": None}
    choices = [{"index": 0, "message": message, "finish_reason": finish_reason}]
    return {
        "object": "chat.completion",
        "model": "m-1",
        "system_fingerprint": "fp_1",
        "choices": choices,
        "usage": usage,
    } | more


class Handler(BaseHTTPRequestHandler):
    """Answers POST, after what goes wrong."""

    endpoint: Endpoint
    body: Body

    def do_POST(self) -> None:
        self.body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text, served = self.body["messages"][-1]["content"][-1]["text"], self.endpoint
        with served.lock:
            served.busy += 1
            served.asked.append(Asked(text, time.monotonic(), dict(self.headers), self.body, served.busy))
            before, served.seen[text] = served.seen[text], served.seen[text] + 1
        time.sleep(served.seconds)
        base, mark, query = served.path.partition("?")
        right = self.path == f"{base}/chat/completions{mark}{query}"
        fault = served.fault(text, before) if right else status(404)
        with served.lock:
            served.busy -= (
                1  # before the answer, or a quick client's next request would seem to come too soon
            )
        self.close_connection = True
        with suppress(BrokenPipeError, ConnectionResetError):  # the client has hung up, as it should
            (fault or Handler.proper)(self)

    def proper(self) -> None:
        self.answer(200, json.dumps(self.endpoint.say(self.body)).encode())

    def answer(self, code: int, body: bytes, kind: str = "application/json", **headers: str | int) -> None:
        self.send_response(code)
        for key, value in {"Content-Type": kind, "Content-Length": len(body), **headers}.items():
            self.send_header(key.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: the tests look at `asked`."""


def status(code: int, body: bytes = b"{}", kind: str = "application/json", **headers: str | int) -> Fault:
    """A bare answer."""
    return lambda handler: handler.answer(code, body, kind, **headers)


def says(body: Body, kind: str = "application/json") -> Fault:
    """A completion of its own."""
    return lambda handler: handler.answer(200, json.dumps(body).encode(), kind)


def stall(seconds: float, after: bytes = b"") -> Fault:
    """Headers and perhaps some bytes, then nothing."""

    def fault(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(after)
        handler.wfile.flush()
        time.sleep(seconds)

    return fault


def half_closed(handler: Handler) -> None:
    """The connection ends in the middle of the body."""
    stall(0, after=b'{"choices": [')(handler)


def hang_up(handler: Handler) -> None:
    """The connection ends before any answer."""
    handler.connection.close()


def endless(handler: Handler) -> None:
    """A body of 100 MB, in chunks and without a length."""
    handler.protocol_version = "HTTP/1.1"
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b"100000\r\n" + b" " * (1 << 20) + b"\r\n")
    handler.wfile.write(b"0\r\n\r\n")


def in_a_moment(seconds: float) -> str:
    """An HTTP date for Retry-After."""
    return email.utils.formatdate(time.time() + seconds, usegmt=True)


@contextmanager
def serving(**how: Any) -> Iterator[Endpoint]:
    """An endpoint on a free port of loopback, in threads of this process."""
    endpoint = Endpoint(**how)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"endpoint": endpoint}))
    server.daemon_threads, server.block_on_close = True, False
    server.socket.listen(256)
    endpoint.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
