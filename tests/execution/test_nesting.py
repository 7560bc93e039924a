"""Hooks that fire, drain, reserve and register inside other hooks: in order, never waiting for themselves."""

from typing import Any

import anyio
import pytest

from asynchooks import Effects, Hook, HookExecutor, background
from asynchooks.errors import HookDefinitionError
from asynchooks.testing import Gate

from .nesting import Inner, Listens, Saves, both_modes, save

pytestmark = pytest.mark.timeout(20)  # what these rules forbid is a deadlock


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
