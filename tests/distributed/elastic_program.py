"""A training for ``torchrun``, one rank of which kills itself once, when there is a checkpoint to go on from."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from asynchooks import Hook
from tests.distributed.runs import run_of, weights


class Dies(Hook):
    """Kills rank 1 at its fifth iteration, the first time."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if runner.iter == 4 and os.environ["RANK"] == "1" and not self.marker.exists():
            while not list(self.marker.parent.glob("epoch_1.pth.manifest.json")):
                time.sleep(0.01)  # a save in the background
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def main(folder: Path) -> None:
    """Train to the end, and write the weights. Nobody is killed where the folder says that somebody was."""
    runner = run_of(
        folder,
        default_hooks={"logger": None, "checkpoint": {"type": "CheckpointHook", "interval": 1}},
        custom_hooks=[Dies(folder / "was_killed")],
        resume="auto",
    )
    runner.train()
    whole = weights(runner.model)
    if os.environ["RANK"] == "0":
        torch.save(whole, folder / "weights.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
