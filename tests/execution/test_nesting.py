"""Hooks that fire, drain, reserve and register inside other hooks: in order, never waiting for themselves."""

from typing import Any

import anyio
import pytest

from asynchooks import Effects, Hook, HookExecutor, background, current_executor
from asynchooks.errors import BackgroundHookError, ExecutorError, HookDefinitionError, WrongThreadError
from asynchooks.testing import Gate, RecordingInstrument

pytestmark = pytest.mark.timeout(20)  # what these rules forbid is a deadlock
both_modes = pytest.mark.parametrize("mode", ["async", "sync"])


class Saves(Hook):
    """Tells its listeners when its gate has opened."""

    fires = ("after_save_checkpoint",)
    effects = Effects(writes={"checkpoints"})

    def __init__(self, gate: Any = None, nbytes: Any = 0) -> None:
        self.gate, self.nbytes = gate, nbytes

    @background
    def before_train_iter(self, runner: Any, batch_idx: Any, data_batch: Any = None) -> Any:
        executor = current_executor()
        assert executor is not None
        if self.nbytes:
            executor.reserve(self.nbytes)

        async def part() -> None:
            if self.gate is not None:
                await self.gate.wait()
            executor.fire_nowait("after_save_checkpoint", runner, path=f"{batch_idx}", meta={})

        return part


class Listens(Hook):
    """Does something on the training thread when a checkpoint was saved."""

    fires: tuple[str, ...] = ("inner",)
    effects = Effects(writes={"uploads"})

    def __init__(self, name: Any, log: Any, does: Any = None) -> None:
        self.name, self.log, self.does = name, log, does

    def after_save_checkpoint(self, runner: Any, path: Any, meta: Any) -> None:
        self.log.append(f"{self.name} begins")
        if self.does is not None:
            self.does(current_executor())
        self.log.append(f"{self.name} ends")


class Inner(Hook):
    effects = Effects(writes={"inner"})

    def __init__(self, log: Any) -> None:
        self.log = log

    async def inner(self, runner: Any) -> None:
        self.log.append("inner")


def save(*hooks: Any, times: Any = 1, **options: Any) -> Any:
    with HookExecutor(hooks, points=["inner"], **options) as executor:
        for number in range(times):
            executor.fire("before_train_iter", None, batch_idx=number)
    return executor


@both_modes
def test_a_deferred_hook_that_fires_is_not_overtaken_by_the_next_deferred_hook(mode: Any) -> None:
    log: list[str] = []

    def fires(executor: Any) -> None:
        executor.fire("inner", None)

    save(Saves(), Listens("first", log, fires), Listens("second", log), Inner(log), mode=mode)

    assert [line for line in log if line != "inner"] == [
        *("first begins", "first ends"),
        *("second begins", "second ends"),
    ]
    assert "inner" in log


@both_modes
def test_a_deferred_hook_that_drains_waits_for_what_came_before_it(mode: Any) -> None:
    log: list[str] = []

    def drains(executor: Any) -> None:
        executor.fire("inner", None)
        executor.drain()

    save(Saves(), Listens("first", log, drains), Listens("second", log), Inner(log), mode=mode)

    assert log == ["first begins", "inner", "first ends", "second begins", "second ends"]


@both_modes
def test_a_deferred_hook_finds_room_though_what_follows_it_fills_the_executor(mode: Any) -> None:
    gate = Gate()
    log: list[str] = []
    if mode == "sync":
        gate.open()

    def fires(executor: Any) -> None:
        gate.open()
        executor.fire("inner", None)

    class Opens(Hook):
        effects = Effects()

        def after_train_iter(
            self, runner: Any, batch_idx: Any, data_batch: Any = None, outputs: Any = None
        ) -> None:
            gate.open()

    hooks = [Saves(gate), Listens("first", log, fires), Inner(log), Opens()]
    with HookExecutor(hooks, points=["inner"], max_in_flight=2, mode=mode) as executor:
        executor.fire("before_train_iter", None, batch_idx=0)
        executor.fire("before_train_iter", None, batch_idx=1)
        executor.fire("after_train_iter", None, batch_idx=1)

    assert log.count("inner") == 2


@both_modes
def test_a_capture_inside_a_capture_does_not_wait_for_the_outer_ones_bytes(mode: Any) -> None:
    class Outer(Hook):
        @background
        def before_train(self, runner: Any) -> Any:
            executor.reserve(60)
            executor.fire("before_save_checkpoint", runner, checkpoint={})

            async def part() -> None:
                pass

            return part

    class Nested(Hook):
        @background
        def before_save_checkpoint(self, runner: Any, checkpoint: Any) -> Any:
            executor.reserve(60)

            async def part() -> None:
                pass

            return part

    with HookExecutor([Outer(), Nested()], staging_budget=100, mode=mode) as executor:
        executor.fire("before_train", None)
        executor.drain()

    assert executor.statistics().staged_bytes == 0
    assert [row.finished for row in executor.statistics().hooks] == [1, 1]


