"""A background failure is raised at the next firing or drain, its dependents are abandoned, nothing is lost."""

import logging
from typing import Any

import anyio
import pytest

from asynchooks import Effects, Hook, HookExecutor, background
from asynchooks.errors import BackgroundHookError
from asynchooks.testing import Gate


class Failing(Hook):
    effects = Effects(writes={"checkpoints"})

    def __init__(self, gate: Any = None, **attributes: Any) -> None:
        self.gate = gate
        for name, value in attributes.items():
            setattr(self, name, value)

    @background
    def after_train_epoch(self, runner: Any) -> Any:
        async def part() -> None:
            if self.gate is not None:
                await self.gate.wait()
            raise OSError("store is gone")

        return part


class Dependent(Hook):
    effects = Effects(reads={"checkpoints"})
    priority = "LOWEST"

    def __init__(self) -> None:
        self.ran: list[str] = []

    def after_train_epoch(self, runner: Any) -> None:
        self.ran.append("blocking")

    async def after_val(self, runner: Any) -> None:
        self.ran.append("async")


class Unrelated(Hook):
    effects = Effects(writes={"logs"})
    priority = "LOWEST"

    def __init__(self) -> None:
        self.ran = 0

    def after_train_epoch(self, runner: Any) -> None:
        self.ran += 1


def until_failed(executor: Any) -> None:
    """Let the failure arrive without raising it: a drain of nothing that raises would consume it."""
    while not executor._flight.attention:
        executor._flight.waits.idle(None, None)


def test_a_failure_is_raised_at_the_next_firing_before_any_hook_runs() -> None:
    unrelated = Unrelated()
    with HookExecutor([Failing(), unrelated]) as executor:
        executor.fire("after_train_epoch", None)
        until_failed(executor)
        with pytest.raises(BackgroundHookError, match=r"Failing\.after_train_epoch failed.*store is gone"):
            executor.fire("after_train_epoch", None)

    assert unrelated.ran == 1


def test_a_failure_is_raised_by_a_drain() -> None:
    with HookExecutor([Failing()]) as executor:
        executor.fire("after_train_epoch", None)
        with pytest.raises(BackgroundHookError):
            executor.drain()


def test_a_failure_that_was_not_raised_earlier_is_raised_by_close() -> None:
    executor = HookExecutor([Failing()])
    with pytest.raises(BackgroundHookError), executor:
        executor.fire("after_train_epoch", None)


def test_a_failure_never_hides_the_loops_own_exception() -> None:
    with pytest.raises(ExceptionGroup) as caught, HookExecutor([Failing()]) as executor:
        executor.fire("after_train_epoch", None)
        raise ZeroDivisionError("the loop's own")

    kinds = [type(error) for error in caught.value.exceptions]
    assert kinds == [ZeroDivisionError, BackgroundHookError]


def test_several_failures_are_raised_together() -> None:
    gate = Gate()
    with HookExecutor([Failing(gate), Failing(gate, effects=Effects(writes={"uploads"}))]) as executor:
        executor.fire("after_train_epoch", None)
        gate.open()
        with pytest.raises(ExceptionGroup, match="2 background parts failed"):
            executor.drain()


def test_background_dependents_are_abandoned_counted_and_named() -> None:
    gate = Gate()
    ran: list[str] = []

    class Publishes(Hook):
        effects = Effects(reads={"checkpoints"})
        priority = "LOWEST"

        async def after_train_epoch(self, runner: Any) -> None:
            ran.append("published")

    with HookExecutor([Failing(gate), Publishes()]) as executor:
        executor.fire("after_train_epoch", None)
        gate.open()
        with pytest.raises(BackgroundHookError, match=r"Not started because of it: Publishes\.") as caught:
            executor.drain()

    assert ran == []
    assert caught.value.abandoned == ("Publishes.after_train_epoch",)
    assert executor.statistics().of("Publishes")[0].abandoned == 1


def test_a_blocking_dependent_is_abandoned_at_its_barrier() -> None:
    gate, dependent = Gate(), Dependent()

    class OpensLate(Hook):
        effects = Effects()
        priority = 95

        def after_train_epoch(self, runner: Any) -> None:
            gate.open()

    with HookExecutor([Failing(gate), OpensLate(), dependent]) as executor:
        executor.fire("after_train_epoch", None)
        with pytest.raises(BackgroundHookError) as caught:
            executor.drain()

    assert dependent.ran == []
    assert caught.value.abandoned == ("Dependent.after_train_epoch",)


