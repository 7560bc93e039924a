"""Saves one checkpoint, and kills itself at a point of it. Run as a program: forks a saver for every order on stdin.

The parent imports everything once and starts no thread, so that a fork costs nothing and is safe.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from asynchooks.checkpoint import Checkpointer, KeepLast, RetentionPolicy, Store, capture, open_store

from .points import watched

RUN_ID = "run"
SMALL, LARGE, LARGER = 10, 2_200_000, 2_300_000  # rows; a large one is two parts of an upload


@dataclass(frozen=True)
class Saved:
    """A checkpoint of `rows` numbers, each of which is its step."""

    step: int
    name: str
    rows: int = SMALL

    def state(self) -> dict[str, Any]:
        return {"state_dict": {"w": torch.full((self.rows,), float(self.step))}, "meta": {"iter": self.step}}


@dataclass(frozen=True)
class Scenario:
    """What is there before, the save that is killed, and what is there when it is not killed."""

    before: tuple[Saved, ...]
    saved: Saved
    keep: RetentionPolicy | None
    after: tuple[Saved, ...]

    @property
    def steps(self) -> dict[int, Saved]:
        """All checkpoints that ever were, by step."""
        return {each.step: each for each in (*self.before, self.saved)}


ZERO, ONE = Saved(10, "iter_10.pth"), Saved(11, "iter_11.pth")
NEW = Saved(20, "iter_20.pth", LARGE)
OLD_OF_THAT_SIZE, NEW_OF_THAT_SIZE = Saved(10, "latest.pth", LARGE), Saved(20, "latest.pth", LARGE)
NEW_AND_LARGER = Saved(20, "latest.pth", LARGER)

SCENARIOS = {
    "new": Scenario((), NEW, None, (NEW,)),
    "replace": Scenario((OLD_OF_THAT_SIZE,), NEW_OF_THAT_SIZE, KeepLast(1), (NEW_OF_THAT_SIZE,)),
    "replace, larger": Scenario((OLD_OF_THAT_SIZE,), NEW_AND_LARGER, None, (NEW_AND_LARGER,)),
    "prune": Scenario((ZERO, ONE), NEW, KeepLast(2), (ONE, NEW)),
}


def save(store: Store, saved: Saved, keep: RetentionPolicy | None) -> None:
    """One save, with pointer and pruning."""
    Checkpointer(store, run_id=RUN_ID).save_sync(
        capture(saved.state()), name=saved.name, step=saved.step, pointer="last", keep=keep
    )


def prepare(store: Store, scenario: Scenario) -> None:
    """Save what is there before."""
    for each in scenario.before:
        save(store, each, None)


def save_and_die(order: Mapping[str, Any], descriptor: int) -> None:
    """Save; die at the ordered point. Every point that is reached is told first."""
    scenario = SCENARIOS[order["scenario"]]
    store = open_store(order["url"], order["options"])
    left = order["kill_at"]

    def at(point: str) -> None:
        nonlocal left
        os.write(descriptor, f"{point}\n".encode())
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    prepare(store, scenario)
    save(watched(store, scenario.saved.name, at), scenario.saved, scenario.keep)


def main() -> None:
    torch.set_num_threads(1)
    for line in sys.stdin:
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            save_and_die(json.loads(line), writer)
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as points:
            reached = points.read().splitlines()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        sys.stdout.write(json.dumps({"status": status, "points": reached}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
