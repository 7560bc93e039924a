"""With an agreement, a background failure is held until all processes raise together."""

from typing import Any

import pytest

from asynchooks import Effects, Hook, HookExecutor, background
from asynchooks.errors import BackgroundHookError
from asynchooks.execution import Agreement


class Agrees:
    """Says what a test wants, and notes what it was asked."""

    points = frozenset({"after_train_iter"})

    def __init__(self, foreign: Exception | None = None) -> None:
        self.foreign = foreign
        self.is_time = False
        self.asked: list[tuple[str, bool]] = []

    def is_due(self, place: str, *, has_failed: bool) -> bool:
        self.asked.append((place, has_failed))
        return self.is_time

    def joint(self, own: Exception | None) -> Exception | None:
        return own or self.foreign


class Failing(Hook):
    effects = Effects(writes={"checkpoints"})

    def __init__(self) -> None:
        self.captured = self.saved = 0

    @background
    def before_train(self, runner: Any) -> Any:
        self.captured += 1

        async def part() -> None:
            if self.captured == 1:
                raise OSError("store is gone")
            self.saved += 1

        return part


def held(agreement: Agreement) -> tuple[HookExecutor, Failing]:
    """An open executor that holds a failure."""
    hook = Failing()
    executor = HookExecutor([hook])
    executor.agree_through(agreement)
    executor.__enter__()
    executor.fire("before_train", None)
    executor.drain(resources={"checkpoints"})  # one process alone may do this: it raises nothing
    return executor, hook


def test_a_held_failure_is_raised_at_an_agreed_point_alone() -> None:
    agreement = Agrees()
    executor, _ = held(agreement)
    executor.fire("after_train_iter", None, batch_idx=0)
    agreement.is_time = True
    executor.fire("before_val", None)
    with pytest.raises(BackgroundHookError, match="store is gone"):
        executor.fire("after_train_iter", None, batch_idx=1)
    executor.close()

    assert agreement.asked == [("after_train_iter", True), ("after_train_iter", True), ("close", False)]


def test_what_must_follow_a_held_failure_is_captured_and_never_started() -> None:
    agreement = Agrees()
    executor, hook = held(agreement)
    executor.fire("before_train", None)  # captures may hold collectives: every process runs them
    agreement.is_time = True
    with pytest.raises(BackgroundHookError, match=r"Not started because of it: Failing\."):
        executor.drain()
    executor.close()

    assert (hook.captured, hook.saved) == (2, 0)
    assert executor.statistics().of("Failing")[0].abandoned == 1


def test_a_blocking_method_runs_although_what_it_follows_has_failed() -> None:
    class Uploads(Hook):
        async def before_train(self, runner: Any) -> None:
            raise OSError("store is gone")

    class Reduces(Hook):  # in a collective, which every process has to enter
        priority = "LOW"
        calls = 0

        def before_train(self, runner: Any) -> None:
            self.calls += 1

    agreement, reduces = Agrees(), Reduces()
    executor = HookExecutor([Uploads(), reduces])
    executor.agree_through(agreement)
    with executor:
        executor.fire("before_train", None)
        agreement.is_time = True
        with pytest.raises(BackgroundHookError, match="store is gone") as raised:
            executor.fire("after_train_iter", None, batch_idx=0)

    assert reduces.calls == 1
    assert raised.value.abandoned == ()


def test_a_failure_elsewhere_is_raised_here() -> None:
    agreement = Agrees(foreign=RuntimeError("rank 1: store is gone"))
    agreement.is_time = True
    executor = HookExecutor()
    executor.agree_through(agreement)
    with pytest.raises(RuntimeError, match="rank 1"), executor:
        executor.fire("after_train_iter", None, batch_idx=0)
        pytest.fail("raised by the firing")


def test_a_failure_nobody_agreed_on_is_raised_by_close_at_the_latest() -> None:
    executor, _ = held(Agrees())
    with pytest.raises(BackgroundHookError, match="store is gone"):
        executor.close()


def test_an_error_of_the_training_thread_is_raised_at_once() -> None:
    class Blocks(Hook):
        def before_train(self, runner: Any) -> None:
            raise ZeroDivisionError("its own")

    agreement = Agrees()
    executor = HookExecutor([Blocks()])
    executor.agree_through(agreement)
    with pytest.raises(ZeroDivisionError), executor:
        executor.fire("before_train", None)

    assert agreement.asked == []  # nor at the close: the others are elsewhere


def test_a_failure_held_in_sync_mode_waits_too() -> None:
    agreement = Agrees()
    executor = HookExecutor([Failing()], mode="sync")
    executor.agree_through(agreement)
    with executor:
        executor.fire("before_train", None)
        agreement.is_time = True
        with pytest.raises(BackgroundHookError):
            executor.fire("after_train_iter", None, batch_idx=0)
