"""One of two ranks that train and evaluate in MMCV's manner. Started by a test."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from asynchooks.hooks.mmcv import CheckpointHook, DistEvalHook, OptimizerHook
from asynchooks.runner import EpochBasedRunner


class Numbers(Dataset[Tensor]):
    """Five samples; their evaluation notes the results in their order."""

    def __init__(self) -> None:
        self.evaluated: list[list[float]] = []

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> Tensor:
        return torch.full((2,), float(index))

    def evaluate(self, results: list[Tensor], logger: Any = None) -> dict[str, float]:
        self.evaluated.append([float(result) for result in results])
        return {"acc": 0.0}


class Net(nn.Module):
    """Trains by a loss; tests by returning each sample's first number."""

    def __init__(self) -> None:
        super().__init__()
        self.norm: Any = nn.BatchNorm1d(2)

    def forward(self, batch: Tensor) -> Tensor:
        return self.norm(batch).square().mean()  # type: ignore[no-any-return]

    def test_step(self, batch: Tensor) -> Tensor:
        return batch[:, 0]


def rank_main(rank: int, store: str, folder: str) -> None:
    """Run one rank."""
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    net, numbers = Net(), Numbers()
    optimizer = {"type": "SGD", "lr": 0.1}
    runner = EpochBasedRunner(model=net, optimizer=optimizer, work_dir=f"{folder}/run", max_epochs=1)
    runner.register_hook(OptimizerHook())
    runner.register_hook(CheckpointHook(interval=1, sync_buffer=True))
    part = DataLoader(numbers, batch_size=2, sampler=DistributedSampler(numbers, shuffle=False))
    runner.register_hook(DistEvalHook(part, save_best="acc"))
    data: list[Tensor] = [torch.full((2,), float(rank + i)) for i in range(4)]
    runner.run([DataLoader(data, batch_size=4)])  # type: ignore[arg-type]
    answer = {
        "rank": [runner.rank, runner.world_size],
        "evaluated": numbers.evaluated,
        "mean": net.norm.running_mean.tolist(),
    }
    Path(f"{folder}/answer.{rank}").write_text(json.dumps(answer))
    distributed.destroy_process_group()


if __name__ == "__main__":
    rank_main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
