"""MMCV's convention: methods that take the runner alone, and generic methods without a mode."""

from __future__ import annotations

from typing import Any

import pytest

from asynchooks.errors import HookDefinitionError
from asynchooks.execution import Effects, Hook, HookExecutor, RunnerHook, background


class Context:
    """Has what a hook of this convention reads."""

    def __init__(self) -> None:
        self.epoch = self.iter = self.inner_iter = 0


def fire_all(hook: Any, *points: str) -> None:
    with HookExecutor([hook]) as executor:
        for point in points:
            arguments: dict[str, Any] = {"batch_idx": 0, "data_batch": None} if "iter" in point else {}
            if point.startswith("after") and arguments:
                arguments["outputs"] = 1
            executor.fire(point, Context(), **arguments)


def test_a_method_may_take_the_runner_alone() -> None:
    calls: list[Any] = []

    class Alone(RunnerHook):
        effects = Effects()

        def after_train_iter(self, runner: Any) -> None:  # type: ignore[override]
            calls.append(type(runner).__name__)

        def after_val_epoch(self, runner: Any, quiet: bool = False) -> None:  # type: ignore[override]
            calls.append(quiet)

    hook = Alone()
    with HookExecutor([hook]) as executor:
        executor.fire("after_train_iter", Context(), batch_idx=0, data_batch=None, outputs=1)
        executor.fire("after_train_iter", Context(), batch_idx=0, more=2)
        executor.fire("after_val_epoch", Context(), metrics={})

    assert calls == ["Context", "Context", False]


def test_a_method_that_takes_the_arguments_gets_them() -> None:
    calls: list[Any] = []

    class Arguments(RunnerHook):
        effects = Effects()

        def after_train_iter(  # type: ignore[override]
            self, runner: Any, batch_idx: int = -1, **others: Any
        ) -> None:
            calls.append((batch_idx, others))

    fire_all(Arguments(), "after_train_iter")

    assert calls == [(0, {"data_batch": None, "outputs": 1})]


def test_the_shape_still_says_where_a_method_runs() -> None:
    calls: list[str] = []

    class Shapes(RunnerHook):
        effects = Effects(writes={"list"})

        @background
        def before_iter(self, runner: Any) -> Any:
            calls.append("capture")

            async def part() -> None:
                calls.append("part")

            return part

        async def after_iter(self, runner: Any) -> None:
            calls.append(f"async {type(runner).__name__}")

    fire_all(Shapes(), "before_train_iter", "after_val_iter")

    assert calls == ["capture", "part", "async RunnerView"]


def test_what_is_not_overridden_is_not_called() -> None:
    class Nothing(RunnerHook):
        def after_epoch(self, runner: Any) -> None:
            """Be called after epochs."""

    hook = Nothing()
    executor = HookExecutor([hook])

    assert hook.get_triggered_stages() == ["after_train_epoch", "after_val_epoch"]
    assert [bool(executor.plan(point).steps) for point in ("before_train_iter", "after_val_epoch")] == [
        False,
        True,
    ]
    assert executor.plan("after_test_epoch").steps == ()


def test_the_delegates_may_be_called_directly() -> None:
    calls: list[Any] = []

    class Generic(RunnerHook):
        def after_iter(self, runner: Any) -> None:
            calls.append(runner)

        def after_train_iter(self, runner: Any) -> None:  # type: ignore[override]
            super().after_train_iter(runner)
            calls.append("own")

    Generic().after_train_iter(5)
    Generic().after_val_iter(6)

    assert calls == [5, "own", 6]


def test_a_function_set_on_the_instance_is_the_method() -> None:
    calls: list[Any] = []
    hook = RunnerHook()
    hook.after_iter = lambda runner: calls.append("generic")  # type: ignore[method-assign]
    hook.after_val_iter = lambda runner: calls.append("own")  # type: ignore[method-assign]

    fire_all(hook, "after_train_iter", "after_val_iter")

    assert calls == ["generic", "own"]


def test_an_object_of_no_base_may_name_the_convention() -> None:
    class Duck:
        convention = "mmcv"
        effects = Effects()

        def __init__(self) -> None:
            self.calls = 0

        def after_iter(self, runner: Any) -> None:
            self.calls += 1

    duck = Duck()
    fire_all(duck, "after_train_iter", "after_val_iter", "after_test_iter")

    assert duck.calls == 2


def test_a_method_that_fits_neither_way_is_refused() -> None:
    class Wrong(RunnerHook):
        def after_train_iter(self, runner: Any, batch: Any) -> None:  # type: ignore[override]
            """Take what nobody gives."""

    class Generator(RunnerHook):
        def after_train_iter(self, runner: Any) -> Any:  # type: ignore[override]
            yield

    for hook, match in (
        (Wrong(), "cannot be called as this point is fired"),
        (Generator(), "is a generator"),
    ):
        with pytest.raises(HookDefinitionError, match=match):
            HookExecutor([hook])


def test_without_the_convention_the_arguments_must_fit() -> None:
    class Alone(Hook):
        def after_train_iter(self, runner: Any) -> None:  # type: ignore[override]
            """Take too little."""

    with pytest.raises(HookDefinitionError, match="cannot be called as this point is fired"):
        HookExecutor([Alone()])


@pytest.mark.parametrize(
    ("counters", "every", "expected"),
    [
        ((0, 0, 0), 1, True),
        ((1, 1, 1), 2, True),
        ((1, 1, 1), 3, False),
        ((1, 1, 1), 0, False),
        ((1, 1, 1), -1, False),
    ],
)
def test_intervals_count_from_one(counters: tuple[int, int, int], every: int, expected: bool) -> None:
    runner = Context()
    runner.epoch, runner.iter, runner.inner_iter = counters

    hook = RunnerHook()
    results = {
        hook.every_n_epochs(runner, every),
        hook.every_n_iters(runner, every),
        hook.every_n_inner_iters(runner, every),
    }
    assert results == {expected}


def test_ends_are_those_of_the_loader_and_the_run() -> None:
    runner: Any = Context()
    runner.data_loader, runner.max_epochs, runner.max_iters = [1], 1, 2

    hook = RunnerHook()
    assert (hook.end_of_epoch(runner), hook.is_last_epoch(runner), hook.is_last_iter(runner)) == (
        True,
        True,
        False,
    )
