"""Within a grace period work is given up in order of priority, the checkpoint last."""

import threading
import time
from typing import Any

import anyio
import pytest

from asynchooks import Effects, Hook, HookExecutor
from asynchooks.errors import BackgroundHookError, Preempted, RankFailedError


class Uploads(Hook):
    effects = Effects(writes={"images"})

    def __init__(self, ended: list[str]) -> None:
        self.ended = ended

    async def before_train(self, runner: Any) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            self.ended.append(type(self).__name__)


class Logs(Uploads):
    effects = Effects(writes={"logs"})
    priority = "VERY_LOW"


class Saves(Uploads):
    effects = Effects(writes={"checkpoints"})
    priority = "VERY_LOW"

    async def before_train(self, runner: Any) -> None:
        while len(self.ended) < 2:  # noqa: ASYNC110 - what it waits for is the end of others
            await anyio.sleep(0.005)
        self.ended.append("Saves")


class Converts(Uploads):
    effects: Any = None
    priority = "VERY_HIGH"

    async def before_train(self, runner: Any) -> None:
        await anyio.sleep(0.15)
        self.ended.append("Converts")


def preempted(seconds: float) -> Preempted:
    return Preempted(75, reason="SIGTERM", deadline=time.monotonic() + seconds)


def test_a_save_gets_the_last_of_the_time_and_the_lowest_priority_goes_first() -> None:
    ended: list[str] = []
    with (
        pytest.raises(Preempted) as caught,
        HookExecutor([Uploads(ended), Logs(ended), Saves(ended)]) as executor,
    ):
        executor.fire("before_train", None)
        raise preempted(0.4)

    assert ended == ["Logs", "Uploads", "Saves"]
    assert caught.value.code == 75
    assert set(caught.value.given_up) == {"Logs.before_train", "Uploads.before_train"}


class Writes(Hook):
    """Runs in a worker thread, which nothing can cancel, until a save has ended."""

    effects = Effects(writes={"logs"})
    priority = "VERY_LOW"

    def __init__(self, has_ended: threading.Event) -> None:
        self.has_ended = has_ended
        self.is_first = False

    def before_train(self, runner: Any) -> None:
        self.is_first = not self.has_ended.wait(2)  # a bound for the test alone


class EndsLast(Hook):
    """A save that ends when the others have, or is cancelled."""

    effects = Effects(writes={"checkpoints"})

    def __init__(self, others: list[str], has_ended: threading.Event) -> None:
        self.others = others
        self.has_ended = has_ended

    async def before_train(self, runner: Any) -> None:
        try:
            with anyio.move_on_after(3):  # a bound for the test alone
                while not self.others:  # noqa: ASYNC110 - what it waits for is the end of others
                    await anyio.sleep(0.005)
        finally:
            self.has_ended.set()


def given_up_beside_a_thread(seconds: float, ended: list[str], *others: Hook) -> tuple[str, ...]:
    """Preempt a run in which a save and a part that cannot be cancelled are in flight; what is given up."""
    has_ended = threading.Event()
    executor = HookExecutor([EndsLast(ended, has_ended), *others])
    thread = Writes(has_ended)
    executor.register(thread, mode="background")
    with pytest.raises(Preempted) as caught, executor:
        executor.fire("before_train", None)
        raise preempted(seconds)
    assert not thread.is_first
    return caught.value.given_up


def test_a_save_is_cancelled_when_the_time_is_up_although_a_thread_goes_on() -> None:
    assert given_up_beside_a_thread(0.1, []) == ("EndsLast.before_train",)


def test_what_cannot_be_cancelled_keeps_nothing_else_from_being_given_up() -> None:
    ended: list[str] = []
    assert given_up_beside_a_thread(1.0, ended, Uploads(ended)) == ("Uploads.before_train",)


def test_what_a_save_waits_for_is_given_up_no_earlier_than_the_save() -> None:
    ended: list[str] = ["", ""]
    with pytest.raises(Preempted) as caught, HookExecutor([Converts(ended), Saves(ended)]) as executor:
        executor.fire("before_train", None)
        raise preempted(0.2)

    assert ended[2:] == ["Converts", "Saves"]
    assert caught.value.given_up == ()


def test_a_save_that_does_not_fit_is_named() -> None:
    with pytest.raises(Preempted) as caught, HookExecutor([Saves([])]) as executor:
        executor.fire("before_train", None)
        raise preempted(0.05)

    assert caught.value.given_up == ("Saves.before_train",)


def test_without_a_save_in_flight_everything_has_the_whole_grace_period() -> None:
    ended: list[str] = []
    with (
        pytest.raises(ExceptionGroup) as caught,
        HookExecutor([Converts(ended), Uploads(ended)], grace_period=0.2) as executor,
    ):
        executor.fire("before_train", None)
        raise ZeroDivisionError

    assert ended == ["Converts", "Uploads"]
    assert caught.group_contains(BackgroundHookError, match="cancelled")


def test_a_failure_beside_a_preemption_is_not_lost() -> None:
    class Fails(Hook):
        effects = Effects(writes={"logs"})

        async def before_train(self, runner: Any) -> None:
            raise OSError("disk is gone")

    with pytest.raises(BaseExceptionGroup) as caught, HookExecutor([Fails()]) as executor:
        executor.fire("before_train", None)
        raise preempted(5)

    assert caught.group_contains(Preempted)
    assert caught.group_contains(BackgroundHookError, match="disk is gone")


def test_what_another_rank_has_given_up_is_given_up_here() -> None:
    class Meets(Hook):
        effects = Effects(writes={"checkpoints"})

        async def before_train(self, runner: Any) -> None:
            raise RankFailedError("rank 1 failed: its save was cancelled", rank=1, is_cancelled=True)

    with pytest.raises(Preempted) as caught, HookExecutor([Meets()]) as executor:
        executor.fire("before_train", None)
        raise preempted(5)

    assert caught.value.given_up == ("Meets.before_train",)
