"""A slow wire: a TCP proxy in its own process, so that pacing takes nothing from the measured one.

Decides how many bytes per second go through, all connections together, and how late an answer starts. Knows
no protocol.
"""

from __future__ import annotations

import argparse
import math
from contextlib import suppress
from functools import partial

import anyio
from anyio.abc import SocketStream

__all__ = ["Pace", "main"]

_PIECE_BYTES = 64 * 1024


class Pace:
    """Lets bytes pass at a rate, shared by all that ask; a pause saves up at most `burst_s` of it."""

    def __init__(self, bytes_per_s: float, *, burst_s: float = 0.05) -> None:
        self._bytes_per_s = bytes_per_s
        self._burst_s = burst_s
        self._free_at = -math.inf

    async def wait_passed(self, nbytes: int) -> None:
        """Wait until so many more bytes may have passed."""
        now = anyio.current_time()
        self._free_at = max(self._free_at, now - self._burst_s) + nbytes / self._bytes_per_s
        await anyio.sleep_until(self._free_at)


async def _serve(port: int, upstream: int, bytes_per_s: float, latency_s: float) -> None:
    up, down = Pace(bytes_per_s), Pace(bytes_per_s)
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=port)
    await listener.serve(partial(_carry, upstream=upstream, up=up, down=down, latency_s=latency_s))


async def _carry(client: SocketStream, *, upstream: int, up: Pace, down: Pace, latency_s: float) -> None:
    with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
        async with (
            client,
            await anyio.connect_tcp("127.0.0.1", upstream) as server,
            anyio.create_task_group() as group,
        ):
            group.start_soon(partial(_pump, client, server, up, 0.0))
            group.start_soon(partial(_pump, server, client, down, latency_s))


async def _pump(source: SocketStream, target: SocketStream, pace: Pace, latency_s: float) -> None:
    """Carry one direction to its end; a piece that had to be waited for, an answer's start, pays the delay."""
    with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
        while True:
            asked_at = anyio.current_time()
            try:
                piece = await source.receive(_PIECE_BYTES)
            except anyio.EndOfStream:
                await target.send_eof()
                return
            if latency_s and anyio.current_time() - asked_at > 0.001:
                await anyio.sleep(latency_s)
            await pace.wait_passed(len(piece))
            await target.send(piece)


def main() -> None:
    """Run the proxy until it is terminated."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", type=int, required=True)
    parser.add_argument("--bytes-per-s", type=float, default=math.inf)
    parser.add_argument("--latency-s", type=float, default=0.0)
    options = parser.parse_args()
    anyio.run(partial(_serve, options.port, options.upstream, options.bytes_per_s, options.latency_s))


if __name__ == "__main__":
    main()
