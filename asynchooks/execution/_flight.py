"""Everything in flight: the scoreboard's decisions carried out between two threads, under one lock.

The training thread launches parts, waits for its turn, for room, or for the end; the portal's thread runs
parts and reports their end. Decides nothing about order (scoreboard) or room (backpressure); knows no hook's shape.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from asynchooks.execution._backpressure import Admission, InvocationSkipped, admit
from asynchooks.execution._critical import Critical
from asynchooks.execution._failures import Failure, Warnings, as_exception
from asynchooks.execution._foreground import Foreground
from asynchooks.execution._ledger import Ledger
from asynchooks.execution._part import Deferred, Job, Part, Turn
from asynchooks.execution._parts import Limits, Parts
from asynchooks.execution._program_order import ProgramOrder
from asynchooks.execution._scoreboard import Abandon, Decision, Invocation, Key, Order, Scoreboard, Start
from asynchooks.execution._view import view_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from asynchooks.execution._hook import BackgroundPart
    from asynchooks.execution._plan import Step
    from asynchooks.execution._portal import Portal
    from asynchooks.execution._view import RunnerView
    from asynchooks.instrument import Instrument, SpanKind

__all__ = ["Flight"]


class Flight:
    """The parts in flight, and the waits of the training thread for them.

    Attributes:
        in_flight: the parts in flight by their keys; whether it is empty may be read without the lock.
        attention: there are failures to raise or deferred foreground parts to run; read without the lock.
        ledger: what happened so far.
        foreground: calls methods on the training thread.
    """

    def __init__(self, order: Order, limits: Limits, instrument: Instrument | None) -> None:
        self.attention = False
        self.ledger = Ledger(instrument, inline=order == "inline")
        self._order = order
        self._limits = limits
        self.foreground = Foreground(self.release)
        self._board = Scoreboard(order)
        self._changed = Critical()
        self._parts = Parts()
        self.in_flight: Mapping[Key, Part] = self._parts.by_key
        self._turns: dict[Key, Turn] = {}
        self._failures: dict[Key, Failure] = {}
        self._warnings = Warnings()
        self._program_order = ProgramOrder()
        self._portal: Portal | None = None

    # ---- opening and closing ----

    def open(self, portal: Portal) -> None:
        """Take off: parts run in this portal from now on."""
        self._portal = portal

    def land(self) -> None:
        """Forget the portal, when nothing is in flight any more."""
        self._portal = None
        self._warnings.summarize()

    # ---- the training thread launches and asks ----

    @property
    def busy(self) -> bool:
        """Whether anything is in flight or has failed unraised. Cheap; no lock."""
        return len(self._board) > 0 or self._board.poisoned

    def launch(
        self,
        step: Step,
        firing: int,
        function: BackgroundPart,
        view: RunnerView,
        reserved: int,
    ) -> None:
        """Start a background part when its turn comes. Called on the training thread; does not wait."""
        with self._changed:
            invocation = self._invocation(self._program_order.next(), step, firing)
            part = Part(step, invocation, view, function, None, self.ledger.steps, reserved)
            self._add(part)

    def is_abandoned(self, step: Step, firing: int) -> bool:
        """Whether an unraised failure forbids the step; counts and names it if so."""
        if not self._board.poisoned:
            return False
        with self._changed:
            invocation = self._invocation(self._program_order.next(), step, firing)
            root = self._board.root_failure(invocation)
            if root is None:
                return False
            self._apply(self._board.invoked(invocation), step)
            return True

    def wait_turn(self, step: Step, firing: int) -> bool:
        """Wait until a blocking step may run; False when it is abandoned. A barrier, on the training thread."""
        turn = Turn(step)
        with self._changed:
            invocation = self._invocation(self._program_order.next(), step, firing, immediate=True)
            self._turns[invocation.key] = turn
            self._apply(self._board.invoked(invocation))
        try:
            if turn.granted is None:
                self.wait(lambda: turn.granted is not None, "barrier", step)
        finally:
            with self._changed:
                self._turns.pop(invocation.key, None)
                if turn.granted is None and invocation.key in self._board:  # the wait was interrupted
                    self._apply(self._board.replaced(invocation.key))
        return bool(turn.granted)

    def make_room(self, step: Step, nbytes: int, *, held: int = 0) -> None:
        """Wait for room, drop an older part, or raise `InvocationSkipped`, as the hook's ``when_busy`` says.

        On return ``nbytes`` are reserved. Called on the training thread.
        """
        while True:
            with self._changed:
                decision = self._admission(step, nbytes, held)
                if decision == "admit":
                    self._parts.staged_bytes += nbytes
                    return
                if decision == "skip":
                    self.ledger.tally(step).skipped += 1
                    raise InvocationSkipped(step.name)
                if decision == "replace":
                    self._replace(step)
                    continue
            self.wait(lambda: self._admission(step, nbytes, held) != "wait", "backpressure", step)

    def find_room(self, step: Step, *, held: int) -> bool:
        """Find room for a part that has captured already; False when it is skipped."""
        try:
            self.make_room(step, 0, held=held)
        except InvocationSkipped:
            return False
        return True

    def release(self, nbytes: int) -> None:
        """Give reserved bytes back that no part took over."""
        with self._changed:
            self._parts.staged_bytes -= nbytes
            self._changed.notify()

    # ---- a background part fires a point ----

    def fire_children(
        self,
        parent: Part,
        steps: Iterable[Step],
        firing: int,
        foreground: Deferred,
        part_of: Callable[[Step, RunnerView], BackgroundPart],
    ) -> None:
        """Place the listeners of a point that a background part fires, as its children in program order."""
        with self._changed:
            for step in steps:
                key = ProgramOrder.child(parent.key, parent.children)
                parent.children += 1
                invocation = self._invocation(key, step, firing)
                deferred = foreground if step.shape in ("blocking", "capture") else None
                function = None if deferred else part_of(step, parent.view)
                if function is not None:
                    decision = self._admission(step, 0, 0)
                    if decision == "skip":
                        self.ledger.tally(step).skipped += 1
                        continue
                    if decision == "replace":
                        self._replace(step)
                part = Part(step, invocation, parent.view, function, deferred, self.ledger.steps)
                if deferred is not None:
                    self.attention = True
                self._add(part)

    # ---- waiting ----

    def wait(
        self,
        done: Callable[[], bool],
        kind: SpanKind,
        step: Step | None,
        deadline: float | None = None,
    ) -> bool:
        """Wait on the training thread until ``done``, running deferred foreground parts meanwhile.

        Returns False when ``deadline`` (`time.monotonic`) passed first. Every wait is a span.
        """
        started = time.perf_counter_ns()
        waited_for = self.in_flight_names()
        try:
            while True:
                with self._changed:
                    if done():
                        return True
                    part = self._parts.pop_deferred(captures_may_run=self._order != "inline")
                    if part is None:
                        remaining = None if deadline is None else deadline - time.monotonic()
                        if remaining is not None and remaining <= 0:
                            return False
                        self._changed.wait(remaining)
                        continue
                self._run_foreground(part)
        finally:
            with self._changed:
                self.ledger.waited(kind, step, time.perf_counter_ns() - started)
            if waited_for:
                self.ledger.record(kind, step, started, {"waited_for": list(waited_for)})

    def wait_deferred(self) -> None:
        """Run the deferred foreground parts that are due, in program order."""
        if self._parts.deferred:
            self.wait(lambda: not self._parts.deferred, "barrier", None)

    def wait_inline(self, step: Step) -> None:
        """Wait for everything, as an inline run of the step's part would take: sync mode."""
        self.wait(lambda: not self._board, "barrier", step)

    def wait_idle(self, resources: Iterable[str] | None, deadline: float | None) -> bool:
        """Wait until nothing that touches ``resources`` is in flight; False if the deadline passed first."""
        names = None if resources is None else frozenset(resources)
        return self.wait(
            lambda: not self._parts.deferred and not self._parts.touching(names), "drain", None, deadline
        )

    def raise_failures(self) -> None:
        """Raise what has failed and was not raised yet."""
        error = self.take_failures()
        if error is not None:
            raise error

    def take_failures(self) -> Exception | None:
        """Return what has failed and was not raised yet, as one exception; the caller raises it."""
        with self._changed:
            failures = list(self._failures.values())
            self._failures.clear()
            self._board.acknowledged()
            self.attention = bool(self._parts.deferred)
        return as_exception(failures)

    def abandon_waiting(self) -> None:
        """Give up every part that has not started; called before the portal cancels the others."""
        with self._changed:
            for part in self._parts.in_order():
                if part.key in self._parts and not (part.may_start and part.function):
                    self._fail(part, None)

    # ---- observation ----

    @property
    def staged_bytes(self) -> int:
        """Captured bytes that are held now."""
        return self._parts.staged_bytes

    def in_flight_names(self) -> tuple[str, ...]:
        """Return ``Hook.point`` of what is in flight, in program order."""
        return tuple(part.step.name for part in self._parts.in_order())

    # ---- under the lock ----

    @staticmethod
    def _invocation(key: Key, step: Step, firing: int, *, immediate: bool = False) -> Invocation:
        registration = step.registration
        return Invocation(
            key, registration.number, firing, registration.priority, step.effects, immediate=immediate
        )

    def _add(self, part: Part) -> None:
        self._parts.add(part)
        if part.function is not None:
            self._count_in(part)
        self._apply(self._board.invoked(part.invocation))

    def _count_in(self, part: Part) -> None:
        tally = self.ledger.tally(part.step)
        tally.parts += 1
        tally.in_flight += 1

    def _apply(self, decisions: Iterable[Decision], step: Step | None = None) -> None:
        for decision in decisions:
            turn = self._turns.get(decision.key)
            if isinstance(decision, Start):
                if turn is not None:
                    turn.granted = True
                else:
                    part = self._parts[decision.key]
                    part.may_start = True
                    self._take_off(part)
            elif isinstance(decision, Abandon):
                if turn is not None:
                    turn.granted = False
                    step = turn.step
                self._abandon(decision, step)
        self._changed.notify()

    def _take_off(self, part: Part) -> None:
        if part.function is not None:
            assert self._portal is not None  # noqa: S101 - parts are launched between open and land
            self._portal.submit(Job(self, part))

    def _abandon(self, decision: Abandon, step: Step | None) -> None:
        part = self._parts.get(decision.key)
        if part is not None:
            step = part.step
            self._forget(part)
        if step is not None:
            self.ledger.tally(step).abandoned += 1
            failure = self._failures.get(decision.because)
            if failure is not None:
                failure.abandoned.append(step.name)

    def _forget(self, part: Part) -> None:
        self._parts.discard(part)
        if part.function is not None:
            self.ledger.tally(part.step).in_flight -= 1
            part.function = None

    def _fail(self, part: Part, cause: BaseException | None) -> None:
        self._forget(part)
        self.ledger.tally(part.step).failed += 1
        failure = Failure(part.step, part.view, cause)
        if part.step.registration.on_error == "warn":
            self._warnings.report(failure)
            self._apply(self._board.finished(part.key))
            return
        self._failures[part.key] = failure
        self.attention = True
        self._apply(self._board.failed(part.key))

    def _finish(self, part: Part) -> None:
        self._forget(part)
        self._apply(self._board.finished(part.key))

    def _admission(self, step: Step, nbytes: int, held: int) -> Admission:
        room = self._parts.room(step.registration, self._limits, held)
        replaceable = self._replaceable(step) is not None
        return admit(room, nbytes, step.registration.when_busy, replaceable=replaceable)

    def _replaceable(self, step: Step) -> Part | None:
        waiting = self._parts.of(step.registration, step.point)
        return next((part for part in waiting if not self._board.has_started(part.key)), None)

    def _replace(self, step: Step) -> None:
        part = self._replaceable(step)
        if part is not None:
            self.ledger.tally(step).coalesced += 1
            self._forget(part)
            self._apply(self._board.replaced(part.key))

    # ---- deferred foreground parts, on the training thread ----

    def _run_foreground(self, part: Part) -> None:
        deferred = part.deferred
        assert deferred is not None  # noqa: S101 - popped from the deferred ones
        part.deferred = None
        function: BackgroundPart | None = None
        reserved = 0
        try:
            with self._program_order.before(part.key):
                if part.step.shape == "blocking":
                    self.foreground.call(part.step, deferred.context, deferred.arguments)
                else:
                    function, reserved = self.foreground.capture(
                        part.step, deferred.context, deferred.arguments
                    )
        except BaseException:
            with self._changed:
                self.ledger.tally(part.step).failed += 1
                if part.key in self._parts:
                    self._forget(part)
                    self._apply(self._board.failed(part.key))
                    self._board.acknowledged(part.key)  # raised right here
            raise
        with self._changed:
            self.ledger.tally(part.step).invocations += 1
            if part.key not in self._parts:  # abandoned meanwhile
                self._parts.staged_bytes -= reserved
            elif function is None:
                self._finish(part)
            else:
                part.function, part.reserved, part.view = function, reserved, view_of(deferred.context)
                self._count_in(part)
                if part.may_start:
                    self._take_off(part)

    # ---- on the portal's thread ----

    def ended(self, part: Part, started: int, cause: BaseException | None, *, completed: bool) -> None:
        """Report the end of a part. Called on the portal's thread."""
        lag = self.ledger.steps - part.steps
        self.ledger.record("background", part.step, started, {"lag_steps": lag, "ok": completed})
        with self._changed:
            self.ledger.tally(part.step).ended(time.perf_counter_ns() - started, lag, completed=completed)
            if completed:
                self._finish(part)
            else:
                self._fail(part, cause)
