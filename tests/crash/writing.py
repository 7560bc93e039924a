"""Saves one checkpoint through a writer process, and ends at a point of it. Run as a program, for one order.

Answers with the process ids of the writer and of a child that it forked there, and then kills itself, unless it is
told to wait for someone to do that.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

import fsspec
import torch

from asynchooks.checkpoint import Checkpointer, capture, open_store
from asynchooks.checkpoint._storage._process import ProcessStore

from .points import watched

ROWS = 1_000_000


def save(url: str, options: dict[str, Any], end_at: str, *, is_forking: bool) -> None:
    """Save step 1 without a writer; then step 2 with one, and end at the first point whose name begins so."""
    options = {"owner": os.getpid(), **options}
    store = open_store(url, options)
    assert isinstance(store, ProcessStore)

    def at(point: str) -> None:
        if not point.startswith(end_at):
            return
        forked = os.fork() if is_forking else None
        if forked == 0:
            signal.pause()
        sys.stdout.write(json.dumps({"writer": store.writer_pid, "forked": forked}) + "\n")
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    for step in (1, 2):
        name = f"iter_{step}.pth"
        chosen = open_store(url, options, writer="thread") if step == 1 else watched(store, name, at)
        state = {"w": torch.full((ROWS,), float(step))}
        Checkpointer(chosen, run_id="run").save_sync(capture(state), name=name, step=step)


def main() -> None:
    fsspec.register_implementation("odd", "tests.checkpoint.odd_filesystem.OddFileSystem")
    order = json.loads(sys.stdin.readline())
    save(order["url"], order["options"], order["end_at"], is_forking=order["is_forking"])


if __name__ == "__main__":
    main()
