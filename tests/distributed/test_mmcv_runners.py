"""MMCV's runners on ranks: one end for all, and checkpoints of every form to resume from."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from asynchooks.execution import RunnerHook
from asynchooks.hooks.mmcv import CheckpointHook, GradientCumulativeOptimizerHook, OptimizerHook
from asynchooks.runner import EpochBasedRunner, IterBasedRunner
from asynchooks.testing import run_ranks
from tests.distributed.runs import DATA, Net, weights

pytestmark = pytest.mark.ranks

BATCHES = [(torch.stack([x for x, _ in DATA[i : i + 4]]), DATA[i][1]) for i in range(0, 12, 4)]


class Stops(RunnerHook):
    """Wants to stop after so many iterations; never where that is None."""

    def __init__(self, after: int | None) -> None:
        self.after = after

    def before_run(self, runner: Any) -> None:
        runner.stop_training = self.after == 0

    def after_train_iter(self, runner: Any) -> None:  # type: ignore[override]
        if self.after == runner.iter + 1:
            runner.stop_training = True


def stops(rank: int, folder: str, kind: str, after: int) -> tuple[int, int]:
    model = DistributedDataParallel(Net())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    runner = (
        EpochBasedRunner(model, optimizer=optimizer, work_dir=folder, max_epochs=3)
        if kind == "epoch"
        else IterBasedRunner(model, optimizer=optimizer, work_dir=folder, max_iters=9)
    )
    runner.register_hook(OptimizerHook())
    runner.register_hook(Stops(after if rank == 1 else None))
    runner.run([BATCHES])
    return runner.epoch, runner.iter


def trains(folder: str, how: str, form: str, hook: RunnerHook, epochs: int, resume: str = "") -> Any:
    torch.manual_seed(0)
    net = Net()
    if how == "FSDP2":
        fully_shard(net.blocks[0])
    model: Any = fully_shard(net) if how == "FSDP2" else DistributedDataParallel(net)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    runner = EpochBasedRunner(model, optimizer=optimizer, work_dir=folder, max_epochs=epochs)
    runner.register_hook(hook)
    runner.register_hook(CheckpointHook(interval=1, format=form))
    if resume:
        runner.resume(f"{folder}/{resume}")
    runner.run([BATCHES])
    return weights(net)


def resumes(rank: int, folder: str, how: str, form: str, accumulates: bool) -> tuple[Any, Any]:
    """Train two epochs, and the second one again; the weights of both."""

    def hook() -> OptimizerHook:
        return GradientCumulativeOptimizerHook(2) if accumulates else OptimizerHook({"max_norm": 0.1})

    name = "epoch_1" if form == "sharded" else "epoch_1.pth"
    whole = trains(folder, how, form, hook(), 2)
    return whole, trains(folder, how, form, hook(), 2, resume=name)


@pytest.mark.parametrize(
    ("how", "form", "accumulates"),
    [
        ("DDP", "sharded", True),
        ("FSDP2", "sharded", False),
        ("FSDP2", "sharded", True),
        ("FSDP2", "single", True),
    ],
)
def test_a_run_is_resumed_from_a_checkpoint_of_either_form(
    tmp_path: Path, how: str, form: str, accumulates: bool
) -> None:
    for whole, resumed in run_ranks(2, resumes, str(tmp_path), how, form, accumulates):
        assert resumed == whole


@pytest.mark.parametrize(
    ("kind", "after", "end"),
    [("epoch", 2, (1, 3)), ("iteration", 2, (0, 4)), ("iteration", 0, (0, 0))],
)
def test_the_wish_of_one_rank_to_stop_stops_all(
    tmp_path: Path, kind: str, after: int, end: tuple[int, int]
) -> None:
    assert run_ranks(2, stops, str(tmp_path), kind, after, timeout_s=20) == [end] * 2
