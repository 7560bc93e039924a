"""What happens when there is no room: wait, skip or coalesce, by count and by captured bytes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynchooks import Effects, Hook, HookExecutor, background
from asynchooks.errors import ExecutorError
from asynchooks.execution._backpressure import Room, admit
from asynchooks.testing import Gate, RecordingInstrument


class Save(Hook):
    """Reserves, captures a number, and writes it when its gate opens."""

    effects = Effects(writes={"checkpoints"})

    def __init__(self, *, nbytes: Any = 0, gates: Any = None, **attributes: Any) -> None:
        self.nbytes, self.gates = nbytes, gates or {}
        self.captured: list[int] = []
        self.written: list[int] = []
        self.executor: Any = None
        for name, value in attributes.items():
            setattr(self, name, value)

    @background
    def before_train_iter(self, runner: Any, batch_idx: Any, data_batch: Any = None) -> Any:
        if self.nbytes:
            self.executor.reserve(self.nbytes)
        self.captured.append(batch_idx)

        async def part() -> None:
            gate = self.gates.get(batch_idx)
            if gate is not None:
                await gate.wait()
            self.written.append(batch_idx)

        return part


class Opens(Hook):
    """Opens a gate from another thread's work, so that a waiting training thread can go on."""

    effects = Effects(writes={"other"})

    def __init__(self, gate: Any) -> None:
        self.gate = gate

    async def before_train(self, runner: Any) -> None:
        self.gate.open()


def start(hook: Any, **options: Any) -> Any:
    executor = hook.executor = HookExecutor([hook], **options)
    return executor


def test_wait_keeps_every_save_and_reports_the_wait() -> None:
    gate, instrument = Gate(), RecordingInstrument()
    hook = Save(gates={0: gate}, max_in_flight=1)
    opener = Opens(gate)
    with start(hook, instrument=instrument) as executor:
        executor.register(opener)
        executor.fire("before_train_iter", None, batch_idx=0)
        executor.fire("before_train", None)
        executor.fire("before_train_iter", None, batch_idx=1)

    assert hook.written == [0, 1]
    row = executor.statistics().of("Save")[0]
    assert (row.skipped, row.coalesced, row.finished) == (0, 0, 2)


def test_skip_drops_the_new_one_and_counts_it() -> None:
    gate = Gate()
    hook = Save(gates={0: gate}, max_in_flight=1, when_busy="skip")
    with start(hook) as executor:
        for number in range(4):
            executor.fire("before_train_iter", None, batch_idx=number)
        gate.open()

    assert hook.written == [0]
    assert executor.statistics().of("Save")[0].skipped == 3


class Occupies(Hook):
    """Takes the only place in the background until the training thread waits."""

    effects = Effects()
    fires = ("after_val",)

    def __init__(self) -> None:
        self.waited = Gate()
        self.executor: Any = None

    async def before_val(self, runner: Any) -> None:
        self.executor.fire_nowait("after_val", None)  # heard where the training thread waits
        await self.waited.wait()

    @background
    def after_val(self, runner: Any) -> None:
        self.waited.open()


@pytest.mark.parametrize("occupied", ["before", "after"])
def test_an_invocation_that_may_not_be_skipped_waits_whenever_there_is_no_room(occupied: str) -> None:
    class Needed(Save):
        @background
        def before_train(self, runner: Any) -> Any:
            if occupied == "before":
                self.executor.fire("before_val", None)
            self.executor.reserve(60, may_skip=False)
            if occupied == "after":
                self.executor.fire("before_val", None)

            async def part() -> None:
                self.written.append(1)

            return part

    hook, occupies = Needed(when_busy="skip"), Occupies()
    with start(hook, max_in_flight=1) as executor:
        occupies.executor = executor
        executor.register(occupies)
        executor.fire("before_train", None)

    assert hook.written == [1]


def test_coalesce_keeps_the_newest_that_has_not_started() -> None:
    gate = Gate()
    hook = Save(gates={0: gate}, max_in_flight=2, when_busy="coalesce")
    with start(hook) as executor:
        for number in range(5):
            executor.fire("before_train_iter", None, batch_idx=number)
        gate.open()

    assert hook.written == [0, 4]
    assert executor.statistics().of("Save")[0].coalesced == 3


