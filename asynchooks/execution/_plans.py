"""The registered hooks and the plans compiled from them, one per hook point that was reached."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from asynchooks.errors import HookDefinitionError, UnknownPointError, did_you_mean
from asynchooks.execution._plan import Plan, compile_plan
from asynchooks.execution._points import POINTS, check_point_name
from asynchooks.execution._registration import HookMode, Registration, registration_of

if TYPE_CHECKING:
    from asynchooks.execution._ledger import Ledger
    from asynchooks.execution._priority import PriorityLike
    from asynchooks.execution._scoreboard import Ordering
    from asynchooks.execution._statistics import HookStatistics

__all__ = ["Plans"]


class Plans:
    """Compiles a plan when its point is first fired; registering a hook makes all plans stale.

    Attributes:
        registrations: the hooks in order of execution.
        compiled: the plans so far, by point; read on the hot path.
    """

    def __init__(self, custom_points: tuple[str, ...], ordering: Ordering, ledger: Ledger) -> None:
        self.registrations: tuple[Registration, ...] = ()
        self.compiled: dict[str, Plan] = {}
        self._custom_points = custom_points
        self._ordering = ordering
        self._ledger = ledger
        self._lock = threading.Lock()

    def register(self, hook: object, *, priority: PriorityLike | None, mode: HookMode | None) -> None:
        """Register a hook; see `HookExecutor.register`."""
        with self._lock:
            if any(registration.hook is hook for registration in self.registrations):
                raise HookDefinitionError(
                    f"this {type(hook).__name__} is registered already; register a second instance to run twice."
                )
            registration = registration_of(
                hook,
                number=len(self.registrations),
                priority=priority,
                mode=mode,
                custom_points=self._custom_points,
            )
            registrations = (*self.registrations, registration)
            self.registrations = tuple(sorted(registrations, key=lambda r: (r.priority, r.number)))
            for plan in self.compiled.values():
                for step in plan.steps:
                    self._ledger.tally(step).invocations += plan.firings
            self.compiled.clear()

    def compile(self, point: str) -> Plan:
        """Compile the plan of a point; raise `UnknownPointError` where nobody knows the point."""
        with self._lock:
            check_point_name(point)
            plan = compile_plan(point, self.registrations, self._custom_points, self._ordering)
            known = (*POINTS, *self._custom_points)
            if not plan.steps and point not in known:
                raise UnknownPointError(
                    f"no hook point is called {point!r}: it is none of the standard ones, no registered hook "
                    f"defines it, and it is not among HookExecutor(points=...).{did_you_mean(point, known)}"
                )
            for step in plan.steps:
                self._ledger.tally(step)
            self.compiled[point] = plan
            return plan

    def statistics(self) -> tuple[HookStatistics, ...]:
        """Return the rows of every hook and point reached, by registration, points in the order of a run."""
        with self._lock:
            firings = {
                (step.registration.number, point): plan.firings
                for point, plan in self.compiled.items()
                for step in plan.steps
            }
        order = {point: index for index, point in enumerate((*POINTS, *self.compiled))}
        tallies = sorted(
            self._ledger.tallies().items(), key=lambda item: (item[0][0], order.get(item[0][1], len(order)))
        )
        return tuple(tally.frozen(firings.get(key, 0)) for key, tally in tallies)