def test_after_it_was_raised_training_may_go_on() -> None:
    dependent = Dependent()
    with HookExecutor([Failing(), dependent]) as executor:
        executor.fire("after_train_epoch", None)
        with pytest.raises(BackgroundHookError):
            executor.drain()
        executor.fire("after_val", None)

    assert dependent.ran == ["async"]


def test_warn_logs_each_kind_once_counts_and_lets_dependents_run(caplog: Any) -> None:
    dependent = Dependent()
    with caplog.at_level(logging.WARNING, "asynchooks"):
        with HookExecutor([Failing(on_error="warn"), dependent]) as executor:
            for _ in range(3):
                executor.fire("after_train_epoch", None)
            assert executor.statistics().of("Failing")[0].failed == 3

    assert dependent.ran == ["blocking"] * 3
    first, summary = [record.getMessage() for record in caplog.records]
    assert "store is gone" in first
    assert "further failures of this kind are only counted" in first
    assert "failed 3 times with OSError" in summary


def test_sync_mode_raises_where_the_part_ran() -> None:
    unrelated = Unrelated()
    with HookExecutor([Failing(), unrelated], mode="sync") as executor:
        with pytest.raises(BackgroundHookError):
            executor.fire("after_train_epoch", None)

    assert unrelated.ran == 0


def test_a_failing_capture_is_the_loops_own_error() -> None:
    class Broken(Hook):
        @background
        def before_train(self, runner: Any) -> None:
            raise ValueError("cannot capture")

    with HookExecutor([Broken()]) as executor, pytest.raises(ValueError, match="cannot capture"):
        executor.fire("before_train", None)


def test_a_deferred_blocking_method_raises_on_the_training_thread_with_its_own_type() -> None:
    class Listener(Hook):
        def after_save_checkpoint(self, runner: Any, path: Any, meta: Any) -> None:
            raise LookupError("listener")

    class Firing(Hook):
        fires = ("after_save_checkpoint",)

        async def before_train(self, runner: Any) -> None:
            executor.fire_nowait("after_save_checkpoint", None, path="p", meta={})

    executor = HookExecutor([Firing(), Listener()])
    with executor:
        executor.fire("before_train", None)
        with pytest.raises(LookupError, match="listener") as caught:
            executor.drain()

    assert caught.value.__notes__ == ["Raised by Listener.after_save_checkpoint, Listener (NORMAL)."]


def test_leaving_with_an_exception_still_finishes_what_is_in_flight() -> None:
    done: list[Any] = []

    class Saving(Hook):
        async def before_train(self, runner: Any) -> None:
            await anyio.lowlevel.checkpoint()
            done.append("saved")

    with pytest.raises(ZeroDivisionError), HookExecutor([Saving()]) as executor:
        executor.fire("before_train", None)
        raise ZeroDivisionError

    assert done == ["saved"]


class Endless(Hook):
    def __init__(self, log: Any) -> None:
        self.log = log

    async def before_train(self, runner: Any) -> None:
        self.log.append("started")
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
                self.log.append("cleaned up")


def test_after_the_grace_period_in_flight_work_is_cancelled_aloud() -> None:
    log: list[Any] = []
    with pytest.raises(ExceptionGroup) as caught, HookExecutor([Endless(log)], grace_period=0.05) as executor:
        executor.fire("before_train", None)
        executor.fire("before_train", None)
        raise ZeroDivisionError

    assert log == ["started", "cleaned up"]
    own, running, waiting = caught.value.exceptions
    assert isinstance(own, ZeroDivisionError)
    assert "Endless.before_train was cancelled before it had finished" in str(running)
    assert "was cancelled" in str(waiting)


def test_a_part_that_shields_its_commit_finishes_it_when_cancelled() -> None:
    log: list[Any] = []
    gate = Gate()

    class Committing(Hook):
        async def before_train(self, runner: Any) -> None:
            with anyio.CancelScope(shield=True):
                log.append("commit begins")
                gate.open()
                await anyio.sleep(0.1)  # longer than the grace period: the point of the test
                log.append("committed")

    with pytest.raises(ZeroDivisionError), HookExecutor([Committing()], grace_period=0.01) as executor:
        executor.fire("before_train", None)
        raise ZeroDivisionError

    assert log == ["commit begins", "committed"]
