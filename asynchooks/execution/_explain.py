"""Why a plan runs as it does: who waits for whom, by which rule, and what overlaps. Pure.

Asks the scoreboard's own predicate about the steps of the compiled plans, so that it cannot say anything else than
what runs. It knows no timing: "may wait" means that a part could still be in flight then.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType
from typing import TYPE_CHECKING

from asynchooks.execution._effects import Effects, conflict
from asynchooks.execution._hook import Shape, overridden_method, shape_of
from asynchooks.execution._points import POINTS
from asynchooks.execution._priority import priority_name
from asynchooks.execution._scoreboard import Order, Scoreboard

if TYPE_CHECKING:
    from asynchooks.execution._executor import HookExecutor
    from asynchooks.execution._plan import Plan, Step

__all__ = [
    "Band",
    "Cause",
    "ExplainedStep",
    "PointExplanation",
    "explain",
    "explain_plans",
    "shapes_of",
]

_OWN_PARTS = "its own earlier parts"


@dataclass(frozen=True, slots=True)
class Cause:
    """Background parts of one hook that something has to follow.

    Attributes:
        hook: class name of the hook.
        number: its number, in order of registration.
        points: where the parts start.
        rule: of the execution contract, 1 to 4.
        why: the rule's words for these two hooks.
    """

    hook: str
    number: int
    points: tuple[str, ...]
    rule: int
    why: str

    @property
    def is_own(self) -> bool:
        """Whether these are earlier parts of the hook that waits, as rule 1 has it of every hook."""
        return self.why == _OWN_PARTS


@dataclass(frozen=True, slots=True)
class ExplainedStep:
    """One hook's part in a firing.

    Attributes:
        hook: class name.
        number: in order of registration.
        shape: "blocking", "capture", "async" or "worker".
        effects: what it touches, with the listeners of what it fires; None is unknown.
        changes_state: whether its foreground part may change training state, and so waits for copies under way.
        is_deferred: whether its foreground part also runs later, when the point was fired from the background.
        waits_for: what the training thread may have to wait for before it (blocking methods alone wait).
        starts_after: what its background part may have to wait for, behind training.
        overlaps: the hooks whose background parts may run at the same time as its own.
    """

    hook: str
    number: int
    shape: Shape
    effects: Effects | None
    changes_state: bool
    is_deferred: bool
    waits_for: tuple[Cause, ...]
    starts_after: tuple[Cause, ...]
    overlaps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Band:
    """The hooks of one firing with equal priority."""

    priority: int
    name: str
    steps: tuple[ExplainedStep, ...]


@dataclass(frozen=True, slots=True)
class PointExplanation:
    """What happens at a hook point.

    Attributes:
        point: its name.
        fired_by: the hooks that fire it from their background parts.
        bands: its hooks, by priority.
    """

    point: str
    fired_by: tuple[str, ...]
    bands: tuple[Band, ...]

    @property
    def waiting(self) -> tuple[ExplainedStep, ...]:
        """The steps before which the training thread may wait."""
        return tuple(step for band in self.bands for step in band.steps if step.waits_for)


def explain(
    executor: HookExecutor, *, since_drain: Mapping[str, Collection[str]] = MappingProxyType({})
) -> tuple[PointExplanation, ...]:
    """Explain every point at which a registered hook does something, in the order of a run.

    Args:
        executor: the hooks, in mode "async". In mode "sync" every part is waited for.
        since_drain: for a point, the points that the loop can have fired between its last drain and that point;
            parts of others are not in flight there. A point that is not named may follow anything.
    """
    registered = executor.registered
    own = {point for hook in registered for point in (*hook.methods, *hook.fires)} - set(POINTS)
    plans = {point: executor.plan(point) for point in (*POINTS, *sorted(own))}
    return explain_plans(plans, executor.ordering, since_drain=since_drain)


def explain_plans(
    plans: Mapping[str, Plan],
    order: Order,
    *,
    since_drain: Mapping[str, Collection[str]] = MappingProxyType({}),
) -> tuple[PointExplanation, ...]:
    """Explain compiled plans; see `explain`."""
    explaining = _Explaining(plans, Scoreboard(order), since_drain)
    return tuple(explaining.point(plan) for plan in plans.values() if plan.steps)


def shapes_of(kind: type) -> dict[str, Shape]:
    """Return at which standard points a hook class does something, and in which shape, without building one.

    Methods that its constructor sets on the instance are not seen.
    """
    blank: object = object.__new__(kind)
    found = ((point, overridden_method(blank, point)) for point in POINTS)
    return {point: shape_of(method[0]) for point, method in found if method is not None}


class _Explaining:
    """The parts that may be in flight, and what the scoreboard says about two of them."""

    def __init__(
        self, plans: Mapping[str, Plan], board: Scoreboard, since_drain: Mapping[str, Collection[str]]
    ) -> None:
        self._board = board
        self._since_drain = since_drain
        steps = [step for plan in plans.values() for step in plan.steps]
        self._firing = {(p, s.registration.name): None for s in steps for p in s.registration.fires}
        self._fired = {point for point, _ in self._firing}
        self._in_flight = [step for step in steps if step.shape != "blocking" or step.point in self._fired]

    def point(self, plan: Plan) -> PointExplanation:
        bands = groupby(plan.steps, key=lambda step: step.registration.priority)
        return PointExplanation(
            plan.point,
            tuple(hook for point, hook in self._firing if point == plan.point),
            tuple(
                Band(priority, priority_name(priority), tuple(self._step(plan, step) for step in steps))
                for priority, steps in bands
            ),
        )

    def _step(self, plan: Plan, step: Step) -> ExplainedStep:
        causes = self._causes(plan, step)
        is_blocking = step.shape == "blocking"
        return ExplainedStep(
            hook=step.registration.name,
            number=step.registration.number,
            shape=step.shape,
            effects=step.effects,
            changes_state=step.changes_state,
            is_deferred=step.point in self._fired and step.shape in ("blocking", "capture"),
            waits_for=causes if is_blocking else (),
            starts_after=() if is_blocking else causes,
            overlaps=() if is_blocking else self._overlaps(step),
        )

    def _causes(self, plan: Plan, step: Step) -> tuple[Cause, ...]:
        found: dict[tuple[int, int, str], tuple[str, list[str]]] = {}
        for other in self._in_flight:
            told = self._told(plan, other, step)
            if told is not None:
                key = (other.registration.number, *told)
                found.setdefault(key, (other.registration.name, []))[1].append(other.point)
        return tuple(
            Cause(hook, number, tuple(points), rule, why)
            for (number, rule, why), (hook, points) in sorted(found.items())
        )

    def _told(self, plan: Plan, first: Step, second: Step) -> tuple[int, str] | None:
        """Return the rule by which an earlier part comes first, if any, in the same firing or in an earlier one."""
        if first.point == plan.point and plan.steps.index(first) < plan.steps.index(second):
            told = self._rule(first, second, same_firing=True)
            if told is not None:
                return told
        if first.point not in self._since_drain.get(plan.point, (first.point,)):
            return None
        return self._rule(first, second, same_firing=False)

    def _rule(self, first: Step, second: Step, *, same_firing: bool) -> tuple[int, str] | None:
        earlier, later = first.invocation((0,), 0), second.invocation((1,), 0 if same_firing else 1)
        if not self._board.must_precede(earlier, later):
            return None
        if earlier.hook == later.hook:
            return 1, _OWN_PARTS
        if later.hook in earlier.heard_by:
            return 1, f"it listens to what {first.registration.name} fires"
        if earlier.effects is not None and later.effects is not None:
            return 2, f"both touch {', '.join(_contended(earlier.effects, later.effects))}"
        unknown = " and ".join(
            s.registration.name for s, i in ((first, earlier), (second, later)) if i.effects is None
        )
        declares = f"{unknown} declare{'' if ' and ' in unknown else 's'} no effects"
        if same_firing and earlier.priority != later.priority:
            return 3, f"the priority boundary: {declares}"
        return 4, f"strict ordering: {declares}"

    def _overlaps(self, step: Step) -> tuple[str, ...]:
        free = {
            (other.registration.number, other.registration.name)
            for other in self._in_flight
            if other.registration is not step.registration
            and other.shape != "blocking"
            and self._is_free(other, step)
        }
        return tuple(name for _, name in sorted(free))

    def _is_free(self, one: Step, other: Step) -> bool:
        """Whether two parts of different firings, or of one, may run at the same time."""
        orders = [(one, other), (other, one)]
        firings = (False, True) if one.point == other.point else (False,)
        return any(
            all(self._rule(first, second, same_firing=same) is None for first, second in orders)
            for same in firings
        )


def _contended(one: Effects, other: Effects) -> Iterable[str]:
    written = {name for name in one.writes if conflict(Effects(writes={name}), other)}
    return sorted(written | {name for name in one.reads if conflict(Effects(reads={name}), other)})
