"""Saves, and kills itself at the n-th step of it. Run as a program: forks one saver for every number on stdin.

The parent imports everything once and starts no thread, so that a fork costs nothing and is safe.
"""

import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from asynchooks.checkpoint import Checkpointer, Content, Entry, KeepLast, Store, capture, open_store

torch.set_num_threads(1)


class DeadlyStore:
    """Counts what happens to a store and kills the process when the count is reached."""

    def __init__(self, inner: Store, deadly: int) -> None:
        self._inner = inner
        self._left = deadly

    @property
    def url(self) -> str:
        return self._inner.url

    def put(self, name: str, content: Content, *, progress: Any = None) -> None:
        self._tick()
        self._inner.put(name, content, progress=lambda _nbytes: self._tick())
        self._tick()

    def read(self, name: str, *, chunk_bytes: int = 2**24) -> Iterator[memoryview]:
        return self._inner.read(name, chunk_bytes=chunk_bytes)

    @property
    def parallel_reads(self) -> int:
        return self._inner.parallel_reads

    def read_into(self, name: str, offset: int, buffers: Sequence[memoryview]) -> int:
        return self._inner.read_into(name, offset, buffers)

    def entries(self) -> Mapping[str, Entry]:
        return self._inner.entries()

    def delete(self, name: str) -> None:
        self._tick()
        self._inner.delete(name)
        self._tick()

    def is_being_written(self, name: str) -> bool:
        return self._inner.is_being_written(name)

    def _tick(self) -> None:
        self._left -= 1
        if self._left < 0:
            os.kill(os.getpid(), signal.SIGKILL)


def state(step: int) -> dict[str, Any]:
    return {"state_dict": {"w": torch.full((2_200_000,), float(step))}, "meta": {"iter": step}}


def save(url: str, options: dict[str, str], run_id: str, deadly: int) -> None:
    checkpointer = Checkpointer(DeadlyStore(open_store(url, options), deadly), run_id=run_id)
    one, two = capture(state(1)), capture(state(2))
    checkpointer.save_sync(one, name="iter_1.pth", step=1, pointer="last", keep=KeepLast(1))
    checkpointer.save_sync(two, name="iter_1.pth", step=2, pointer="last", keep=KeepLast(1))


def main() -> None:
    url, options, run_id = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
    for line in sys.stdin:
        child = os.fork()
        if not child:
            save(url, options, run_id, int(line))
            os._exit(0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
