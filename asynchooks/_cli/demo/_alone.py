"""The same training in one process, beside the ranks: a program of its own, since a process is a rank or is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import torch

from asynchooks._cli.demo._training import MODELS, Training
from asynchooks.errors import AsyncHooksError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["losses_of_one_process"]

_OF_RANKS = ("RANK", "WORLD_SIZE", "LOCAL_", "GROUP_", "ROLE_", "MASTER_", "TORCHELASTIC_")


def losses_of_one_process(job: Mapping[str, Any], starts: Sequence[str | None]) -> list[list[float]]:
    """Train in a new process that is no rank, once from each start; return the losses. Blocks.

    Args:
        job: "model" (a name), "device", "seed" and "batch_size" of the `Training`, torch's "threads", and "steps",
            "interval" and "options" of `Training.losses`.
        starts: URLs of checkpoints to continue from; None is the start of the training.

    Raises:
        AsyncHooksError: it has failed; with what it wrote.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_OF_RANKS)}
    done = subprocess.run(
        [sys.executable, "-m", "asynchooks._cli.demo._alone"],
        input=json.dumps({**job, "starts": starts}),
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if done.returncode:
        raise AsyncHooksError(f"the training in one process failed: {done.stderr[-2000:]}")
    losses: list[list[float]] = json.loads(done.stdout)
    return losses


def _main() -> None:
    job = json.load(sys.stdin)
    torch.set_num_threads(job["threads"])
    losses = [
        Training(MODELS[job["model"]], job["device"], job["seed"], job["batch_size"]).losses(
            job["steps"], job["interval"], resume_from=start, options=job["options"]
        )
        for start in job["starts"]
    ]
    sys.stdout.write(json.dumps(losses))


if __name__ == "__main__":
    _main()
