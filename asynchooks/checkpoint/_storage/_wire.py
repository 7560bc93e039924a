"""Messages between a process and its writer process, over a Unix socket.

Decides how a message looks: its length, a small JSON object, descriptors, and bytes that follow as they are. No
pickle: what comes from the other process can be no code. Knows no store and no meaning of a message.
"""

from __future__ import annotations

import json
import select
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asynchooks.checkpoint._content import CHUNK_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Message", "Wire", "WireClosedError"]

_HEAD = struct.Struct("!IIQ")


class WireClosedError(Exception):
    """The other process has gone, or does not read or write any more; never leaves the package."""


@dataclass(frozen=True, slots=True)
class Message:
    """What was received. The descriptors are the receiver's to close."""

    fields: Mapping[str, Any]
    descriptors: Sequence[int]
    body: memoryview


class Wire:
    """One end. One thread at a time sends, one receives.

    Args:
        end: a connected stream socket of the Unix kind.
        timeout_s: longest time that the other end may not read or write within a message; None waits for ever.
    """

    def __init__(self, end: socket.socket, *, timeout_s: float | None = None) -> None:
        self._end = end
        self._end.settimeout(timeout_s)

    def send(
        self,
        fields: Mapping[str, Any],
        *,
        descriptors: Sequence[int] = (),
        body: Sequence[memoryview] = (),
    ) -> None:
        """Send one message.

        Raises:
            WireClosedError: it did not get through.
        """
        text = json.dumps(fields).encode()
        try:
            self._end.sendall(
                _HEAD.pack(len(text), len(descriptors), sum(view.nbytes for view in body)) + text
            )
            for descriptor in descriptors:
                socket.send_fds(self._end, [b"d"], [descriptor])
            for view in body:
                for start in range(0, view.nbytes, CHUNK_BYTES):
                    self._end.sendall(view[start : start + CHUNK_BYTES])
        except OSError as error:
            raise WireClosedError(str(error)) from error

    def receive(self) -> Message:
        """Wait for a message.

        Raises:
            WireClosedError: none came, or not whole.
        """
        try:
            ntext, ndescriptors, nbody = _HEAD.unpack(self._take(_HEAD.size))
            fields = json.loads(bytes(self._take(ntext)))
            descriptors = [self._take_descriptor() for _ in range(ndescriptors)]
            return Message(fields, descriptors, self._take(nbody))
        except OSError as error:
            raise WireClosedError(str(error)) from error

    def is_readable(self, wait_s: float) -> bool:
        """Whether there is something to receive, also the news that the other process has gone."""
        poll = select.poll()
        poll.register(self._end, select.POLLIN)
        return bool(poll.poll(wait_s * 1000))

    def close(self) -> None:
        """Close this end."""
        self._end.close()

    def _take(self, nbytes: int) -> memoryview:
        buffer = memoryview(bytearray(nbytes))
        filled = 0
        while filled < nbytes:
            nread = self._end.recv_into(buffer[filled:])
            if not nread:
                raise WireClosedError("closed by the other process")
            filled += nread
        return buffer

    def _take_descriptor(self) -> int:
        _, descriptors, _, _ = socket.recv_fds(self._end, 1, 1, socket.MSG_CMSG_CLOEXEC)
        if not descriptors:
            raise WireClosedError("a descriptor did not arrive")
        return descriptors[0]
