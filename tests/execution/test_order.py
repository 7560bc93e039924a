"""Barriers at priority boundaries, order by effects, nested firings, and drains by resource."""

from typing import Any

import anyio
import pytest

from asynchooks import Effects, Hook, HookExecutor, background
from asynchooks.errors import DrainTimeoutError, HookDefinitionError, WrongThreadError
from asynchooks.testing import Gate, RecordingInstrument


class Holding(Hook):
    """A background part that stands at a gate, then notes that it is done."""

    def __init__(
        self,
        name: Any,
        log: Any,
        *,
        priority: Any = 50,
        effects: Any = None,
        gate: Any = None,
        **attributes: Any,
    ) -> None:
        self.name, self.log, self.priority, self.effects, self.gate = name, log, priority, effects, gate
        for attribute, value in attributes.items():
            setattr(self, attribute, value)

    @background
    def after_train_epoch(self, runner: Any) -> Any:
        self.log.append(f"{self.name} captures")

        async def part() -> None:
            if self.gate is not None:
                await self.gate.wait()
            self.log.append(f"{self.name} done")

        return part


class Blocking(Hook):
    def __init__(
        self, name: Any, log: Any, *, priority: Any = 50, effects: Any = None, opens: Any = None
    ) -> None:
        self.name, self.log, self.priority, self.effects, self.opens = name, log, priority, effects, opens

    def after_train_epoch(self, runner: Any) -> None:
        self.log.append(f"{self.name} runs")
        if self.opens is not None:
            self.opens.open()


def run(*hooks: Any, firings: Any = 1, **options: Any) -> None:
    with HookExecutor(hooks, **options) as executor:
        for _ in range(firings):
            executor.fire("after_train_epoch", None)


def test_hooks_run_by_priority_then_by_registration() -> None:
    log: list[Any] = []
    run(*(Blocking(n, log, priority=p) for n, p in [("c", 90), ("a", 10), ("b1", 50), ("b2", 50)]))

    assert log == ["a runs", "b1 runs", "b2 runs", "c runs"]


class AtBarrier:
    """A gate that is open while the training thread stands at a barrier."""

    executor: HookExecutor

    async def wait(self) -> None:
        while not self.executor._flight._turns:  # noqa: ASYNC110 - the training thread tells nobody that it waits
            await anyio.sleep(0.001)


def test_the_priority_boundary_waits_for_what_is_unknown() -> None:
    log: list[Any] = []
    gate, instrument = AtBarrier(), RecordingInstrument()
    hooks = [Holding("save", log, priority=10, gate=gate), Blocking("after", log, priority=50)]
    with HookExecutor(hooks, instrument=instrument) as gate.executor:
        gate.executor.fire("after_train_epoch", None)

    assert log == ["save captures", "save done", "after runs"]
    assert [(s.hook, s.point) for s in instrument.of("barrier")] == [("Blocking", "after_train_epoch")]
    assert instrument.of("barrier")[0].detail["waited_for"] == ["Holding.after_train_epoch"]


def test_equal_priorities_overlap() -> None:
    log: list[Any] = []
    gate = Gate()
    run(Holding("save", log, gate=gate), Blocking("other", log, opens=gate))

    assert log == ["save captures", "other runs", "save done"]


def test_declared_hooks_without_conflict_overlap_across_the_boundary() -> None:
    log: list[Any] = []
    gate = Gate()
    run(
        Holding("save", log, priority=10, effects=Effects(writes={"checkpoints"}), gate=gate),
        Blocking("log", log, priority=90, effects=Effects(writes={"logs"}), opens=gate),
    )

    assert log == ["save captures", "log runs", "save done"]


def test_a_conflict_waits_across_any_distance_in_time() -> None:
    log: list[Any] = []
    gate = Gate()

    class Reader(Hook):
        effects = Effects(reads={"checkpoints"})

        def before_val(self, runner: Any) -> None:
            log.append("reads")

    with HookExecutor(
        [Holding("save", log, effects=Effects(writes={"checkpoints"}), gate=gate), Reader()]
    ) as ex:
        ex.fire("after_train_epoch", None)
        for _ in range(5):
            ex.fire("before_train_iter", None)
        log.append("far later")
        gate.open()
        ex.fire("before_val", None)

    assert log == ["save captures", "far later", "save done", "reads"]


