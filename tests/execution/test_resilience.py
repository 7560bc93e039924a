"""What goes wrong around a part - its instrument, its exception, its event loop - loses no work and hangs nothing."""

import asyncio
import gc
import logging
import weakref
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from asynchooks import Effects, Hook, HookExecutor, background
from asynchooks.errors import BackgroundHookError, ExecutorClosedError
from asynchooks.testing import Gate, RecordingInstrument
from tests.threads import join_threads

pytestmark = pytest.mark.timeout(20)  # what these rules forbid is a deadlock


class Counts(Hook):
    effects = Effects(writes={"counts"})

    def __init__(self) -> None:
        self.count = 0

    async def before_val(self, runner: Any) -> None:
        await anyio.lowlevel.checkpoint()
        self.count += 1


class BrokenInstrument:
    def record(self, span: Any) -> None:
        raise RuntimeError("the instrument is broken")

    def count(self, name: Any, amount: Any = 1) -> None:
        raise RuntimeError("the instrument is broken")


@pytest.mark.parametrize("mode", ["async", "sync"])
def test_an_instrument_that_raises_is_logged_once_and_loses_no_work(mode: Any, caplog: Any) -> None:
    counts = Counts()
    with HookExecutor([counts], instrument=BrokenInstrument(), mode=mode) as executor:
        for _ in range(5):
            executor.fire("before_val", None)

    assert counts.count == 5
    assert len([r for r in caplog.records if "the instrument" in r.getMessage()]) == 1


def test_a_cancellation_from_inside_fails_its_part_alone() -> None:
    class CancelsItself(Hook):
        async def before_train(self, runner: Any) -> None:
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future

    counts = Counts()
    with HookExecutor([CancelsItself(), counts]) as executor:
        executor.fire("before_train", None)
        with pytest.raises(BackgroundHookError, match="CancelledError"):
            executor.drain()
        executor.fire("before_val", None)

    assert counts.count == 1


def test_a_part_that_exits_the_program_is_a_failure_like_any_other() -> None:
    class Exits(Hook):
        async def before_train(self, runner: Any) -> None:
            raise SystemExit(3)

    counts = Counts()
    with HookExecutor([Exits(), counts]) as executor:
        executor.fire("before_train", None)
        with pytest.raises(BackgroundHookError, match="SystemExit: 3") as caught:
            executor.drain()
        executor.fire("before_val", None)

    assert isinstance(caught.value.__cause__, SystemExit)
    assert counts.count == 1


def test_when_the_event_loop_is_torn_down_a_new_one_takes_over(caplog: Any) -> None:
    class ExitsInATask(Hook):
        async def before_train(self, runner: Any) -> None:
            async def exits() -> None:
                raise SystemExit(3)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(exits)

    counts = Counts()
    with HookExecutor([ExitsInATask(), counts]) as executor:
        executor.fire("before_train", None)
        with pytest.raises(BackgroundHookError):
            executor.drain()
        for _ in range(3):
            executor.fire("before_val", None)

    assert counts.count == 3
    assert "a new one takes over" in caplog.text


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


@pytest.mark.parametrize("on_error", ["raise", "warn"])
def test_an_exception_without_a_message_is_still_told(on_error: Any, caplog: Any) -> None:
    class Fails(Hook):
        async def before_train(self, runner: Any) -> None:
            raise UnspeakableError

    Fails.on_error = on_error
    with HookExecutor([Fails()]) as executor:
        executor.fire("before_train", None)
        if on_error == "raise":
            with pytest.raises(
                BackgroundHookError, match=r"UnspeakableError: \(its message cannot be shown\)"
            ):
                executor.drain()

    assert on_error == "raise" or "Unspeakable" in caplog.text


def test_a_message_is_told_as_it_is() -> None:
    class Fails(Hook):
        async def before_train(self, runner: Any) -> None:
            raise OSError("no such file: ../data/..")

    executor = HookExecutor([Fails()])
    with pytest.raises(BackgroundHookError, match=r"OSError: no such file: \.\./data/"), executor:
        executor.fire("before_train", None)


def test_a_context_that_counts_nothing_is_not_said_to_be_at_iteration_0() -> None:
    class Fails(Hook):
        async def before_val(self, runner: Any) -> None:
            raise OSError("no space")

    executor = HookExecutor([Fails()])
    with pytest.raises(BackgroundHookError, match="after 7 training iterations") as caught, executor:
        for number in range(7):
            executor.fire("after_train_iter", None, batch_idx=number)
        executor.fire("before_val", None)

    assert (caught.value.epoch, caught.value.iter) == (None, None)