def test_a_deferred_capture_does_not_wait_for_the_bytes_of_what_must_follow_it() -> None:
    gate = Gate()
    captured: list[str] = []

    class Uploads(Hook):
        effects = Effects(writes={"uploads"})

        @background
        def after_save_checkpoint(self, runner: Any, path: Any, meta: Any) -> Any:
            executor.reserve(80)
            captured.append(path)

            async def part() -> None:
                pass

            return part

    with HookExecutor([Saves(gate, nbytes=40), Uploads()], staging_budget=100) as executor:
        executor.fire("before_train_iter", None, batch_idx=0)
        executor.fire("before_train_iter", None, batch_idx=1)
        gate.open()

    assert captured == ["0", "1"]
    assert executor.statistics().staged_bytes == 0


def test_a_blocking_hook_inside_a_deferred_one_keeps_its_place() -> None:
    gate = Gate()
    log: list[str] = []

    class Writes(Saves):
        @background
        def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> Any:
            part = super().before_train_iter(runner, batch_idx, data_batch)

            async def logged() -> None:
                await part()
                log.append(f"save {batch_idx}")

            return logged

    class Reads(Hook):
        effects = Effects(reads={"checkpoints"})

        def inner(self, runner: Any) -> None:
            log.append("read")

    listens = Listens("", [], lambda executor: executor.fire("inner", None))
    with HookExecutor([Writes(gate), listens, Reads()], points=["inner"]) as executor:
        executor.fire("before_train_iter", None, batch_idx=0)
        executor.fire("before_train_iter", None, batch_idx=1)
        gate.open()

    assert log == ["save 0", "read", "save 1", "read"]


def test_what_a_deferred_capture_fires_comes_before_its_own_part() -> None:
    log: list[str] = []

    class Captures(Hook):
        effects = Effects(writes={"inner"})
        fires = ("inner",)

        @background
        def after_save_checkpoint(self, runner: Any, path: str, meta: Any) -> Any:
            executor.fire("inner", None)

            async def part() -> None:
                log.append("part")

            return part

    class SlowInner(Inner):
        async def inner(self, runner: Any) -> None:
            for _ in range(20):
                await anyio.lowlevel.checkpoint()
            log.append("inner")

    with HookExecutor([Saves(), Captures(), SlowInner(log)]) as executor:
        executor.fire("before_train_iter", None, batch_idx=0)

    assert log == ["inner", "part"]


def test_a_deferred_hook_fires_what_it_declares_only() -> None:
    class Undeclared(Listens):
        fires = ()

    with HookExecutor(
        [Saves(), Undeclared("", [], lambda executor: executor.fire("inner", None))]
    ) as executor:
        executor.register(Inner([]))
        executor.fire("before_train_iter", None, batch_idx=0)
        with pytest.raises(HookDefinitionError, match=r"add 'inner' to Undeclared\.fires"):
            executor.drain()


def test_a_hook_that_listens_and_also_runs_later_keeps_its_own_order() -> None:
    gate = Gate()
    log: list[str] = []

    class Both(Hook):
        effects = Effects()  # no resource tells: it is rule 1, the same instance

        def after_save_checkpoint(self, runner: Any, path: Any, meta: Any) -> None:
            log.append("saved")

        def before_val(self, runner: Any) -> None:
            log.append("validates")

    class Opens(Hook):
        effects = Effects()

        def before_train(self, runner: Any) -> None:
            gate.open()

    with HookExecutor([Saves(gate), Both(), Opens()]) as executor:
        executor.fire("before_train_iter", None, batch_idx=0)
        executor.fire("before_train", None)
        executor.fire("before_val", None)

    assert log == ["saved", "validates"]


@both_modes
def test_a_hook_that_is_registered_later_does_not_hear_of_what_began_before(mode: Any) -> None:
    gate = Gate()
    log: list[str] = []

    class Opens(Hook):
        effects = Effects()

        async def before_train(self, runner: Any) -> None:
            gate.open()

    with HookExecutor([Saves(gate), Opens()], mode=mode) as executor:
        if mode == "sync":
            gate.open()
        executor.fire("before_train_iter", None, batch_idx=0)
        executor.fire("before_train", None)
        executor.register(Listens("late", log))
        executor.drain()
        assert log == []
        executor.fire("before_train_iter", None, batch_idx=1)

    assert log == ["late begins", "late ends"]


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


def test_an_error_that_is_told_inside_a_hook_is_not_blamed_on_it() -> None:
    class Fails(Hook):
        effects = Effects()

        async def before_train(self, runner: Any) -> None:
            raise OSError("no space")

    class Outer(Hook):
        effects = Effects()

        def before_val(self, runner: Any) -> None:
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
