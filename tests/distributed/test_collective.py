"""Averages over ranks: of what each rank has whole."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.fsdp import fully_shard

from asynchooks.distributed import all_reduce_mean
from asynchooks.hooks import SyncBuffersHook, SyncNormHook
from asynchooks.testing import run_ranks

pytestmark = pytest.mark.ranks


def averages(rank: int) -> list[int]:
    small = torch.tensor([200, 100 + 3 * rank], dtype=torch.uint8)
    all_reduce_mean([small])
    return small.tolist()


def averages_sharded(rank: int) -> list[list[float]]:
    """Average a sharded layer with an average of its weights; what its weights, average and statistics are then."""
    norm: Any = nn.BatchNorm1d(3)
    nn.init.constant_(norm.running_mean, rank)
    norm.weight.data.copy_(torch.arange(3.0))
    fully_shard(norm)
    norm.register_buffer("average", norm.weight.detach() * 2)
    run = SimpleNamespace(model=norm)
    SyncNormHook().before_val_epoch(run)
    SyncBuffersHook().after_train_epoch(run)
    return [
        norm.weight.full_tensor().tolist(),
        norm.average.full_tensor().tolist(),
        norm.running_mean.tolist(),
    ]


def test_the_mean_of_small_integers_does_not_overflow() -> None:
    assert run_ranks(2, averages) == [[200, 101]] * 2


def test_what_is_spread_over_the_ranks_is_not_averaged() -> None:
    assert run_ranks(2, averages_sharded) == [[[0.0, 1.0, 2.0], [0.0, 2.0, 4.0], [0.5, 0.5, 0.5]]] * 2