class Captured:
    """What a capture has copied."""


class Captures(Hook):
    on_error = "warn"

    def __init__(self, ends: Any) -> None:
        self.ends = ends
        self.captured: list[weakref.ref[Captured]] = []

    @background
    def before_train_iter(self, runner: Any, batch_idx: Any, data_batch: Any = None) -> Any:
        copy = Captured()
        self.captured.append(weakref.ref(copy))

        async def part() -> None:
            await anyio.to_thread.run_sync(id, copy)
            if self.ends == "failing":
                raise OSError("no space")

        return part


@pytest.fixture
def nothing_else_frees_or_keeps() -> Iterator[None]:
    """No garbage collection, and no log records, which pytest keeps with their tracebacks."""
    gc.collect()
    gc.disable()
    logging.disable()
    yield
    logging.disable(logging.NOTSET)
    gc.enable()


@pytest.mark.usefixtures("nothing_else_frees_or_keeps")
@pytest.mark.parametrize("ends", ["well", "failing"])
def test_what_was_captured_is_freed_when_its_part_has_ended(ends: Any) -> None:
    hook = Captures(ends)
    with HookExecutor([hook]) as executor:
        for number in range(5):
            executor.fire("before_train_iter", None, batch_idx=number)
        executor.drain()
        earlier = [captured() for captured in hook.captured[:-1]]
    # The last part's task and thread may still be on their way out when the drain returns.
    join_threads("AnyIO worker thread")
    assert earlier == [None] * 4
    assert hook.captured[-1]() is None


def test_a_context_that_cannot_describe_itself_leaves_nothing_reserved() -> None:
    class Indescribable:
        def hook_view(self) -> None:
            raise LookupError("no view")

    class Reserves(Hook):
        fires = ("after_save_checkpoint",)

        @background
        def before_train(self, runner: Any) -> Any:
            executor.reserve(10)

            async def part() -> None:
                executor.fire_nowait("after_save_checkpoint", Indescribable(), path="", meta={})

            return part

        @background
        def after_save_checkpoint(self, runner: Any, path: Any, meta: Any) -> Any:
            async def part() -> None:
                pass

            return part

    with HookExecutor([Reserves()]) as executor:
        with pytest.raises(LookupError, match="no view"):
            executor.fire("before_train", Indescribable())
        executor.fire("before_train", None)
        with pytest.raises(LookupError, match="no view"):
            executor.drain()
        executor.drain()
        assert executor.statistics().staged_bytes == 0
        assert executor.statistics().in_flight == 0


def test_a_deferred_hook_that_raises_while_the_executor_closes_is_not_lost() -> None:
    gate = Gate()

    class Saves(Hook):
        fires = ("after_save_checkpoint",)

        async def before_train(self, runner: Any) -> None:
            await gate.wait()
            executor.fire_nowait("after_save_checkpoint", None, path="", meta={})

    class Raises(Hook):
        def after_save_checkpoint(self, runner: Any, path: Any, meta: Any) -> None:
            raise LookupError("deferred")

    executor = HookExecutor([Saves(), Raises()])
    with pytest.raises(ExceptionGroup) as caught, executor:
        executor.fire("before_train", None)
        gate.open()
        raise ZeroDivisionError

    assert [type(error) for error in caught.value.exceptions] == [ZeroDivisionError, LookupError]


def test_a_hook_that_closes_the_executor_ends_its_firing_with_a_clear_error() -> None:
    class Closes(Hook):
        priority = "HIGHEST"

        def before_val(self, runner: Any) -> None:
            executor.close()

    with HookExecutor([Closes(), Counts()]) as executor:
        with pytest.raises(ExecutorClosedError, match="a hook of this firing has closed the executor"):
            executor.fire("before_val", None)


def test_a_background_span_tells_the_step_at_which_it_began() -> None:
    gate, instrument = Gate(), RecordingInstrument()

    class Waits(Hook):
        effects = Effects()

        async def before_train(self, runner: Any) -> None:
            await gate.wait()

    with HookExecutor([Waits()], instrument=instrument) as executor:
        executor.fire("before_train", None)
        gate.wait_reached()
        for number in range(3):
            executor.fire("after_train_iter", None, batch_idx=number)
        gate.open()

    (span,) = instrument.of("background")
    assert (span.step, span.detail["lag_steps"]) == (0, 3)
