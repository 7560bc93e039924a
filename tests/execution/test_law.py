"""The law: with truthful declarations, the effects on each resource are those of an inline run.

Random hooks, priorities, effects, shapes, points, durations and failures; run by the real executor in async mode
and compared with the same program in sync mode. A model resource is the list of what was written to it; a read
is the number of writes it saw.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asynchooks import Effects, Hook, HookExecutor, background

LEAVES = ("logs.text", "logs.board", "checkpoints", "uploads")
NAMES = (*LEAVES, "logs")
POINTS = ("before_train_iter", "after_train_iter", "after_val")
FIRED = "after_save_checkpoint"


def leaves(names: Any) -> Any:
    return sorted(leaf for leaf in LEAVES for name in names if leaf == name or leaf.startswith(name + "."))


@dataclass(frozen=True)
class Spec:
    """A random hook."""

    priority: int
    effects: Effects
    declared: bool
    shapes: dict[str, str]
    pauses: int
    fires: bool
    worker: bool
    fails_at: frozenset[int]
    on_error: str


class World:
    """The resources, and who touched them in which order."""

    def __init__(self) -> None:
        self.writes: dict[str, list[Any]] = defaultdict(list)
        self.reads: dict[Any, dict[str, int]] = {}
        self.overlaps: list[Any] = []

    async def touch(self, who: Any, effects: Any, pauses: Any, worker: Any) -> None:
        seen = {leaf: len(self.writes[leaf]) for leaf in leaves(effects.reads)}
        for leaf in leaves(effects.writes):
            self.writes[leaf].append((who, "begins"))
        for _ in range(pauses):
            await (anyio.to_thread.run_sync(int) if worker else anyio.lowlevel.checkpoint())
        for leaf in leaves(effects.writes):
            self.writes[leaf].append((who, "ends"))
        self.reads[who] = seen
        for leaf, count in seen.items():
            if leaf not in leaves(effects.writes) and len(self.writes[leaf]) != count:
                self.overlaps.append((who, leaf))

    def touch_inline(self, who: Any, effects: Any) -> None:
        self.reads[who] = {leaf: len(self.writes[leaf]) for leaf in leaves(effects.reads)}
        for leaf in leaves(effects.writes):
            self.writes[leaf] += [(who, "begins"), (who, "ends")]


class ModelHook(Hook):
    def __init__(self, number: Any, spec: Any, world: Any) -> None:
        self.spec = spec
        self.number = number
        self.world = world
        self.priority = spec.priority
        self.effects = spec.effects if spec.declared else None
        self.on_error = spec.on_error
        self.fires = (FIRED,) if spec.fires else ()
        self.executor: Any = None
        for point, shape in spec.shapes.items():
            setattr(self, point, getattr(self, f"_{shape}"))

    def _who(self, firing: Any) -> Any:
        return self.number, firing["label"], firing.get("path", "")

    async def _work(self, who: Any) -> None:
        await self.world.touch(who, self.spec.effects, self.spec.pauses, self.spec.worker)
        if self.spec.fires:
            self.executor.fire_nowait(FIRED, None, path=str(who), meta={}, label=who[1])
        if who[1] in self.spec.fails_at:
            raise RuntimeError(f"{who} fails")

    def _blocking(self, runner: Any, **firing: Any) -> None:
        self.world.touch_inline(self._who(firing), self.spec.effects)

    async def _async(self, runner: Any, **firing: Any) -> None:
        await self._work(self._who(firing))

    @background
    def _capture(self, runner: Any, **firing: Any) -> Any:
        who = self._who(firing)

        async def part() -> None:
            await self._work(who)

        return part


effects = st.builds(
    Effects,
    reads=st.sets(st.sampled_from(NAMES), max_size=2),
    writes=st.sets(st.sampled_from(NAMES), max_size=2),
)
shapes = st.sampled_from(["blocking", "capture", "async"])


@st.composite
def specs(draw: Any, *, declared: Any = st.just(True), failures: Any = False) -> Any:
    fires = draw(st.booleans())
    points = draw(st.sets(st.sampled_from(POINTS), min_size=1))
    listens = not fires and draw(st.booleans())
    return Spec(
        priority=draw(st.sampled_from([10, 50, 50, 90])),
        effects=draw(effects),
        declared=draw(declared),
        shapes={p: draw(shapes) for p in sorted(points)} | ({FIRED: draw(shapes)} if listens else {}),
        pauses=draw(st.integers(0, 6)),
        fires=fires,
        worker=draw(st.booleans()),
        fails_at=draw(st.frozensets(st.integers(1, 4), max_size=2)) if failures else frozenset(),
        on_error=draw(st.sampled_from(["raise", "warn"])) if failures else "raise",
    )


programs = st.lists(st.sampled_from(POINTS), min_size=1, max_size=8)


def run(program: Any, hook_specs: Any, mode: Any, ordering: Any, max_in_flight: Any = 32) -> Any:
    """Run a program to its end or its first failure; return the world and whether it failed."""
    world = World()
    hooks = [ModelHook(number, spec, world) for number, spec in enumerate(hook_specs)]
    failed = False
    try:
        with HookExecutor(hooks, mode=mode, ordering=ordering, max_in_flight=max_in_flight) as executor:
            for hook in hooks:
                hook.executor = executor
            for label, point in enumerate(program):
                executor.fire(point, None, label=label)
    except Exception:  # the kinds of errors are tested elsewhere
        failed = True
    return world, failed


common = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@common
@given(programs, st.lists(specs(), min_size=1, max_size=5), st.sampled_from([1, 2, 32]))
def test_declared_hooks_leave_each_resource_as_an_inline_run_would(
    program: Any, hook_specs: Any, max_in_flight: Any
) -> None:
    expected, _ = run(program, hook_specs, "sync", "priority")
    found, failed = run(program, hook_specs, "async", "priority", max_in_flight)

    assert not failed
    assert found.writes == expected.writes
    assert found.reads == expected.reads
    assert found.overlaps == []


@common
@given(programs, st.lists(specs(declared=st.booleans()), min_size=1, max_size=5))
def test_strict_ordering_makes_undeclared_hooks_equal_too(program: Any, hook_specs: Any) -> None:
    expected, _ = run(program, hook_specs, "sync", "strict")
    found, failed = run(program, hook_specs, "async", "strict")

    assert not failed
    assert found.writes == expected.writes
    assert found.reads == expected.reads


@common
@given(programs, st.lists(specs(failures=True), min_size=1, max_size=4))
def test_after_a_failure_no_dependent_effect_is_seen(program: Any, hook_specs: Any) -> None:
    hook_specs = [replace(spec, on_error="raise") for spec in hook_specs]
    expected, sync_failed = run(program, hook_specs, "sync", "priority")
    found, async_failed = run(program, hook_specs, "async", "priority")

    assert async_failed == sync_failed
    for leaf, writes in expected.writes.items():
        assert found.writes[leaf][: len(writes)] == writes, "the inline run's effects come first"
    for who, seen in expected.reads.items():
        assert found.reads[who] == seen


@pytest.mark.filterwarnings("ignore")
@common
@given(programs, st.lists(specs(failures=True), min_size=1, max_size=4))
def test_failures_that_only_warn_change_nothing(program: Any, hook_specs: Any) -> None:
    hook_specs = [replace(spec, on_error="warn") for spec in hook_specs]
    expected, _ = run(program, hook_specs, "sync", "priority")
    found, failed = run(program, hook_specs, "async", "priority")

    assert not failed
    assert found.writes == expected.writes
    assert found.reads == expected.reads
