"""One of two ranks, with a normalization layer: what it holds after both hooks. Started by a test."""

import json
import random
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from torch import distributed as dist
from torch import nn

from asynchooks.hooks import SyncNormHook, SyncRandomSizeHook


class Resizable:
    """A data set that is told a size."""

    sizes: list[tuple[int, int]]

    def __init__(self) -> None:
        self.sizes = []

    def update_dynamic_scale(self, size: tuple[int, int]) -> None:
        self.sizes.append(size)


def rank_main(rank: int, store: str, answers: str) -> None:
    """Run both hooks on one rank."""
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    norm: Any = nn.BatchNorm1d(2)
    linear: Any = nn.Linear(2, 2)
    model = nn.Sequential(linear, norm)
    norm.running_mean.fill_(float(rank))
    norm.num_batches_tracked.fill_(4 + 2 * rank)
    nn.init.constant_(linear.weight, float(rank))
    random.seed(rank)
    warnings.simplefilter("ignore", DeprecationWarning)
    dataset = Resizable()
    run: Any = SimpleNamespace(model=model, epoch=0, train_dataloader=SimpleNamespace(dataset=dataset))
    SyncNormHook().before_val_epoch(run)
    hook = SyncRandomSizeHook(device="cpu", img_scale=(640, 320))
    hook.before_train(run)
    hook.after_train_epoch(run)
    answer = {
        "mean": norm.running_mean.tolist(),
        "batches": int(norm.num_batches_tracked),
        "linear": linear.weight.flatten().tolist(),
        "sizes": dataset.sizes,
    }
    Path(f"{answers}.{rank}").write_text(json.dumps(answer))
    dist.destroy_process_group()


if __name__ == "__main__":
    rank_main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
