"""The law: with truthful declarations, the effects on each resource are those of an inline run.

Random hooks, priorities, effects, shapes, points, durations and failures; firings inside firings and from the
background, two deep; drains, late registrations, limits of parts and of bytes. Run by the real executor in async
mode and compared with the same program in sync mode. A model resource is the list of what was written to it; a
read is the number of writes it saw.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asynchooks import Effects, Hook, HookExecutor, background

pytestmark = pytest.mark.timeout(60)

LEAVES = ("logs.text", "logs.board", "checkpoints", "uploads")
NAMES = (*LEAVES, "logs")
POINTS = ("before_train_iter", "after_train_iter", "after_val")
NESTED = "before_save_checkpoint"  # fired inside blocking methods and captures
FIRED = ("after_save_checkpoint", "after_upload")  # from the background, and from the background of that
BUDGET = 100

Who = tuple[int, int, str]


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
    fires: tuple[str, ...]
    nests: bool
    nbytes: int
    worker: bool
    fails_at: frozenset[int]
    on_error: str


@dataclass(frozen=True)
class Program:
    """What the training thread does: fires a point, drains some resources, or registers the next late hook."""

    events: tuple[str | frozenset[str], ...]
    late_hooks: int


class World:
    """The resources, and who touched them in which order."""

    def __init__(self) -> None:
        self.writes: dict[str, list[tuple[Who, str]]] = defaultdict(list)
        self.reads: dict[Who, dict[str, int]] = {}
        self.overlaps: list[tuple[Who, str]] = []

    async def touch(self, who: Who, effects: Any, pauses: Any, worker: Any) -> None:
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

    def touch_inline(self, who: Who, effects: Any) -> None:
        self.reads[who] = {leaf: len(self.writes[leaf]) for leaf in leaves(effects.reads)}
        for leaf in leaves(effects.writes):
            self.writes[leaf] += [(who, "begins"), (who, "ends")]


class ModelHook(Hook):
    executor: HookExecutor

    def __init__(self, number: Any, spec: Spec, world: World) -> None:
        self.spec = spec
        self.number = number
        self.world = world
        self.priority = spec.priority
        self.effects = spec.effects if spec.declared else None
        self.on_error = spec.on_error  # type: ignore[assignment]  # drawn by hypothesis
        self.fires = spec.fires
        for point, shape in spec.shapes.items():
            setattr(self, point, getattr(self, f"_{shape}"))

    def _who(self, firing: Mapping[str, Any]) -> Who:
        return self.number, firing["label"], firing["path"]

    async def _work(self, who: Who) -> None:
        await self.world.touch(who, self.spec.effects, self.spec.pauses, self.spec.worker)
        depth = sum(who[2].count(point) for point in FIRED)
        if depth < len(FIRED) and FIRED[depth] in self.spec.fires:
            point = FIRED[depth]
            self.executor.fire_nowait(point, None, label=who[1], path=f"{who[2]}/{self.number} {point}")
        if who[1] in self.spec.fails_at:
            raise RuntimeError(f"{who} fails")

    def _nest(self, who: Who) -> None:
        if self.spec.nests and NESTED not in who[2]:
            self.executor.fire(NESTED, None, label=who[1], path=f"{who[2]}/{self.number} {NESTED}")

    def _blocking(self, runner: Any, **firing: Any) -> None:
        who = self._who(firing)
        self.world.touch_inline(who, self.spec.effects)
        self._nest(who)

    async def _async(self, runner: Any, **firing: Any) -> None:
        await self._work(self._who(firing))

    @background
    def _capture(self, runner: Any, **firing: Any) -> Any:
        who = self._who(firing)
        self.executor.reserve(self.spec.nbytes)
        self._nest(who)

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
def specs(draw: Any, *, declared: Any = st.just(True), failures: Any = False) -> Spec:
    points = draw(st.sets(st.sampled_from(POINTS), min_size=1))
    nests = draw(st.booleans())
    heard = draw(st.sets(st.sampled_from((NESTED, *FIRED)), max_size=2))
    return Spec(
        priority=draw(st.sampled_from([10, 50, 50, 90])),
        effects=draw(effects),
        declared=draw(declared),
        shapes={point: draw(shapes) for point in sorted(points | heard)},
        pauses=draw(st.integers(0, 6)),
        fires=tuple(draw(st.sets(st.sampled_from(FIRED)))) + ((NESTED,) if nests else ()),
        nests=nests,
        nbytes=draw(st.sampled_from([0, 0, 40, 70])),
        worker=draw(st.booleans()),
        fails_at=draw(st.frozensets(st.integers(1, 4), max_size=2)) if failures else frozenset(),
        on_error=draw(st.sampled_from(["raise", "warn"])) if failures else "raise",
    )


fired = st.sampled_from(POINTS)
drained = st.frozensets(st.sampled_from(NAMES), min_size=1, max_size=2)
programs = st.builds(
    Program,
    events=st.lists(fired | fired | drained | st.just("register"), min_size=1, max_size=8).map(tuple),
    late_hooks=st.integers(0, 2),
)


def run(
    program: Program,
    hook_specs: Sequence[Spec],
    mode: Any,
    ordering: Any = "priority",
    max_in_flight: int = 32,
    staging_budget: int = 2**20,
) -> tuple[World, bool]:
    """Run a program to its end or its first failure; return the world and whether it failed."""
    world = World()
    hooks = [ModelHook(number, spec, world) for number, spec in enumerate(hook_specs)]
    at_once = max(1, len(hooks) - program.late_hooks)
    late = iter(hooks[at_once:])
    executor = HookExecutor(
        hooks[:at_once],
        mode=mode,
        ordering=ordering,
        max_in_flight=max_in_flight,
        staging_budget=staging_budget,
        points=FIRED,
    )
    for hook in hooks:
        hook.executor = executor
    try:
        with executor:
            for label, event in enumerate(program.events):
                if isinstance(event, frozenset):
                    executor.drain(event)
                elif event != "register":
                    executor.fire(event, None, label=label, path="")
                else:
                    for hook in islice(late, 1):
                        executor.register(hook)
    except Exception:  # the kinds of errors are tested elsewhere
        failed = True
    else:
        failed = False
    assert executor.statistics().in_flight == 0
    assert executor.statistics().staged_bytes == 0
    return world, failed


common = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@common
@given(programs, st.lists(specs(), min_size=1, max_size=5), st.sampled_from([1, 2, 32]), st.booleans())
def test_declared_hooks_leave_each_resource_as_an_inline_run_would(
    program: Program, hook_specs: list[Spec], max_in_flight: int, small: bool
) -> None:
    expected, _ = run(program, hook_specs, "sync")
    found, failed = run(
        program,
        hook_specs,
        "async",
        max_in_flight=max_in_flight,
        staging_budget=BUDGET if small else 2**20,
    )

    assert not failed
    assert found.writes == expected.writes
    assert found.reads == expected.reads
    assert found.overlaps == []


@common
@given(programs, st.lists(specs(declared=st.booleans()), min_size=1, max_size=5))
def test_strict_ordering_makes_undeclared_hooks_equal_too(program: Program, hook_specs: list[Spec]) -> None:
    expected, _ = run(program, hook_specs, "sync", "strict")
    found, failed = run(program, hook_specs, "async", "strict", staging_budget=BUDGET)

    assert not failed
    assert found.writes == expected.writes
    assert found.reads == expected.reads


@common
@given(programs, st.lists(specs(failures=True), min_size=1, max_size=4))
def test_after_a_failure_no_dependent_effect_is_seen(program: Program, hook_specs: list[Spec]) -> None:
    expected, sync_failed = run(program, hook_specs, "sync")
    found, async_failed = run(program, hook_specs, "async")

    assert async_failed == sync_failed
    for leaf, writes in expected.writes.items():
        assert found.writes[leaf][: len(writes)] == writes, "the inline run's effects come first"
    for who, seen in expected.reads.items():
        assert found.reads[who] == seen


@pytest.mark.filterwarnings("ignore")
@common
@given(programs, st.lists(specs(failures=True), min_size=1, max_size=4))
def test_failures_that_only_warn_change_nothing(program: Program, hook_specs: list[Spec]) -> None:
    hook_specs = [replace(spec, on_error="warn") for spec in hook_specs]
    expected, _ = run(program, hook_specs, "sync")
    found, failed = run(program, hook_specs, "async")

    assert not failed
    assert found.writes == expected.writes
    assert found.reads == expected.reads
