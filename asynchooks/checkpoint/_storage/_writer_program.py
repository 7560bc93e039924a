"""The program of a writer process: takes bytes out of shared memory to a store, for the process that started it.

Decides when to end: with the other end of its socket, or with its parent, whichever is noticed first. A put that is
under way then gets a few seconds to remove its temporary file; nothing can become visible any more, since that needs
the parent's word. It ignores the signals that a terminal or a scheduler sends to all: the parent finishes its save
first. Imports no torch. Knows neither checkpoints nor what a file means.
"""

from __future__ import annotations

import gc
import mmap
import os
import select
import signal
import socket
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any

import fsspec
import fsspec.config

from asynchooks.checkpoint._content import Content
from asynchooks.checkpoint._storage import Share, Stopped, nesting, open_store, shared
from asynchooks.checkpoint._storage._errors import Guard, redact_url
from asynchooks.checkpoint._storage._wire import Wire, WireClosedError
from asynchooks.errors import AsyncHooksError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asynchooks.checkpoint._storage import Store
    from asynchooks.checkpoint._storage._wire import Message

__all__: list[str] = []

_GRACE_S = 5.0
_TICK_S = 1.0


class _Program:
    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._wire = Wire(end)
        self._idle = threading.Event()
        self._is_orphan = threading.Event()
        self._description: Mapping[str, Any] = {}
        self._store: Store | None = None
        self._order = 0

    def run(self) -> None:
        """Serve orders until the parent is gone."""
        self._idle.set()
        threading.Thread(target=self._watch, args=(os.getppid(),), daemon=True).start()
        try:
            self._description = self._wire.receive().fields
            self._wire.send({"ready": True})
            while True:
                order = self._wire.receive()
                if "put" not in order.fields:
                    continue  # told to stop what had already ended
                self._idle.clear()
                answer = self._answer(order)
                del order
                gc.collect()  # a file object in a cycle would keep the parent's memory mapped
                self._wire.send(answer)
                self._idle.set()
        except WireClosedError:
            os._exit(0)

    def _watch(self, parent: int) -> None:
        poll = select.poll()
        poll.register(self._end, select.POLLRDHUP)
        while not poll.poll(_TICK_S * 1000) and os.getppid() == parent:
            pass
        self._is_orphan.set()
        self._idle.wait(_GRACE_S)
        os._exit(1)

    def _answer(self, order: Message) -> dict[str, Any]:
        self._order = order.fields["id"]
        try:
            self._put(order)
        except Stopped:
            return {"error": "StorageError", "text": "stopped"}  # the parent knows why
        except AsyncHooksError as error:
            return {"error": type(error).__name__, "text": str(error)}
        except Exception as error:  # noqa: BLE001 - an error of ours: the parent is told, the details go to its log of us
            traceback.print_exc()
            return {"error": "StorageError", "text": f"{type(error).__name__} in the writer process: {error}"}
        return {"done": True}

    def _put(self, order: Message) -> None:
        name = order.fields["put"]
        content = _content(order)
        if self._store is None:
            self._store = self._opened()
        store = self._store
        for folder in order.fields["inside"]:
            store = nesting(store).folder(folder)
        store = shared(store, Share(*order.fields["share"]))
        store.put(name, content, progress=self._tell, before_visible=self._ask)

    def _opened(self) -> Store:
        description = self._description
        fsspec.config.conf.update(description["config"])
        for protocol, implementation in description["implementations"].items():
            fsspec.register_implementation(protocol, implementation, clobber=True)
        url, options = description["url"], description["options"]
        guard = Guard(
            redact_url(url),
            secrets=tuple(description["secrets"]),
            attempts=5,
            deadline_s=description["deadline_s"],
        )
        return guard.call(
            "open",
            "",
            lambda: open_store(url, options, deadline_s=description["deadline_s"], writer="thread"),
        )

    def _tell(self, nbytes: int) -> None:
        try:
            while self._wire.is_readable(0):
                if self._wire.receive().fields.get("stop") == self._order:
                    raise Stopped
            if self._is_orphan.is_set():
                raise Stopped
            self._wire.send({"progress": nbytes})
        except WireClosedError:
            raise Stopped from None

    def _ask(self) -> None:
        """Wait for the parent's word that the file may become visible."""
        try:
            self._wire.send({"may_appear": self._order})
            while True:
                fields = self._wire.receive().fields
                if fields.get("go") == self._order:
                    return
                if fields.get("stop") == self._order:
                    raise Stopped
        except WireClosedError:
            raise Stopped from None


def _content(order: Message) -> Content:
    """The buffers: in the parent's memory, mapped for reading, or in the message itself."""
    mapped: list[memoryview] = []
    for descriptor in order.descriptors:
        try:
            flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
            mapped.append(memoryview(mmap.mmap(descriptor, 0, flags=flags, prot=mmap.PROT_READ)))
        finally:
            os.close(descriptor)
    buffers: list[memoryview] = []
    taken = 0
    for slab, offset, nbytes in order.fields["pieces"]:
        if slab < 0:
            buffers.append(order.body[taken : taken + nbytes])
            taken += nbytes
        else:
            buffers.append(mapped[slab][offset : offset + nbytes])
    return Content.of(*buffers)


def main() -> None:
    """Serve on standard input, which is a socket; what libraries print goes to standard error."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    end = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    _Program(end).run()


if __name__ == "__main__":
    main()
