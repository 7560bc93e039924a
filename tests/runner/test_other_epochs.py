"""A run by epochs goes on with epochs of another length, as on another number of ranks, and knows where it ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from asynchooks.hooks import CheckpointHook
from asynchooks.runner import DefaultSampler
from asynchooks.runner._data import BatchFeed

from .conftest import MakeRunner, Noisy

SAMPLES: Any = list(range(22))
LOADERS = {
    "shared": lambda: DataLoader(SAMPLES, 4, sampler=DefaultSampler(SAMPLES)),
    "drops the last": lambda: DataLoader(SAMPLES, 4, sampler=DefaultSampler(SAMPLES), drop_last=True),
    "not shared": lambda: DataLoader(SAMPLES, 4, sampler=SequentialSampler(SAMPLES)),
    "of batches": lambda: DataLoader(
        SAMPLES, batch_sampler=BatchSampler(DefaultSampler(SAMPLES), 4, drop_last=False)
    ),
}


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("done", range(9))
def test_what_other_ranks_have_left_of_a_pass_is_known_before_it_goes_on(loader: str, done: int) -> None:
    feed = BatchFeed(LOADERS[loader]())
    position = {"passes": 0, "done": done, "in_pass": True, "generators": None, "sampler_seed": None}
    feed.load_state_dict({**position, "ranks": 3, "batch_size": 1})
    left = feed.left
    feed.start_pass()

    assert len(list(feed)) == left
    assert feed.left == 0


def test_a_run_with_epochs_of_another_length_ends_with_its_last_iteration(
    make_runner: MakeRunner, tmp_path: Path
) -> None:
    make_runner(custom_hooks=[CheckpointHook(interval=1)], train_cfg={"max_epochs": 1}).train()
    resumed = make_runner(
        custom_hooks=[CheckpointHook(by_epoch=False)],
        train_dataloader=DataLoader(Noisy(), batch_size=2, shuffle=True),
        train_cfg={"max_epochs": 3},
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9}, "accumulative_counts": 4},
        resume=True,
    )
    resumed.train()

    assert resumed.iter == resumed.max_iters == 5 + 2 * 10
    assert (tmp_path / "run" / "iter_25.pth").exists()
    assert not resumed.optim_wrapper.is_accumulating
