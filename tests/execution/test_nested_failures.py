"""What is in the middle of the order when something fails, or asks for room: told there, and not too early."""

from typing import Any

import pytest

from asynchooks import Effects, Hook, HookExecutor, background, current_executor
from asynchooks.errors import BackgroundHookError, ExecutorError, WrongThreadError
from asynchooks.testing import Gate, RecordingInstrument

from .nesting import Inner, Listens, Saves, both_modes

pytestmark = pytest.mark.timeout(20)  # what these rules forbid is a deadlock


@both_modes
def test_a_conflict_is_seen_at_points_that_nobody_declared(mode: Any) -> None:
    gate = Gate()
    log: list[str] = []
    if mode == "sync":
        gate.open()

    class Custom(Hook):
        effects = Effects(writes={"reports"})

        async def on_my_point(self, runner: Any) -> None:
            await gate.wait()
            log.append("written")

    class Reads(Hook):
        effects = Effects(reads={"reports"})

        def before_val(self, runner: Any) -> None:
            log.append("read")

    class Opens(Hook):
        effects = Effects()

        def before_train(self, runner: Any) -> None:
            gate.open()

    with HookExecutor([Custom(), Reads(), Opens()], mode=mode) as executor:
        executor.fire("before_val", None)
        executor.fire("on_my_point", None)
        executor.fire("before_train", None)
        executor.fire("before_val", None)

    assert log == ["read", "written", "read"]


def test_a_drain_of_a_resource_waits_for_listeners_that_declare_nothing() -> None:
    gate = Gate()
    log: list[str] = []

    class Unknown(Hook):
        async def after_save_checkpoint(self, runner: Any, path: Any, meta: Any) -> None:
            log.append("told")

    class Opens(Hook):
        effects = Effects(writes={"other"})

        async def before_train(self, runner: Any) -> None:
            gate.open()

    with HookExecutor([Saves(gate), Unknown(), Opens()]) as executor:
        executor.fire("before_train_iter", None, batch_idx=0)
        executor.fire("before_train", None)
        executor.drain({"uploads"})
        assert log == ["told"]


def test_what_a_deferred_hook_that_raises_leaves_undone_is_named() -> None:
    class Raises(Listens):
        def after_save_checkpoint(self, runner: Any, path: Any, meta: Any) -> None:
            raise LookupError("no listener")

    class After(Hook):
        priority = "LOWEST"
        effects = Effects(reads={"uploads"})

        async def after_save_checkpoint(self, runner: Any, path: Any, meta: Any) -> None:
            raise AssertionError("must not start")

    with HookExecutor([Saves(), Raises("", []), After()]) as executor:
        executor.fire("before_train_iter", None, batch_idx=0)
        with pytest.raises(LookupError) as caught:
            executor.drain()

    assert "Not started because of it: After.after_save_checkpoint." in caught.value.__notes__


def test_a_deferred_hook_is_not_told_what_failed_after_it() -> None:
    gate = Gate()
    log: list[str] = []

    class Fails(Hook):
        effects = Effects(writes={"late"})

        async def before_train(self, runner: Any) -> None:
            raise OSError("no space")

    def fires(executor: Any) -> None:
        executor.fire("inner", None)

    hooks = [Saves(gate), Listens("saved", log, fires), Inner(log), Fails()]
    with pytest.raises(BackgroundHookError, match="no space"):
        with HookExecutor(hooks, points=["inner"]) as executor:
            executor.fire("before_train_iter", None, batch_idx=0)
            executor.fire("before_train", None)
            executor._flight.waits.idle({"late"}, None)  # it has failed, and nobody was told
            gate.open()

    assert sorted(log) == ["inner", "saved begins", "saved ends"], "as an inline run leaves it"


def test_an_error_that_is_told_inside_a_hook_is_not_blamed_on_it() -> None:
    gate = Gate()

    class Fails(Hook):
        effects = Effects()

        async def before_train(self, runner: Any) -> None:
            await gate.wait()
            raise OSError("no space")

    class Outer(Hook):
        effects = Effects()

        def before_val(self, runner: Any) -> None:
            gate.open()
            while not executor._flight.attention:
                executor._flight.waits.idle(None, None)
            executor.fire("inner", None)

    with HookExecutor([Fails(), Outer()], points=["inner"]) as executor:
        executor.fire("before_train", None)
        with pytest.raises(BackgroundHookError, match=r"Fails\.before_train failed") as caught:
            executor.fire("before_val", None)

    assert caught.value.__notes__ == ["Told at a firing inside Outer.before_val, Outer (NORMAL)."]


def test_a_hook_sees_the_executor_that_calls_it() -> None:
    seen = []

    class Looks(Hook):
        def before_train(self, runner: Any) -> None:
            seen.append(current_executor())

    with HookExecutor([Looks()]) as outer, HookExecutor() as inner:
        outer.fire("before_train", None)
        assert current_executor() is inner

    assert seen == [outer]


def test_a_part_cannot_fire_on_another_executor() -> None:
    class Stray(Hook):
        fires = ("after_save_checkpoint",)

        async def before_train(self, runner: Any) -> None:
            other.fire_nowait("after_save_checkpoint", None, path="", meta={})

    with HookExecutor([Stray()]) as executor, HookExecutor() as other:
        executor.fire("before_train", None)
        with pytest.raises(BackgroundHookError, match="on an executor that does not run it"):
            executor.drain()


def test_room_is_reserved_on_the_training_thread_only() -> None:
    class Reserves(Hook):
        async def before_train(self, runner: Any) -> None:
            executor.reserve(10)

    with HookExecutor([Reserves()]) as executor:
        executor.fire("before_train", None)
        with pytest.raises(BackgroundHookError, match="has what its capture reserved") as caught:
            executor.drain()
        with pytest.raises(ValueError, match=r"reserve\(-1\)"):
            executor.reserve(-1)
        with pytest.raises(ExecutorError, match="outside of a capture"):
            executor.reserve(1)

    assert isinstance(caught.value.__cause__, WrongThreadError)


@both_modes
def test_time_inside_a_capture_is_booked_once(mode: Any) -> None:
    gate, instrument = Gate(), RecordingInstrument()

    class Outer(Hook):
        effects = Effects()

        @background
        def before_train(self, runner: Any) -> None:
            executor.fire("before_save_checkpoint", runner, checkpoint={})

    class Nested(Hook):
        effects = Effects()

        @background
        def before_save_checkpoint(self, runner: Any, checkpoint: Any) -> Any:
            gate._event.wait(0.2)  # a capture that takes its time

            async def part() -> None:
                pass

            return part

    with HookExecutor([Outer(), Nested()], mode=mode, instrument=instrument) as executor:
        executor.fire("before_train", None)
        statistics = executor.statistics()

    outer, nested = statistics.of("Outer")[0], statistics.of("Nested")[0]
    assert nested.capture_s >= 0.2
    assert outer.capture_s < 0.1
    assert [span.hook for span in instrument.of("capture")] == ["Nested"]