def test_a_capture_never_waits() -> None:
    log: list[Any] = []
    gate = Gate()
    hook = Holding("save", log, effects=Effects(writes={"checkpoints"}), gate=gate)
    with HookExecutor([hook]) as executor:
        executor.fire("after_train_epoch", None)
        executor.fire("after_train_epoch", None)
        assert log == ["save captures", "save captures"]
        gate.open()

    assert log[2:] == ["save done", "save done"]


def test_one_hook_runs_its_parts_one_after_the_other() -> None:
    running: list[int] = []
    most: list[int] = []

    class Counter(Hook):
        async def before_train_iter(self, runner: Any, batch_idx: int = 0, data_batch: Any = None) -> None:
            running.append(1)
            most.append(len(running))
            running.pop()

    with HookExecutor([Counter()]) as executor:
        for _ in range(20):
            executor.fire("before_train_iter", None)

    assert most == [1] * 20


@pytest.mark.parametrize(
    ("ordering", "expected"),
    [
        ("priority", ["save captures", "other runs", "save done"]),
        ("strict", ["save captures", "save done", "other runs"]),
    ],
)
def test_priority_ordering_lets_undeclared_firings_overlap_and_strict_does_not(
    ordering: Any, expected: list[str]
) -> None:
    log: list[Any] = []
    gate = Gate()

    class Other(Hook):
        def before_val(self, runner: Any) -> None:
            log.append("other runs")
            gate.open()

    if ordering == "strict":
        gate.open()
    with HookExecutor([Holding("save", log, gate=gate), Other()], ordering=ordering) as executor:
        executor.fire("after_train_epoch", None)
        executor.fire("before_val", None)

    assert log == expected


def test_sync_mode_runs_each_part_to_its_end() -> None:
    log: list[Any] = []
    run(Holding("a", log), Holding("b", log), mode="sync", firings=2)

    assert log == ["a captures", "a done", "b captures", "b done"] * 2


def test_a_drain_waits_for_the_named_resources_only() -> None:
    log: list[Any] = []
    slow, free = Gate(), Gate()
    hooks = [
        Holding("upload", log, effects=Effects(writes={"uploads"}), gate=slow),
        Holding("save", log, effects=Effects(writes={"checkpoints.last"}), gate=free),
    ]
    with HookExecutor(hooks) as executor:
        executor.fire("after_train_epoch", None)
        free.open()
        executor.drain({"checkpoints"})
        assert log == ["upload captures", "save captures", "save done"]
        slow.open()

    assert log[-1] == "upload done"


def test_a_drain_that_takes_too_long_names_what_is_in_flight() -> None:
    gate = Gate()
    with HookExecutor([Holding("upload", [], gate=gate)]) as executor:
        executor.fire("after_train_epoch", None)
        with pytest.raises(DrainTimeoutError, match=r"still in flight: Holding\.after_train_epoch"):
            executor.drain(timeout=0.01)
        gate.open()


def test_a_drain_takes_a_set_of_names() -> None:
    with HookExecutor() as executor, pytest.raises(TypeError, match="give a set of names"):
        executor.drain("checkpoints")


class Saver(Hook):
    """Fires before_save_checkpoint inside its capture and after_save_checkpoint from its background part."""

    fires: tuple[str, ...] = ("after_save_checkpoint",)

    def __init__(self, log: Any) -> None:
        self.log = log
        self.effects = Effects(writes={"checkpoints"})
        self.executor: Any = None

    @background
    def after_train_epoch(self, runner: Any) -> Any:
        content: dict[str, Any] = {}
        self.executor.fire("before_save_checkpoint", runner, checkpoint=content)
        self.log.append(f"captures {sorted(content)}")

        async def part() -> None:
            self.log.append("saved")
            self.executor.fire_nowait("after_save_checkpoint", runner, path="epoch_1.pth", meta={"epoch": 1})

        return part


def saving(*listeners: Any, log: Any, **options: Any) -> Any:
    saver = Saver(log)
    executor = HookExecutor([saver, *listeners], **options)
    saver.executor = executor
    return executor


