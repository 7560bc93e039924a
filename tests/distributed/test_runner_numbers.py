"""Numbers of a run that depend on how many ranks there are: iterations, means, norms."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import distribute_tensor

from asynchooks import Hook
from asynchooks.checkpoint import find_latest
from asynchooks.distributed import all_reduce_mean
from asynchooks.optim._parallel import clip_grad_norm
from asynchooks.testing import run_ranks
from tests.distributed.runs import run_of

pytestmark = pytest.mark.ranks


class Weighs(Hook):
    """Keeps how many iterations the run is to have, and what a loss counts in its group."""

    def __init__(self) -> None:
        self.values: list[tuple[int, int | None, float]] = []

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        weight = float(runner.optim_wrapper.scale_loss(torch.tensor(1.0)))
        self.values.append((runner.iter, runner.max_iters, weight))


def accumulates(rank: int, folder: str, max_epochs: int) -> list[tuple[int, int | None, float]]:
    hook = Weighs()
    run_of(
        folder,
        train_cfg={"by_epoch": True, "max_epochs": max_epochs},
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.1}, "accumulative_counts": 2},
        custom_hooks=[hook],
        default_hooks={
            "checkpoint": {"type": "CheckpointHook", "by_epoch": False, "interval": 2},
            "logger": None,
        },
        resume=True,
    ).train()
    return hook.values


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_a_run_of_epochs_ends_where_other_ranks_end_it_and_its_last_state_is_saved(
    tmp_path: Path, before: int, after: int
) -> None:
    (first, *_) = run_ranks(before, accumulates, str(tmp_path), 1, with_group=False)
    (second, *_) = run_ranks(after, accumulates, str(tmp_path), 3, with_group=False)

    last, end = second[-1][0] + 1, second[-1][1]
    assert last == end == len(first) + len(second)
    assert {end for _, end, _ in second} == {last}
    assert [weight for number, _, weight in second if number < last - last % 2] == [0.5] * (
        len(second) - last % 2
    )
    assert find_latest(tmp_path).step == last  # type: ignore[union-attr] # there is one


def means(rank: int) -> list[list[float]]:
    small = torch.tensor([200, 3 + rank], dtype=torch.uint8)
    real = torch.tensor([1.0 + rank])
    parts = distribute_tensor(torch.arange(4.0), init_device_mesh("cpu", (2,)))
    all_reduce_mean([small, parts, real])
    return [small.tolist(), real.tolist(), parts.full_tensor().tolist()]


def test_a_mean_of_small_integers_fits_and_parts_stay_as_they_are() -> None:
    assert run_ranks(2, means) == [[[200, 3], [1.5], [0.0, 1.0, 2.0, 3.0]]] * 2


def clips(rank: int) -> tuple[float, float]:
    model = nn.Linear(4, 1)  # one row for two ranks
    fully_shard(model)
    parts: list[Any] = list(model.parameters())
    for part in parts:
        part.grad = distribute_tensor(torch.full(part.shape, -8.0), part.device_mesh, part.placements)
    norm = clip_grad_norm(parts, max_norm=2.0, norm_type=math.inf)
    return float(norm), float(parts[0].grad.full_tensor().min())


def test_a_rank_without_a_part_of_a_gradient_takes_part_in_the_infinity_norm() -> None:
    for norm, clipped in run_ranks(2, clips):
        assert norm == 8
        assert clipped == pytest.approx(-2, rel=1e-5)
