"""Samplers, collate functions and seeds are MMEngine's: every rank gets the same samples in the same order."""

from __future__ import annotations

import itertools
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mmengine.dataset
import pytest
import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

import asynchooks.runner
from asynchooks.errors import AsyncHooksError
from asynchooks.runner import Runner
from asynchooks.runner._collate import pseudo_collate

Point = namedtuple("Point", ["x", "y"])  # noqa: PYI024 - as data sets have them


@contextmanager
def ranks(rank: int, count: int) -> Iterator[None]:
    """Be one rank of several. Nothing is exchanged, so torch's stand-in for a group will do."""
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=count)
    try:
        yield
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("round_up", [True, False])
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(("size", "count"), [(10, 1), (10, 2), (10, 3), (2, 5), (9, 4)])
def test_ranks_share_the_samples_out_alike(size: int, count: int, shuffle: bool, round_up: bool) -> None:
    for rank in range(count):
        with ranks(rank, count):
            theirs, ours = (
                module.DefaultSampler(range(size), shuffle=shuffle, seed=3, round_up=round_up)
                for module in (mmengine.dataset, asynchooks.runner)
            )
            for epoch in (0, 1, 4):
                theirs.set_epoch(epoch)
                ours.set_epoch(epoch)
                assert list(ours) == list(theirs)
                assert len(ours) == len(theirs) == len(list(ours))


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("count", [1, 3])
def test_ranks_take_turns_without_an_end(count: int, shuffle: bool) -> None:
    for rank in range(count):
        with ranks(rank, count):
            theirs, ours = (
                module.InfiniteSampler(range(7), shuffle=shuffle, seed=3)
                for module in (mmengine.dataset, asynchooks.runner)
            )

            assert list(itertools.islice(ours, 40)) == list(itertools.islice(theirs, 40))


@pytest.mark.parametrize(
    "samples",
    [
        [1, 2, 3],
        ["a", "b"],
        [(torch.ones(2), 1), (torch.zeros(3), 2)],
        [[1, "a"], [2, "b"]],
        [{"inputs": torch.ones(2), "meta": {"id": 1, "box": (1, 2)}}] * 2,
        [Point(1, torch.ones(1)), Point(2, torch.ones(1))],
    ],
    ids=str,
)
def test_samples_become_the_same_batch(samples: list[Any]) -> None:
    assert str(pseudo_collate(samples)) == str(mmengine.dataset.pseudo_collate(samples))


def loader_of(work_dir: Any, **options: Any) -> Any:
    given = {"dataset": [(torch.ones(2), index) for index in range(10)], "batch_size": 4, **options}
    return Runner(model=torch.nn.Linear(2, 1), work_dir=work_dir, val_dataloader=given).val_dataloader


def first(items: list[Any], amount: int = 1) -> list[Any]:
    return items[:amount]


def test_a_loader_from_a_dict_has_what_the_dict_names(tmp_path: Any) -> None:
    lists = next(iter(loader_of(tmp_path, collate_fn={"type": "pseudo_collate"})))
    tensors = next(iter(loader_of(tmp_path, collate_fn={"type": "default_collate"})))
    own = next(iter(loader_of(tmp_path, collate_fn={"type": first, "amount": 2})))
    batches = loader_of(
        tmp_path,
        sampler={"type": "DefaultSampler", "shuffle": False},
        batch_sampler={"type": "BatchSampler", "drop_last": True},
    )

    assert (len(lists[0]), tensors[0].shape, len(own)) == (4, (4, 2), 2)
    assert [batch[1].tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7]]


@pytest.mark.parametrize(
    ("options", "right_form"),
    [
        ({"collate_fn": {"type": "pseudo_colate"}}, "pseudo_collate"),
        ({"collate_fn": {"amount": 2}}, "type"),
        ({"batch_sampler": {"type": "BatchSampler", "drop_lats": True}}, "drop_last"),
        ({"sampler": {"type": "DefaultSampler", "round_ap": True}}, "round_up"),
        ({"batchsize": 4}, "batch_size"),
    ],
)
def test_a_slip_in_a_loaders_dict_names_the_right_form(
    tmp_path: Any, options: dict[str, Any], right_form: str
) -> None:
    with pytest.raises((AsyncHooksError, TypeError), match=right_form):
        loader_of(tmp_path, **options)


def drawn(work_dir: Any, randomness: dict[str, Any]) -> float:
    Runner(model=torch.nn.Linear(2, 1), work_dir=work_dir, randomness=randomness)
    return torch.rand(()).item()


def test_a_seed_is_every_ranks_or_its_own(tmp_path: Any) -> None:
    alone = drawn(tmp_path, {"seed": 5})
    with ranks(2, 3):
        shared = drawn(tmp_path, {"seed": 5})
        own = drawn(tmp_path, {"seed": 5, "diff_rank_seed": True})
    theirs = drawn(tmp_path, {"seed": 7})

    assert alone == shared != own == theirs


def test_deterministic_algorithms_need_no_seed(tmp_path: Any) -> None:
    before = torch.are_deterministic_algorithms_enabled()
    try:
        drawn(tmp_path, {"deterministic": True})
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(before)
