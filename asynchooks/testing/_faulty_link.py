"""A link whose requests go wrong as told: an HTTP proxy in a process of its own, between a client and a real server.

Decides what happens to a request by its method and path, in the order of a script; all others pass untouched,
signatures and bytes as they are. A separate process, because the client under test must keep its GIL, and because a
reset must come from a real socket. Run as a file it imports the standard library alone.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias
from urllib.parse import urlsplit

__all__ = ["FaultyLink", "LinkFault", "LinkFaultKind", "LinkRequest"]

LinkFaultKind: TypeAlias = Literal["answer", "reset", "lost answer", "cut answer", "hang", "delay"]

_CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class LinkFault:
    """What goes wrong with matching requests.

    Attributes:
        kind: "answer": the server never sees it, the client gets `status` and an S3 error of that `code`.
            "reset": the connection is reset after `after_bytes` of the request's body.
            "lost answer": the server does its work, and the connection is reset in place of the answer.
            "cut answer": the answer ends after `after_bytes` of its body.
            "hang": nothing is read and nothing answered.
            "delay": it passes after `delay_s`.
        method: shell pattern of the request's method.
        path: shell pattern of its path with the query, such as ``*/iter_6.pth?*uploadId=*``.
        once_seen: begins when a request with such a path was seen; always, by default.
        skip: let so many matching requests pass first.
        times: then fail so many; None for ever.
        after_bytes: of "reset" and of "cut answer".
        status: of "answer".
        code: of "answer".
        delay_s: of "delay".
    """

    kind: LinkFaultKind
    method: str = "*"
    path: str = "*"
    once_seen: str = ""
    skip: int = 0
    times: int | None = None
    after_bytes: int = 0
    status: int = 503
    code: str = "SlowDown"
    delay_s: float = 0.0


@dataclass(frozen=True, slots=True)
class LinkRequest:
    """A request that came, and the kind of fault that it met ("" when it passed)."""

    method: str
    path: str
    fault: str


class FaultyLink:
    """Forwards a local port to an HTTP server, while entered, and does to requests what the faults say.

    Args:
        host: where the server listens.
        port: the server's port.
        faults: the script; of several that match, the first that is due.

    Raises:
        RuntimeError: on entering, when the proxy process does not start.
    """

    def __init__(self, host: str, port: int, *faults: LinkFault) -> None:
        self._arguments = [host, str(port)]
        self._faults = faults
        self._process: subprocess.Popen[str] | None = None
        self._port: int | None = None

    @classmethod
    def to(cls, endpoint_url: str, *faults: LinkFault) -> Self:
        """Return a link to the server at a URL, which names host and port."""
        address = urlsplit(endpoint_url)
        if address.hostname is None or address.port is None:
            raise ValueError(f"{endpoint_url} names no host and port")
        return cls(address.hostname, address.port, *faults)

    @property
    def host(self) -> str:
        """The address to connect to instead of the server's."""
        return "127.0.0.1"

    @property
    def port(self) -> int:
        """The port to connect to instead of the server's."""
        if self._port is None:
            raise RuntimeError("The faulty link has no port before it is entered: use it in `with`.")
        return self._port

    @property
    def endpoint_url(self) -> str:
        """The URL to use instead of the server's."""
        return f"http://{self.host}:{self.port}"

    def set_faults(self, *faults: LinkFault) -> None:
        """Replace the script; none heals the link. A request that hangs goes on hanging."""
        self._ask({"faults": [asdict(fault) for fault in faults]})

    def requests(self) -> list[LinkRequest]:
        """Every request so far, in the order in which they came."""
        return [LinkRequest(*each) for each in self._ask({})]

    def __enter__(self) -> Self:
        self._process = process = subprocess.Popen(  # noqa: S603 - this Python and this file
            [sys.executable, "-I", "-S", __file__, *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C in the terminal must not cut a save that the client still finishes
        )
        line = process.stdout.readline().strip() if process.stdout else ""
        if not line.isdigit():
            self._stop()
            raise RuntimeError(f"The faulty proxy did not start; it said {line!r}.")
        self._port = int(line)
        self.set_faults(*self._faults)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _ask(self, order: Mapping[str, Any]) -> Any:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise RuntimeError("The faulty link is not entered: use it in `with`.")
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    def _stop(self) -> None:
        process, self._process, self._port = self._process, None, None
        if process is not None:
            process.kill()
            process.communicate()  # closes both pipes and reaps the process


class _Script:
    """The faults that are left, and what has been seen; used by all connections."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[dict[str, Any]] = []
        self.seen: list[tuple[str, str, str]] = []

    def replace(self, faults: list[dict[str, Any]]) -> None:
        with self._lock:
            self._faults = faults

    def next_for(self, method: str, path: str) -> dict[str, Any] | None:
        with self._lock:
            for each in self._faults:
                if each["once_seen"] and fnmatchcase(path, each["once_seen"]):
                    each["once_seen"] = ""
            hits = (each for each in self._faults if _is_hit(each, method, path))
            fault: dict[str, Any] | None = next(hits, None)
            self.seen.append((method, path, fault["kind"] if fault else ""))
            return fault


def _is_hit(fault: dict[str, Any], method: str, path: str) -> bool:
    if fault["once_seen"] or not fnmatchcase(method, fault["method"]) or not fnmatchcase(path, fault["path"]):
        return False
    if fault["skip"]:
        fault["skip"] -= 1
        return False
    if fault["times"] is not None:
        if not fault["times"]:
            return False
        fault["times"] -= 1
    return True


class _Handler(BaseHTTPRequestHandler):
    """One client connection, and the connection to the server that belongs to it."""

    protocol_version = "HTTP/1.1"
    script: _Script
    server_address: tuple[str, int]
    upstream: http.client.HTTPConnection | None = None

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except OSError:  # either side is gone
            self.close_connection = True

    def __getattr__(self, name: str) -> Callable[[], None]:
        if name.startswith("do_"):
            return self.pass_on
        raise AttributeError(name)

    def pass_on(self) -> None:
        fault = self.script.next_for(self.command, self.path)
        kind = fault["kind"] if fault else ""
        if fault is None or kind not in ("answer", "hang", "reset"):
            if fault is not None and kind == "delay":
                time.sleep(fault["delay_s"])
            answer_bytes = fault["after_bytes"] if fault is not None and kind == "cut answer" else sys.maxsize
            self.forward(None, loses_answer=kind == "lost answer", answer_bytes=answer_bytes)
        elif kind == "answer":
            self.refuse(fault["status"], fault["code"])
        elif kind == "hang":
            threading.Event().wait()  # until the process ends
        else:
            self.forward(fault["after_bytes"], loses_answer=True)

    def forward(
        self, limit_bytes: int | None, *, loses_answer: bool, answer_bytes: int = sys.maxsize
    ) -> None:
        """Hand the request on, up to a limit of its body, and the answer back, up to a limit of its own."""
        upstream = self.upstream = http.client.HTTPConnection(*self.server_address)
        try:
            if limit_bytes is None or limit_bytes > 0:
                upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    upstream.putheader(name, value)
                upstream.endheaders()
                self.send_body(upstream, limit_bytes)
            if limit_bytes is not None:
                self.reset()
                return
            answer = upstream.getresponse()
            if loses_answer:
                answer.read()
                self.reset()
                return
            self.answer(answer, answer_bytes)
        finally:
            upstream.close()

    def send_body(self, upstream: http.client.HTTPConnection, limit_bytes: int | None) -> None:
        left = int(self.headers.get("Content-Length", 0))
        left = left if limit_bytes is None else min(left, limit_bytes)
        while left:
            piece = self.rfile.read(min(left, _CHUNK_BYTES))
            if not piece:
                raise ConnectionError("the client is gone")
            upstream.send(piece)
            left -= len(piece)

    def answer(self, answer: http.client.HTTPResponse, left: int) -> None:
        self.send_response_only(answer.status, answer.reason)
        has_length = answer.getheader("Content-Length") is not None
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection"):
                self.send_header(name, value)
        if not has_length:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        while piece := answer.read(min(left, _CHUNK_BYTES)):
            self.wfile.write(piece)
            left -= len(piece)
        if not left:
            self.close_connection = True

    def refuse(self, status: int, code: str) -> None:
        left = int(self.headers.get("Content-Length", 0))
        while left:
            left -= len(self.rfile.read(min(left, _CHUNK_BYTES))) or left
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def reset(self) -> None:
        """Close so that the client sees a reset and not an end."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news."""

    def shutdown_request(self, request: Any) -> None:
        with contextlib.suppress(OSError):  # it was reset
            super().shutdown_request(request)


def _main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    script = _Script()
    handler = type(
        "Handler", (_Handler,), {"script": script, "server_address": (sys.argv[1], int(sys.argv[2]))}
    )
    server = _Server(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)  # noqa: T201 - the answer to the parent
    for line in sys.stdin:
        order = json.loads(line)
        if "faults" in order:
            script.replace(order["faults"])
        print(json.dumps(script.seen if "faults" not in order else None), flush=True)  # noqa: T201


if __name__ == "__main__":
    _main()
