"""Numbers of a run that depend on how many ranks there are: iterations, weights of losses."""

from pathlib import Path
from typing import Any

import pytest
import torch

from asynchooks import Hook
from asynchooks.checkpoint import find_latest
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
