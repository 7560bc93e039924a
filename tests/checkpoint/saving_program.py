"""A run in a process of its own: does to one folder what its standard input says, and answers with the outcome."""

import json
import os
import sys
from typing import Any

import torch

from asynchooks.checkpoint import Checkpointer, capture
from asynchooks.errors import CheckpointError


def act(saves: Checkpointer, what: str, step: int) -> None:
    if what == "check":
        saves.check_sync()
    elif what == "save":
        saves.save_sync(capture({"w": torch.full((4,), float(step))}), name=f"iter_{step}.pth", step=step)
    else:
        saves.release_sync()


def outcome(saves: Checkpointer, what: str, step: int) -> str:
    try:
        act(saves, what, step)
    except CheckpointError as error:
        return f"{type(error).__name__}: {error}"
    return "done"


def outcome_in_child(saves: Checkpointer, what: str, step: int) -> str:
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.write(writer, outcome(saves, what, step).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return said


def main() -> None:
    torch.set_num_threads(1)
    order: dict[str, Any] = json.loads(sys.argv[1])
    saves = Checkpointer(order["url"], storage_options=order["options"], run_id=order["run_id"])
    for line in sys.stdin:
        where, what, step = line.split()
        said = (outcome_in_child if where == "child" else outcome)(saves, what, int(step))
        sys.stdout.write(said.replace("\n", " ") + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
