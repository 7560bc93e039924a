"""What a firing hands to hooks does not depend on the path that it takes through the executor."""

from __future__ import annotations

from typing import Any

import pytest

from asynchooks.errors import ExecutorClosedError
from asynchooks.execution import Effects, Hook, HookExecutor


class Keeper(Hook):
    effects = Effects()

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []

    def before_train_iter(self, runner: Any, **arguments: Any) -> None:  # type: ignore[override]
        self.got.append(arguments)

    def after_train_iter(self, runner: Any, **arguments: Any) -> None:  # type: ignore[override]
        self.got.append(arguments)

    def after_val_epoch(self, runner: Any, **arguments: Any) -> None:  # type: ignore[override]
        self.got.append(arguments)

    def custom_point(self, runner: Any, **arguments: Any) -> None:
        self.got.append(arguments)


@pytest.mark.parametrize(
    ("point", "arguments"),
    [
        ("before_train_iter", {"batch_idx": 0, "data_batch": None}),
        ("after_train_iter", {"batch_idx": 0, "data_batch": None, "outputs": None}),
        ("after_train_iter", {"batch_idx": 0, "data_batch": None}),
        ("after_train_iter", {"batch_idx": 0, "outputs": 1}),
        ("after_train_iter", {"batch_idx": 0}),
        ("after_train_iter", {"batch_idx": 0, "data_batch": 1, "outputs": 2, "more": 3}),
        ("after_val_epoch", {"metrics": {"loss": 1.0}}),
        ("custom_point", {"outputs": 1, "anything": 2}),
        ("custom_point", {}),
    ],
)
def test_a_hook_gets_exactly_the_arguments_of_the_firing(point: str, arguments: dict[str, Any]) -> None:
    keeper = Keeper()
    with HookExecutor([keeper]) as executor:
        executor.fire(point, object(), **arguments)

    assert keeper.got == [arguments]


def test_an_error_names_its_hook_on_the_fast_path_too() -> None:
    class Broken(Hook):
        effects = Effects()

        def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
            raise ValueError("broken")

    with HookExecutor([Keeper(), Broken()]) as executor, pytest.raises(ValueError, match="broken") as raised:
        executor.fire("before_train_iter", object(), batch_idx=0, data_batch=None)

    assert "Broken" in "".join(raised.value.__notes__)


def test_a_closed_executor_refuses_a_point_at_which_nothing_happens() -> None:
    executor = HookExecutor([Keeper()])
    with executor:
        executor.fire("before_val", object())

    with pytest.raises(ExecutorClosedError):
        executor.fire("before_val", object())


def test_a_hook_registered_later_is_called_at_a_point_that_was_idle() -> None:
    keeper = Keeper()
    with HookExecutor() as executor:
        executor.fire("before_train_iter", object(), batch_idx=0, data_batch=None)
        executor.register(keeper)
        executor.fire("before_train_iter", object(), batch_idx=1, data_batch=None)

    assert [got["batch_idx"] for got in keeper.got] == [1]
