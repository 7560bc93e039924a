"""Transforms from configurations, and workers that see a changed data set."""

import os
from typing import Any

import pytest
from torch.utils.data import DataLoader, Dataset

from asynchooks.data import Compose, restart_workers
from asynchooks.registry import TRANSFORMS


@TRANSFORMS.register_module()
class AddForTests:
    """A transform with an option."""

    def __init__(self, amount: int) -> None:
        self.amount = amount

    def __call__(self, data: int) -> int:
        return data + self.amount


def test_transforms_run_in_their_order() -> None:
    pipeline = Compose([{"type": "AddForTests", "amount": 1}, lambda data: data * 10])

    assert pipeline(2) == 30
    assert Compose({"type": "AddForTests", "amount": 1})(2) == 3
    assert Compose(None)(2) == 2


def test_a_sample_that_is_dropped_goes_no_further() -> None:
    assert Compose([lambda data: None, lambda data: 1 / 0])(2) is None


@pytest.mark.parametrize(
    ("transforms", "error"),
    [
        ("AddForTests", "list of transforms"),
        (3, "list of transforms"),
        ([3], "callable or a dict"),
        ([{"type": "AddForTest"}], "Did you mean 'AddForTests'"),
        ([{"type": "AddForTests", "amonut": 1}], "Did you mean 'amount'"),
    ],
)
def test_what_is_no_transform_is_said_at_construction(transforms: Any, error: str) -> None:
    with pytest.raises((ValueError, KeyError, TypeError), match=error):
        Compose(transforms)


class Constant(Dataset[tuple[int, int]]):
    value = 0

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> tuple[int, int]:
        return self.value, os.getpid()


def test_persistent_workers_see_a_change_only_when_they_are_started_anew() -> None:
    dataset = Constant()
    loader = DataLoader(
        dataset, num_workers=1, persistent_workers=True, multiprocessing_context="spawn", batch_size=2
    )
    workers = []
    for restart in (False, True):
        workers.append({int(pid) for _, pids in loader for pid in pids})
        dataset.value = 1
        if restart:
            restart_workers(loader)
        values = {int(value) for values, _ in loader for value in values}
        assert values == {int(restart)}
    restart_workers(loader)

    restart_workers(range(3))
    assert workers[0] == workers[1]
