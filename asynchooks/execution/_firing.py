"""A firing carried out step by step on the training thread: blocking methods, captures, launches.

Decides nothing about order or room; asks the flight before each step that could have to wait.
"""

from __future__ import annotations

import itertools
from functools import partial
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from asynchooks.errors import HookDefinitionError, WrongThreadError
from asynchooks.execution._agreement import raise_failures
from asynchooks.execution._backpressure import InvocationSkipped
from asynchooks.execution._foreground import Captured
from asynchooks.execution._part import Deferred, current_part, whole_body
from asynchooks.execution._view import freeze_arguments, view_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from asynchooks.execution._flight import Flight
    from asynchooks.execution._plan import Plan, Step

__all__ = ["Firings"]


class Firings:
    """Carries plans out. Training thread only, except `next_number`."""

    def __init__(self, flight: Flight, *, inline: bool) -> None:
        self._flight = flight
        self._inline = inline
        self._numbers = itertools.count()

    def next_number(self) -> int:
        """Return the identity of one more firing. Called on any thread."""
        return next(self._numbers)

    def run(self, plan: Plan, context: object, arguments: dict[str, Any]) -> None:
        """Run the steps of a plan in order."""
        flight = self._flight
        foreground = flight.foreground
        firing = next(self._numbers)
        for step in plan.steps:
            if step.shape == "blocking":
                if step.may_wait and flight.busy:
                    flight.in_turn(step, firing, partial(foreground.call, step, context, arguments))
                else:
                    foreground.call(step, context, arguments)
            elif flight.agreement is not None or not flight.is_abandoned(step, firing):
                if step.shape == "capture":
                    captured = foreground.capture(step, context, arguments)
                else:
                    captured = self._whole_body(step, context, arguments)
                if captured is not None:
                    self._launch(step, firing, captured)

    def run_from_background(
        self,
        plan_of: Callable[[str], Plan],
        point: str,
        context: object,
        arguments: Mapping[str, Any],
    ) -> None:
        """Place the steps of a point that the background part which calls this fires. Any thread.

        Raises:
            WrongThreadError: no background part calls this.
            HookDefinitionError: its hook does not declare the point.
        """
        part = current_part.get()
        if part is None:
            raise WrongThreadError(
                f"fire_nowait({point!r}) belongs into a background part; the training thread calls fire()."
            )
        hook = part.step.registration
        if point not in hook.fires:
            raise HookDefinitionError(
                f"{part.step.name} fires {point!r} from the background without declaring it; set `fires = "
                f"{(*hook.fires, point)!r}` on {hook.name}, so that the order can respect it."
            )
        frozen = freeze_arguments(arguments)
        self._flight.fire_children(
            part,
            point,
            plan_of(point).steps,
            self.next_number(),
            Deferred(context, arguments),
            lambda step, view: whole_body(step, view, frozen),
        )

    def attend(self, point: str) -> None:
        """Run the deferred foreground parts that are due, and raise what has failed, before a point is fired.

        Raises:
            HookDefinitionError: the point is fired inside a deferred method that does not declare it.
        """
        part = self._flight.deferring
        if part is not None and point not in part.step.may_fire:
            hook = part.step.registration.name
            raise HookDefinitionError(
                f"{part.step.name}, fired from the background, fires {point!r} itself or in a hook that it calls, "
                f"without declaring it; add {point!r} to {hook}.fires, so that the order can respect it."
            )
        self._flight.waits.deferred()
        raise_failures(self._flight, point)

    def count_step(self, point: str, context: object) -> None:
        """Count a firing that is progress of the run, and tell a context that counts for itself."""
        if point == "after_train_iter":
            self._flight.ledger.steps += 1
        fired = getattr(context, "hook_point_fired", None)
        if fired is not None:
            fired(point)

    def _whole_body(self, step: Step, context: object, arguments: dict[str, Any]) -> Captured:
        ledger = self._flight.ledger
        tally = ledger.tally(step)
        tally.invocations += 1
        start_ns, exposed_ns = perf_counter_ns(), ledger.exposed_ns
        view = view_of(context)
        part = whole_body(step, view, freeze_arguments(arguments))
        ledger.captured(step, tally, start_ns, exposed_ns, None)
        return Captured(part, view, 0)

    def _launch(self, step: Step, firing: int, captured: Captured) -> None:
        try:
            self._flight.make_room(step, 0, held=captured.reserved, may_skip=captured.may_skip)
        except BaseException as error:
            self._flight.release(captured.reserved)
            if isinstance(error, InvocationSkipped):
                return
            raise
        self._flight.launch(step, firing, captured)
        if self._inline:
            self._flight.waits.inline(step)
            raise_failures(self._flight, "")
