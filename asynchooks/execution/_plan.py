"""The compiled schedule of one hook point. Pure.

Decides, from what the hooks declare, which methods run at a point, in which order, and which of them could ever
make the training thread wait; what cannot wait is called without asking anybody.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from asynchooks.execution._effects import Effects, conflict, union
from asynchooks.execution._hook import Shape, overridden_method, shape_of
from asynchooks.execution._scoreboard import Invocation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from asynchooks.execution._registration import Registration
    from asynchooks.execution._scoreboard import Key, Ordering

__all__ = ["Plan", "Step", "compile_plan"]

_COUNTED = ("after_train_iter", "after_train_epoch")


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One hook's part in a firing.

    Attributes:
        registration: the hook.
        point: the hook point.
        method: what to call with the context and the firing's arguments.
        shape: how it runs; a blocking method of a hook in background mode has the shape "worker".
        effects: the hook's effects and those of the listeners of the points that it fires.
        changes_state: whether its foreground part may change training state.
        may_wait: whether an in-flight background part could ever have to finish before it (blocking only).
        may_fire: the points that its background part may fire, and their listeners, and so on.
        heard_by: the hooks, by their numbers, that listen to the points that its background part may fire.
        is_unknown: whether it, or one of these, declares no effects.
    """

    registration: Registration
    point: str
    method: Callable[..., Any]
    shape: Shape
    effects: Effects | None
    changes_state: bool
    may_wait: bool
    may_fire: frozenset[str]
    heard_by: frozenset[int]
    is_unknown: bool

    def invocation(self, key: Key, firing: int, *, immediate: bool = False) -> Invocation:
        """Return an invocation of the step, as far as order is concerned."""
        hook = self.registration
        return Invocation(
            key,
            hook.number,
            firing,
            hook.priority,
            self.effects,
            immediate=immediate,
            heard_by=self.heard_by,
        )

    def may_touch(self, names: frozenset[str]) -> bool:
        """Whether the step, or a listener of what it fires, touches one of the resources, or may do so."""
        return self.is_unknown or self.effects is None or self.effects.covers(names)

    @property
    def name(self) -> str:
        """``Hook.point``, as errors and spans show it."""
        return f"{self.registration.name}.{self.point}"


@dataclass(slots=True, eq=False)
class Plan:
    """The steps of one point, in order of execution.

    Attributes:
        point: the hook point.
        steps: all steps.
        inline: the methods alone, where every step blocks and none may wait: called without further ado.
        counted: the executor counts this point's firings as progress of the run.
        idle: nothing happens at this point.
        firings: how often the point was fired with this plan, where it runs inline.
    """

    point: str
    steps: tuple[Step, ...]
    inline: tuple[Callable[..., Any], ...] | None
    counted: bool
    idle: bool
    firings: int = field(default=0)

    def step_of(self, method: Callable[..., Any]) -> Step:
        """Return the step of a method of this plan."""
        return next(step for step in self.steps if step.method is method)


def compile_plan(
    point: str, registrations: Sequence[Registration], custom_points: Sequence[str], ordering: Ordering
) -> Plan:
    """Compile the plan of a point from the hooks in order of execution."""
    listeners = _Listeners(registrations, custom_points, ordering)
    steps = tuple(listeners.step(registration, point) for registration in listeners.at(point))
    inline = None
    if all(step.shape == "blocking" and not step.may_wait for step in steps):
        inline = tuple(step.method for step in steps)
    counted = point in _COUNTED
    idle = not steps and not counted
    return Plan(point, steps, inline, counted, idle)


class _Listeners:
    """Who listens where, and what each touches."""

    def __init__(
        self, registrations: Sequence[Registration], custom_points: Sequence[str], ordering: Ordering
    ) -> None:
        self._registrations = registrations
        self._ordering = ordering
        self._fired = {point for r in registrations for point in r.fires}
        self._points = {*custom_points, *self._fired, *(p for r in registrations for p in r.methods)}
        self._listeners = {point: self.at(point) for point in self._fired}

    def at(self, point: str) -> list[Registration]:
        return [r for r in self._registrations if overridden_method(r.hook, point) is not None]

    def step(self, registration: Registration, point: str) -> Step:
        method, shape = _bind(registration, point)
        effects = self._effects(registration)
        reached = self._reached(registration)
        return Step(
            registration=registration,
            point=point,
            method=method,
            shape=shape,
            effects=effects,
            changes_state=registration.changes_state and shape in ("blocking", "capture"),
            may_wait=shape == "blocking" and self._may_wait(registration, point, effects),
            may_fire=frozenset(point for r in (registration, *reached) for point in r.fires),
            heard_by=frozenset() if shape == "blocking" else frozenset(r.number for r in reached),
            is_unknown=registration.effects is None or any(r.effects is None for r in reached),
        )

    def _reached(self, registration: Registration) -> list[Registration]:
        """Return the listeners of what a hook fires, of what these fire, and so on; perhaps the hook itself."""
        reached: list[Registration] = []
        points = list(registration.fires)
        for point in points:  # grows while it is walked
            for listener in self._listeners[point]:
                if listener not in reached:
                    reached.append(listener)
                    points += listener.fires
        return reached

    def _effects(self, registration: Registration) -> Effects | None:
        """What a hook touches together with the listeners of the points that its background parts fire.

        Listeners that declare nothing are unknown by themselves; only under strict ordering do they make the
        hook that fires them unknown too.
        """
        if registration.effects is None:
            return None
        heard = [r.effects for r in self._reached(registration)]
        return union(
            [registration.effects, *(e for e in heard if self._ordering == "strict" or e is not None)]
        )

    def _may_wait(self, waiting: Registration, point: str, effects: Effects | None) -> bool:
        return any(
            self._may_be_followed(other, waiting, point, effects)
            for other in self._registrations
            if other.has_background or self._has_background(other, *self._points, point)
        )

    def _may_be_followed(
        self, other: Registration, waiting: Registration, point: str, effects: Effects | None
    ) -> bool:
        if other is waiting:
            return True
        theirs = self._effects(other)
        if effects is not None and theirs is not None:
            return conflict(theirs, effects)
        return self._ordering == "strict" or (
            other.priority < waiting.priority and self._has_background(other, point)
        )

    def _has_background(self, registration: Registration, *points: str) -> bool:
        return any(
            point in self._fired or _bind(registration, point)[1] != "blocking"
            for point in points
            if overridden_method(registration.hook, point) is not None
        )


def _bind(registration: Registration, point: str) -> tuple[Callable[..., Any], Shape]:
    found = overridden_method(registration.hook, point)
    assert found is not None, f"{registration.name} does not override {point}"  # noqa: S101 - callers asked
    method, mode = found
    shape = shape_of(method)
    if shape == "blocking" and registration.in_background:
        shape = "worker"
    if mode is None:
        return method, shape
    return (partial(_call_generic, method, mode) if "epoch" in point else partial(method, mode=mode)), shape


def _call_generic(
    method: Callable[..., Any], mode: str, runner: Any, metrics: Mapping[str, float] | None = None
) -> Any:
    del metrics  # `_after_epoch(runner, mode)` takes none, as in MMEngine
    return method(runner, mode=mode)
