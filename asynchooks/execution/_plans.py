"""The registered hooks and the plans compiled from them, one per hook point that was reached."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from asynchooks.errors import HookDefinitionError, UnknownPointError, did_you_mean
from asynchooks.execution._plan import Plan, compile_plan, positional
from asynchooks.execution._points import POINTS, check_point_name
from asynchooks.execution._registration import HookMode, Registration, registration_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from asynchooks.execution._ledger import Ledger
    from asynchooks.execution._priority import PriorityLike
    from asynchooks.execution._scoreboard import Ordering
    from asynchooks.execution._statistics import HookStatistics

__all__ = ["Cell", "Plans"]


class Cell:
    """The plan of a point and its methods, to be called by position.

    Attributes:
        methods: None where the executor must be asked.
        plan: the plan that they come from; meaningless without methods.
    """

    __slots__ = ("methods", "plan")

    plan: Plan

    def __init__(self) -> None:
        self.methods: tuple[Callable[..., Any], ...] | None = None

    def bind(self, plan: Plan | None) -> None:
        """Take the methods of a plan that runs inline, or none."""
        self.methods = None
        if plan is not None:
            self.plan = plan
            self.methods = tuple(map(positional, plan.steps))


class Plans:
    """Compiles a plan when its point is first fired; registering a hook makes all plans stale.

    Attributes:
        registrations: the hooks in order of execution.
        compiled: the plans so far, by point; read on the hot path.
        cells: what the callables of `HookExecutor.firing` read, by point.
    """

    def __init__(self, custom_points: tuple[str, ...], ordering: Ordering, ledger: Ledger) -> None:
        self.registrations: list[Registration] = []
        self.compiled: dict[str, Plan] = {}
        self.cells: dict[str, Cell] = {}
        self._custom_points = custom_points
        self._ordering = ordering
        self._ledger = ledger
        self._lock = threading.Lock()
        self._is_open = False

    def register(self, hook: object, *, priority: PriorityLike | None, mode: HookMode | None) -> None:
        """Register a hook; see `HookExecutor.register`."""
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
        with self._lock:
            self.registrations.append(registration)
            self.registrations.sort(key=lambda r: (r.priority, r.number))
            self._forget()

    def open(self) -> None:
        """From now on, callables of `HookExecutor.firing` need not ask the executor."""
        with self._lock:
            self._forget()
            self._is_open = True

    def close(self) -> None:
        """From now on, callables of `HookExecutor.firing` ask the executor, which refuses."""
        with self._lock:
            self._forget()
            self._is_open = False

    def _forget(self) -> None:
        for plan in self.compiled.values():
            for step in plan.steps:
                self._ledger.tally(step).invocations += plan.firings
        self.compiled.clear()
        for cell in self.cells.values():
            cell.bind(None)

    def cell(self, point: str) -> Cell:
        """Return what the callable that fires a point reads."""
        return self.cells.setdefault(point, Cell())

    def compile(self, point: str) -> Plan:
        """Compile the plan of a point; raise `UnknownPointError` where nobody knows the point."""
        with self._lock:
            check_point_name(point)
            plan = compile_plan(point, self.registrations, self._custom_points, self._ordering)
            if not plan.steps and point not in POINTS and point not in self._custom_points:
                raise UnknownPointError(
                    f"no hook point is called {point!r}: it is none of the standard ones, no registered hook "
                    f"defines it, and it is not among HookExecutor(points=...).{did_you_mean(point, POINTS)}"
                )
            for step in plan.steps:
                self._ledger.tally(step)
            self.compiled[point] = plan
            if self._is_open and plan.inline is not None:
                self.cell(point).bind(plan)
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
