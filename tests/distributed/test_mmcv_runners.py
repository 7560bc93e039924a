"""MMCV's runners on ranks: one end for all."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from asynchooks.execution import RunnerHook
from asynchooks.hooks.mmcv import OptimizerHook
from asynchooks.runner import EpochBasedRunner, IterBasedRunner
from asynchooks.testing import run_ranks
from tests.distributed.runs import DATA, Net

pytestmark = pytest.mark.ranks

BATCHES = [(torch.stack([x for x, _ in DATA[i : i + 4]]), DATA[i][1]) for i in range(0, 12, 4)]


class Stops(RunnerHook):
    """Wants to stop in the second iteration, on one rank."""

    def __init__(self, *, wants: bool) -> None:
        self.wants = wants

    def after_train_iter(self, runner: Any) -> None:  # type: ignore[override]
        if self.wants and runner.iter == 1:
            runner.stop_training = True


def stops(rank: int, folder: str, kind: str) -> tuple[int, int]:
    model = DistributedDataParallel(Net())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    runner = (
        EpochBasedRunner(model, optimizer=optimizer, work_dir=folder, max_epochs=3)
        if kind == "epoch"
        else IterBasedRunner(model, optimizer=optimizer, work_dir=folder, max_iters=9)
    )
    runner.register_hook(OptimizerHook())
    runner.register_hook(Stops(wants=rank == 1))
    runner.run([BATCHES])
    return runner.epoch, runner.iter


@pytest.mark.parametrize(("kind", "end"), [("epoch", (1, 3)), ("iteration", (0, 4))])
def test_the_wish_of_one_rank_to_stop_stops_all(tmp_path: Path, kind: str, end: tuple[int, int]) -> None:
    assert run_ranks(2, stops, str(tmp_path), kind, timeout_s=20) == [end] * 2
