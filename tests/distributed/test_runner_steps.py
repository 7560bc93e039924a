"""Steps of a Runner on ranks: accumulation, clipping, averages, mixed precision."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.fsdp import fully_shard

from asynchooks.optim import AmpOptimWrapper, clip_grad_norm
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


LARGEST: dict[str, Any] = {"max_norm": 0.25, "norm_type": float("inf")}


def rows() -> nn.Sequential:
    """A model with gradients; one of its layers has fewer rows than there are ranks."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))


def backward(model: nn.Module) -> None:
    torch.autograd.backward(model(torch.ones(2, 4)).sum())


def clips(rank: int) -> Any:
    """The norm of the gradients, the gradients when they are clipped, and the norm with a NaN in one rank's part."""
    model: Any = rows()
    fully_shard(model)
    backward(model)
    norm = clip_grad_norm(list(model.parameters()), **LARGEST)
    clipped = [p.grad.full_tensor().tolist() for p in model.parameters()]
    if rank == 1:
        model[0].weight.grad.to_local().fill_(float("nan"))
    return float(norm), clipped, float(clip_grad_norm(list(model.parameters()), **LARGEST))


def overflows(rank: int) -> tuple[float, bool]:
    """Step with an inf in one rank's part of the gradients; the scale then, and whether the weights have stayed."""
    model: Any = rows()
    fully_shard(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    wrapper = AmpOptimWrapper(optimizer, {"init_scale": 8.0}, dtype="bfloat16", use_fsdp=True)
    with wrapper.optim_context(model):
        loss = model(torch.ones(2, 4)).sum()
    wrapper.backward(loss)
    if rank == 1:
        model[0].weight.grad.to_local().fill_(float("inf"))
    before = [p.to_local().clone() for p in model.parameters()]
    wrapper.step()
    stayed = all(old.equal(p.to_local()) for old, p in zip(before, model.parameters(), strict=True))
    return wrapper.loss_scaler.get_scale(), stayed


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


def test_the_infinity_norm_of_parts_is_that_of_the_whole() -> None:
    model = rows()
    backward(model)
    expected = nn.utils.clip_grad_norm_(model.parameters(), **LARGEST)

    ranks = run_ranks(2, clips)

    for norm, clipped, poisoned in ranks:
        assert norm == pytest.approx(float(expected))
        for found, parameter in zip(clipped, model.parameters(), strict=True):
            torch.testing.assert_close(torch.tensor(found), parameter.grad)
        assert math.isnan(poisoned)


def test_an_overflow_on_one_rank_skips_the_step_on_all() -> None:
    assert run_ranks(2, overflows) == [(4.0, True)] * 2