def test_what_before_save_hooks_put_in_is_captured() -> None:
    log: list[Any] = []

    class AddsEma(Hook):
        def before_save_checkpoint(self, runner: Any, checkpoint: Any) -> None:
            checkpoint["ema"] = 1

    with saving(AddsEma(), log=log) as executor:
        executor.fire("after_train_epoch", None)

    assert log == ["captures ['ema']", "saved"]


class Listener(Hook):
    effects = Effects(reads={"checkpoints"}, writes={"uploads"})

    def __init__(self, log: Any) -> None:
        self.log = log


class AsyncListener(Listener):
    async def after_save_checkpoint(self, runner: Any, path: Any, meta: Any) -> None:
        self.log.append(f"async {path} {dict(meta)}")


class BlockingListener(Listener):
    def after_save_checkpoint(self, runner: Any, path: Any, meta: Any) -> None:
        self.log.append(f"blocking {runner}")


class CapturingListener(Listener):
    @background
    def after_save_checkpoint(self, runner: Any, path: Any, meta: Any) -> Any:
        self.log.append(f"captures for {path}")

        async def part() -> None:
            self.log.append("part")

        return part


@pytest.mark.parametrize("mode", ["async", "sync"])
def test_a_point_fired_from_the_background_reaches_every_shape(mode: Any) -> None:
    log: list[Any] = []
    listeners = [AsyncListener(log), BlockingListener(log), CapturingListener(log)]
    with saving(*listeners, log=log, mode=mode) as executor:
        executor.fire("after_train_epoch", "live")

    assert log[:2] == ["captures []", "saved"]
    assert log[2:] == ["async epoch_1.pth {'epoch': 1}", "blocking live", "captures for epoch_1.pth", "part"]


def test_a_blocking_listener_runs_before_the_next_firing() -> None:
    log: list[Any] = []

    class Next(Hook):
        def before_val(self, runner: Any) -> None:
            log.append("next firing")

    with saving(BlockingListener(log), Next(), log=log) as executor:
        executor.fire("after_train_epoch", "live")
        executor.drain({"checkpoints"})
        executor.fire("before_val", None)

    assert log == ["captures []", "saved", "blocking live", "next firing"]


def test_later_work_on_a_resource_waits_for_a_listener_that_will_touch_it() -> None:
    log: list[Any] = []
    gate = Gate()

    class SlowSaver(Saver):
        @background
        def after_train_epoch(self, runner: Any) -> Any:
            async def part() -> None:
                await gate.wait()
                self.executor.fire_nowait("after_save_checkpoint", runner, path="p", meta={})

            return part

    class Later(Hook):
        effects = Effects(writes={"uploads"})

        def before_val(self, runner: Any) -> None:
            log.append("later")

    saver = SlowSaver(log)
    with HookExecutor([saver, AsyncListener(log), Later()]) as saver.executor:
        saver.executor.fire("after_train_epoch", None)
        gate.open()
        saver.executor.fire("before_val", None)

    assert log == ["async p {}", "later"]


def test_an_undeclared_background_firing_is_refused() -> None:
    class Undeclared(Saver):
        fires = ()

    saver = Undeclared([])
    executor = saver.executor = HookExecutor([saver])
    executor.__enter__()
    executor.fire("after_train_epoch", None)
    with pytest.raises(
        Exception, match=r"HookDefinitionError.*set `fires = \('after_save_checkpoint',\)`"
    ) as e:
        executor.close()

    assert isinstance(e.value.__cause__, HookDefinitionError)


def test_fire_nowait_belongs_into_the_background() -> None:
    with HookExecutor() as executor, pytest.raises(WrongThreadError, match="belongs into a background part"):
        executor.fire_nowait("after_save_checkpoint", None)


def test_fire_belongs_onto_the_training_thread() -> None:
    class Wrong(Hook):
        async def before_train(self, runner: Any) -> None:
            executor.fire("before_val", None)

    executor = HookExecutor([Wrong()])
    with pytest.raises(Exception, match="a background part calls fire_nowait"), executor:
        executor.fire("before_train", None)
