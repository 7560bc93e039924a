"""Steps of a Runner on ranks: accumulation, clipping, averages, mixed precision."""

from pathlib import Path
from typing import Any

import pytest
import torch

from asynchooks.testing import run_ranks
from tests.distributed.runs import DATA, Net, StepNet, run_of, seeded, trained

pytestmark = pytest.mark.ranks

ACCUMULATES = {"optimizer": {"type": "SGD", "lr": 0.1}, "accumulative_counts": 3}
EMA = {"type": "EMAHook", "momentum": 0.25}


def counts_reductions(rank: int, folder: str, strategy: str, own_step: bool) -> Any:
    name = "all_reduce" if strategy == "DDP" else "reduce_scatter"
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, record_shapes=True) as profile:
        outcome = trained(
            folder,
            model=seeded(StepNet if own_step else Net),
            strategy={"type": strategy, **({"broadcast_buffers": False} if strategy == "DDP" else {})},
            optim_wrapper=ACCUMULATES,
            train_cfg={"by_epoch": False, "max_iters": 6},
        )
    found = [event.input_shapes for event in profile.events() if name in event.name]
    return sum(shapes != [[1]] for shapes in found), *outcome  # a vote has one number


def averages(rank: int, folder: str, strategy: str | None, batch_size: int) -> Any:
    """Train, save, and validate with a moving average; then resume and validate again."""
    options: dict[str, Any] = {
        "strategy": strategy and {"type": strategy},
        "batch_size": batch_size,
        "default_hooks": {"checkpoint": {"type": "CheckpointHook", "interval": 1}, "logger": None},
        "val_dataloader": {"dataset": DATA[:23], "batch_size": 3},
        "custom_hooks": [EMA],
    }
    _, whole, metrics = trained(folder, **options)
    runner = run_of(folder, resume=True, **{**options, "train_cfg": {"by_epoch": True, "max_epochs": 3}})
    runner.train()
    return metrics, dict(runner.metrics), whole


def trains_in_bf16(rank: int, folder: str, strategy: str) -> Any:
    wrapper = {
        "type": "AmpOptimWrapper",
        "dtype": "bfloat16",
        "optimizer": {"type": "SGD", "lr": 0.1},
        "clip_grad": {"max_norm": 0.5},
    }
    return trained(folder, strategy={"type": strategy}, optim_wrapper=wrapper)


@pytest.mark.parametrize("own_step", [False, True], ids=["forward", "train_step"])
@pytest.mark.parametrize(("strategy", "per_step"), [("DDP", 1), ("FSDP2", 3)])
def test_gradients_are_exchanged_once_for_losses_that_share_a_step(
    tmp_path: Path, strategy: str, per_step: int, own_step: bool
) -> None:
    iterations = {"by_epoch": False, "max_iters": 6}
    one = trained(tmp_path / "one", batch_size=8, optim_wrapper=ACCUMULATES, train_cfg=iterations)

    ranks = run_ranks(2, counts_reductions, str(tmp_path / "two"), strategy, own_step, with_group=False)

    assert [rank[0] for rank in ranks] == [2 * per_step] * 2  # two blocks and the rest, where it is sharded
    for name, numbers in one[1].items():
        assert ranks[1][2][name] == pytest.approx(numbers, abs=1e-6), name


@pytest.mark.parametrize("strategy", ["DDP", "FSDP2"])
def test_an_average_of_the_weights_is_the_same_on_ranks(tmp_path: Path, strategy: str) -> None:
    one = averages(0, str(tmp_path / "one"), None, 8)

    ranks = run_ranks(2, averages, str(tmp_path / "two"), strategy, 4, with_group=False)

    assert ranks[0] == ranks[1]
    for metrics, expected in zip(ranks[0][:2], one[:2], strict=True):
        assert metrics == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("strategy", ["DDP", "FSDP2"])
def test_mixed_precision_trains_alike_on_ranks(tmp_path: Path, strategy: str) -> None:
    first, second = run_ranks(2, trains_in_bf16, str(tmp_path), strategy, with_group=False)

    assert first[1] == second[1]