def test_a_skip_for_lack_of_bytes_comes_before_the_copy() -> None:
    gate = Gate()
    hook = Save(nbytes=60, gates={0: gate}, when_busy="skip")
    with start(hook, staging_budget=100) as executor:
        executor.fire("before_train_iter", None, batch_idx=0)
        executor.fire("before_train_iter", None, batch_idx=1)
        gate.open()

    assert hook.captured == [0]
    assert executor.statistics().of("Save")[0].skipped == 1


def test_bytes_are_given_back_when_the_part_has_ended() -> None:
    hook = Save(nbytes=60)
    with start(hook, staging_budget=100) as executor:
        for number in range(10):
            executor.fire("before_train_iter", None, batch_idx=number)
        executor.drain()
        assert executor.statistics().staged_bytes == 0

    assert hook.written == list(range(10))


def test_bytes_of_a_coalesced_part_are_given_back() -> None:
    gate = Gate()
    hook = Save(nbytes=40, gates={0: gate}, when_busy="coalesce")
    with start(hook, staging_budget=100) as executor:
        for number in range(6):
            executor.fire("before_train_iter", None, batch_idx=number)
        assert executor.statistics().staged_bytes == 80
        gate.open()

    assert hook.written == [0, 5]
    assert executor.statistics().staged_bytes == 0


def test_bytes_are_given_back_when_the_capture_returns_nothing_or_raises() -> None:
    class Indecisive(Hook):
        @background
        def before_train(self, runner: Any) -> None:
            executor.reserve(10)

        @background
        def before_val(self, runner: Any) -> None:
            executor.reserve(10)
            raise ValueError

    executor = HookExecutor([Indecisive()])
    with executor:
        executor.fire("before_train", None)
        with pytest.raises(ValueError):
            executor.fire("before_val", None)
        assert executor.statistics().staged_bytes == 0


def test_one_capture_larger_than_the_budget_is_admitted_alone() -> None:
    hook = Save(nbytes=1_000)
    with start(hook, staging_budget=100) as executor:
        executor.fire("before_train_iter", None, batch_idx=0)
        executor.fire("before_train_iter", None, batch_idx=1)

    assert hook.written == [0, 1]


def test_reserve_belongs_into_a_capture() -> None:
    with HookExecutor() as executor, pytest.raises(ExecutorError, match="outside of a capture"):
        executor.reserve(1)


def test_the_executors_own_limit_bounds_everything_in_flight() -> None:
    most: list[Any] = []

    class Watching(Save):
        @background
        def before_train_iter(self, runner: Any, batch_idx: Any, data_batch: Any = None) -> Any:
            most.append(self.executor.statistics().in_flight)

            async def part() -> None:
                self.written.append(batch_idx)

            return part

    hook = Watching()
    with start(hook, max_in_flight=3) as executor:
        for number in range(50):
            executor.fire("before_train_iter", None, batch_idx=number)

    assert hook.written == list(range(50))
    assert max(most) <= 3


rooms = st.builds(
    Room,
    in_flight=st.integers(0, 4),
    max_in_flight=st.integers(1, 4),
    own_in_flight=st.integers(0, 3),
    own_limit=st.none() | st.integers(1, 3),
    staged_bytes=st.integers(0, 300),
    held_bytes=st.integers(0, 300),
    budget_bytes=st.integers(1, 200),
)


@given(rooms, st.integers(0, 300), st.sampled_from(["wait", "skip", "coalesce"]), st.booleans())
def test_every_decision_follows_the_policy(room: Any, nbytes: Any, when_busy: Any, replaceable: Any) -> None:
    decision = admit(room, nbytes, when_busy, replaceable=replaceable)

    if decision == "admit":
        assert room.in_flight < room.max_in_flight
        alone = room.staged_bytes == 0 or nbytes == 0
        assert alone or room.staged_bytes + room.held_bytes + nbytes <= room.budget_bytes
    else:
        expected = {"wait": "wait", "skip": "skip", "coalesce": "replace" if replaceable else "wait"}
        assert decision == expected[when_busy]


@given(rooms, st.integers(0, 300))
def test_an_empty_executor_always_has_room(room: Any, nbytes: Any) -> None:
    empty = Room(0, room.max_in_flight, 0, room.own_limit, 0, room.held_bytes, room.budget_bytes)

    assert admit(empty, nbytes, "wait", replaceable=False) == "admit"
