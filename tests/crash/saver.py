"""Saves one checkpoint and is stopped at a point of it. Run as a program: forks a saver for every order on stdin, and
several at once for a list of orders.

The parent imports everything once and starts no thread, so that a fork costs nothing and is safe.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from asynchooks.checkpoint import Checkpointer, KeepLast, RetentionPolicy, Store, capture, open_store
from asynchooks.errors import CheckpointError

from . import system_calls
from .points import watched

RUN_ID = "run"
FAILED = "failed: "
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

    def with_rows(self, rows: int | None) -> Scenario:
        """The same with data of another size; None changes nothing."""
        return (
            self
            if rows is None
            else replace(
                self,
                saved=replace(self.saved, rows=rows),
                before=tuple(replace(each, rows=rows) for each in self.before),
            )
        )

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
    saves = Checkpointer(store, run_id=RUN_ID)
    saves.save_sync(capture(saved.state()), name=saved.name, step=saved.step, pointer="last", keep=keep)
    saves.release_sync()


def prepare(store: Store, scenario: Scenario) -> None:
    """Save what is there before."""
    for each in scenario.before:
        save(store, each, None)


def save_and_die(order: Mapping[str, Any], descriptor: int) -> int:
    """Save; die at the point of number `kill_at`, or as `calls` says. Every point that is reached is told first."""
    scenario = SCENARIOS[order["scenario"]].with_rows(order.get("rows"))
    store = open_store(order["url"], order["options"])
    left = order.get("kill_at", -1)

    def at(point: str) -> None:
        nonlocal left
        os.write(descriptor, f"{point}\n".encode())
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    prepare(open_store(order["url"], order.get("options_before", order["options"])), scenario)
    try:
        if "calls" in order:
            system_calls.arm(order["url"], **order["calls"], tell=descriptor)
            save(store, scenario.saved, scenario.keep)
        else:
            save(watched(store, scenario.saved.name, at), scenario.saved, scenario.keep)
    except CheckpointError as error:
        text = "; ".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())])
        os.write(descriptor, f"{FAILED}{text}\n".encode())
        return 3
    return 0


def save_again_and_again(order: Mapping[str, Any]) -> int:
    """Save many times under one name, with data of these sizes in turn."""
    store, sizes = open_store(order["url"], order["options"]), order["rows"]
    saves = Checkpointer(store, run_id=RUN_ID)
    for step in range(order["replacements"]):
        saved = Saved(step, "latest.pth", sizes[step % len(sizes)])
        saves.save_sync(capture(saved.state()), name=saved.name, step=step, pointer="last", keep=KeepLast(1))
    return 0


def fork(order: Mapping[str, Any]) -> tuple[int, int]:
    """Start a saver; return its process id and where it tells its points."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os._exit(save_again_and_again(order) if "replacements" in order else save_and_die(order, writer))
    os.close(writer)
    return child, reader


def wait(child: int, reader: int) -> dict[str, Any]:
    """What a saver told, and how it ended."""
    with os.fdopen(reader) as points:
        reached = points.read().splitlines()
    return {"status": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), "points": reached}


def main() -> None:
    torch.set_num_threads(1)
    for line in sys.stdin:
        order = json.loads(line)
        orders = order if isinstance(order, list) else [order]
        answers = [wait(*started) for started in [fork(each) for each in orders]]
        sys.stdout.write(json.dumps(answers if isinstance(order, list) else answers[0]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
