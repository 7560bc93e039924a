"""A link of limited speed: a TCP proxy in a process of its own, between a client and a local server.

Decides how fast bytes pass (one token bucket per direction, shared by all connections, as on a real link) and
when a message pays latency (whenever the conversation changes direction). Knows nothing of what passes. A
separate process, because the client under test must keep its GIL. Run as a file it imports the standard
library alone, so it starts in a fraction of a second.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

__all__ = ["Direction", "ThrottledLink", "TokenBucket"]

Direction: TypeAlias = Literal["both", "upload", "download"]

_CHUNK_BYTES = 256 * 1024
_BURST_S = 0.05  # a link that was idle may send this much at once: about what its buffers hold


class ThrottledLink:
    """Forwards a local port to a server at a limited speed, while entered.

    Args:
        host: where the server listens.
        port: the server's port.
        bytes_per_s: speed of the link, for all connections together; infinite to pay the latency alone.
        direction: which direction is limited: "upload" (client to server), "download", or "both".
        latency_s: one-way delay, paid each time a connection's conversation changes direction.

    Raises:
        ValueError: a speed that is not positive, or a negative latency.
        RuntimeError: on entering, when the proxy process does not start.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        bytes_per_s: float,
        direction: Direction = "both",
        latency_s: float = 0.0,
    ) -> None:
        if not bytes_per_s > 0:
            raise ValueError(f"A link's speed is a positive number of bytes per second, not {bytes_per_s!r}.")
        if latency_s < 0:
            raise ValueError(f"A link's latency is a number of seconds >= 0, not {latency_s!r}.")
        self._arguments = [host, str(port), str(bytes_per_s), direction, str(latency_s)]
        self._process: subprocess.Popen[str] | None = None
        self._port: int | None = None

    @property
    def host(self) -> str:
        """The address to connect to instead of the server's."""
        return "127.0.0.1"

    @property
    def port(self) -> int:
        """The port to connect to instead of the server's."""
        if self._port is None:
            raise RuntimeError("The throttled link has no port before it is entered: use it in `with`.")
        return self._port

    def __enter__(self) -> Self:
        # A session of its own: Ctrl-C in the terminal must not cut a save that the client still finishes.
        # `-I -S`: nothing of the user's environment is imported.
        self._process = process = subprocess.Popen(  # noqa: S603 - this Python and this file
            [sys.executable, "-I", "-S", __file__, *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        line = process.stdout.readline().strip() if process.stdout else ""
        if not line.isdigit():
            self._stop()
            raise RuntimeError(f"The throttling proxy did not start; it said {line!r}.")
        self._port = int(line)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        process, self._process, self._port = self._process, None, None
        if process is not None:
            process.kill()
            process.communicate()  # closes both pipes and reaps the process


class TokenBucket:
    """Says how long a sender must wait so that all senders together keep to one speed.

    Safe on any thread.

    Args:
        bytes_per_s: the speed; infinite for no limit.
        clock: seconds on a clock that never goes back.
    """

    def __init__(self, bytes_per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._bytes_per_s = bytes_per_s
        self._clock = clock
        self._free_at = 0.0
        self._lock = threading.Lock()

    def reserve(self, nbytes: int) -> float:
        """Take the link for ``nbytes`` and return the seconds after which they have passed."""
        with self._lock:
            now = self._clock()
            self._free_at = max(self._free_at, now - _BURST_S) + nbytes / self._bytes_per_s
            return max(0.0, self._free_at - now)


class _Conversation:
    """One connection: two pumps, and who of the two spoke last."""

    def __init__(self, client: socket.socket, server: socket.socket, latency_s: float) -> None:
        self._sockets = {"upload": client, "download": server}
        self._latency_s = latency_s
        self._speaker = ""

    def start(self, buckets: dict[str, TokenBucket]) -> None:
        """Pump both directions, each on a thread of its own, until one side closes."""
        for direction, bucket in buckets.items():
            threading.Thread(target=self._pump, args=(direction, bucket), daemon=True).start()

    def _pump(self, direction: str, bucket: TokenBucket) -> None:
        source = self._sockets[direction]
        target = self._sockets["download" if direction == "upload" else "upload"]
        buffer = memoryview(bytearray(_CHUNK_BYTES))
        with contextlib.suppress(OSError):  # a reset on one side ends the conversation on both
            while received := source.recv_into(buffer):
                if self._speaker != direction:
                    self._speaker = direction
                    _wait(self._latency_s)
                _wait(bucket.reserve(received))
                target.sendall(buffer[:received])
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


def _wait(seconds: float) -> None:
    if seconds > 0:
        time.sleep(seconds)


def _serve(host: str, port: int, bytes_per_s: float, direction: str, latency_s: float) -> None:
    """Accept connections until the parent closes our standard input, that is, until it ends."""
    limited = {"upload", "download"} if direction == "both" else {direction}
    buckets = {
        each: TokenBucket(bytes_per_s if each in limited else math.inf) for each in ("upload", "download")
    }
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    threading.Thread(target=_accept, args=(listener, (host, port), buckets, latency_s), daemon=True).start()
    print(listener.getsockname()[1], flush=True)  # noqa: T201 - the answer to the parent
    sys.stdin.read()


def _accept(
    listener: socket.socket, server: tuple[str, int], buckets: dict[str, TokenBucket], latency_s: float
) -> None:
    while True:
        client, _ = listener.accept()
        try:
            upstream = socket.create_connection(server)
        except OSError:  # the server is gone: the client sees a closed connection, as without a proxy
            client.close()
            continue
        for each in (client, upstream):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _Conversation(client, upstream, latency_s).start(buckets)


def _main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parser = argparse.ArgumentParser()
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("bytes_per_s", type=float)
    parser.add_argument("direction", choices=["both", "upload", "download"])
    parser.add_argument("latency_s", type=float)
    _serve(**vars(parser.parse_args()))


if __name__ == "__main__":
    _main()
