"""Everything in flight: the scoreboard's decisions carried out between two threads, under one lock.

The training thread launches parts and asks for its turn and for room; the portal's thread runs parts and reports
their end. Decides nothing about order (scoreboard) or room (backpressure); knows no hook's shape.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynchooks.errors import ExecutorClosedError, WrongThreadError
from asynchooks.execution._backpressure import InvocationSkipped
from asynchooks.execution._books import Books
from asynchooks.execution._failures import Failure, as_exception
from asynchooks.execution._foreground import Foreground
from asynchooks.execution._ledger import Ledger
from asynchooks.execution._part import Cancellation, Deferred, Part, Turn
from asynchooks.execution._program_order import ProgramOrder
from asynchooks.execution._scoreboard import Key, Order
from asynchooks.execution._waits import Waits

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from asynchooks.execution._agreement import Agreement
    from asynchooks.execution._foreground import Captured
    from asynchooks.execution._hook import BackgroundPart
    from asynchooks.execution._parts import Limits
    from asynchooks.execution._plan import Step
    from asynchooks.execution._portal import Portal
    from asynchooks.execution._view import RunnerView
    from asynchooks.instrument import Instrument

__all__ = ["Flight"]


class Flight(Books):
    """The parts in flight.

    Attributes:
        in_flight: the parts in flight by their keys; whether it is empty may be read without the lock.
        attention: there are failures to raise, deferred foreground parts to run, or one runs now, or each firing
            may be one at which ranks agree; read without the lock.
        agreement: with whom a failure is raised together; None raises it at once.
        deferring: the part whose deferred foreground runs now, or None. Training thread only.
        ledger: what happened so far.
        foreground: calls methods on the training thread; its captures and barriers stand here too, where the
            fast path reads them.
        waits: what the training thread waits for.
    """

    def __init__(self, order: Order, limits: Limits, instrument: Instrument | None) -> None:
        super().__init__(order, limits, Ledger(instrument, inline=order == "inline"))
        self.deferring: Part | None = None
        self.agreement: Agreement | None = None
        self.foreground = Foreground(self.release, self.ledger)
        self.captures = self.foreground.captures
        self.barriers = self.foreground.barriers
        self._program_order = ProgramOrder()
        self.waits = Waits(
            self._changed,
            self._parts,
            self._program_order,
            self.ledger,
            self._run_foreground,
            captures_may_run=order != "inline",
        )

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

    def launch(self, step: Step, firing: int, captured: Captured) -> None:
        """Start a background part when its turn comes. Called on the training thread; does not wait."""
        with self._changed:
            if self._portal is None:
                self._parts.staged_bytes -= captured.reserved
                raise ExecutorClosedError(f"{step.name}: a hook of this firing has closed the executor.")
            part = Part(
                step,
                step.invocation(self._program_order.next(), firing),
                captured.view,
                captured.function,
                deferred=None,
                steps=self.ledger.steps,
                is_background=True,
                reserved=captured.reserved,
            )
            self._add(part)

    def is_abandoned(self, step: Step, firing: int) -> bool:
        """Whether an unraised failure forbids the step; counts and names it if so."""
        if not self._board.poisoned:
            return False
        with self._changed:
            invocation = step.invocation(self._program_order.next(), firing)
            root = self._board.root_failure(invocation)
            if root is None:
                return False
            self._apply(self._board.invoked(invocation), step)
            return True

    def in_turn(self, step: Step, firing: int, call: Callable[[], None]) -> None:
        """Call a blocking method when its turn has come: a barrier.

        It is abandoned where what it has to follow has failed; not with an agreement: it may hold a collective.
        """
        turn = Turn(step, is_joint=self.agreement is not None)
        key, is_last = self._program_order.next_turn()
        try:
            with self._changed:
                self._turns[key] = turn
                self._apply(self._board.invoked(step.invocation(key, firing, immediate=is_last)))
                if turn.granted is not None:
                    del self._turns[key]
            if turn.granted is None:
                self.waits.until(lambda: turn.granted is not None, "barrier", step)
            if turn.granted and is_last:
                call()
            elif turn.granted:
                with self._program_order.before(key):
                    call()
        finally:
            if turn.granted is None or key in self._board:  # interrupted, or over
                with self._changed:
                    self._apply(self._board.finished(key))
            self._turns.pop(key, None)

    def make_room(self, step: Step, nbytes: int, *, held: int, may_skip: bool) -> None:
        """Wait for room, drop an older part, or raise `InvocationSkipped`, as the hook's ``when_busy`` says.

        Without ``may_skip``, a hook that would skip waits. On return ``nbytes`` are reserved. What could only wait
        for itself is let through: for the capture around it, or, inside a deferred method, for what has to follow
        that. Called on the training thread.
        """
        while True:
            with self._changed:
                decision = self._admission(step, nbytes, held, may_skip=may_skip)
                if decision == "admit" or not self._parts.any_touching(None, self._program_order.here):
                    self._parts.staged_bytes += nbytes
                    return
                if decision == "skip":
                    self.ledger.tally(step).skipped += 1
                    raise InvocationSkipped(step.name)
                if decision == "replace":
                    self._replace(step)
                    continue
            self.waits.until(
                lambda: self._may_proceed(step, nbytes, held, may_skip=may_skip), "backpressure", step
            )

    def release(self, nbytes: int) -> None:
        """Give reserved bytes back that no part took over."""
        with self._changed:
            self._parts.staged_bytes -= nbytes
            self._changed.notify()

    # ---- a background part fires a point ----

    def fire_children(
        self,
        parent: Part,
        point: str,
        steps: Iterable[Step],
        firing: int,
        foreground: Deferred,
        part_of: Callable[[Step, RunnerView], BackgroundPart],
    ) -> None:
        """Place the listeners of a point that a background part fires, as its children in program order."""
        with self._changed:
            if self._parts.get(parent.key) is not parent:
                raise WrongThreadError(
                    f"{parent.step.name} fires {point!r} after it has ended, or on an executor that does not run "
                    f"it; a background part fires, before it returns, on the executor that runs it."
                )
            for step in steps:
                key = ProgramOrder.child(parent.key, parent.children)
                parent.children += 1
                invocation = step.invocation(key, firing)
                deferred = foreground if step.shape in ("blocking", "capture") else None
                function = None if deferred else part_of(step, parent.view)
                if function is not None:
                    decision = self._admission(step, 0, 0, may_skip=True)
                    if decision == "skip":
                        self.ledger.tally(step).skipped += 1
                        continue
                    if decision == "replace":
                        self._replace(step)
                part = Part(
                    step,
                    invocation,
                    parent.view,
                    function,
                    deferred,
                    self.ledger.steps,
                    is_background=function is not None,
                )
                if deferred is not None:
                    self.attention = True
                self._add(part)

    # ---- failures ----

    @property
    def has_failed(self) -> bool:
        """Whether something has failed and was not raised yet. Cheap; no lock."""
        return bool(self._failures)

    def take_failures(self, *, everything: bool = True) -> Exception | None:
        """Return what has failed and was not raised yet, as one exception; the caller raises it.

        Args:
            everything: False leaves, inside a deferred method, what comes after it.
        """
        before = None if everything else self._program_order.here
        with self._changed:
            keys = [key for key in self._failures if before is None or key < before]
            failures = [self._failures.pop(key) for key in keys]
            for key in keys:
                self._board.acknowledged(key)
            self.look()
        return as_exception(failures)

    def take_given_up(self) -> tuple[str, ...]:
        """Forget the failures that are cancellations; return the parts' names, and what waited for them."""
        with self._changed:
            keys = [key for key, failure in self._failures.items() if failure.is_given_up]
            failures = [self._failures.pop(key) for key in keys]
            for key in keys:
                self._board.acknowledged(key)
        return tuple(name for failure in failures for name in (failure.step.name, *failure.abandoned))

    def look(self) -> None:
        """Have the next firings look at more than their own hooks, where there is anything to see."""
        is_busy = bool(self._parts.deferred or self._failures) or self.deferring is not None
        self.attention = is_busy or self.agreement is not None

    def give_up(self, keys: Collection[Key] | None = None) -> None:
        """Give up parts: those that have not started never will; the others are cancelled, unless all are meant.

        Args:
            keys: which; None for all, of which the portal cancels those that have started.
        """
        started = []
        with self._changed:
            for part in self._parts.in_order():
                if part.key not in self._parts or (keys is not None and part.key not in keys):
                    continue
                if not (part.may_start and part.is_background):
                    self._fail(part, None)
                elif keys is not None:
                    started.append(part)
        self._warnings.log()
        if started and self._portal is not None:
            self._portal.submit(Cancellation(started))

    def in_flight_steps(self) -> list[tuple[Key, Step, frozenset[Key]]]:
        """Return what is in flight, in program order, each with what has to finish before it."""
        with self._changed:
            return [(p.key, p.step, self._board.before(p.key)) for p in self._parts.in_order()]

    # ---- observation ----

    @property
    def staged_bytes(self) -> int:
        """Captured bytes that are held now."""
        return self._parts.staged_bytes

    def in_flight_names(self) -> tuple[str, ...]:
        """Return ``Hook.point`` of what is in flight, in program order."""
        return self._parts.names()

    # ---- deferred foreground parts, on the training thread ----

    def _run_foreground(self, part: Part) -> None:
        deferred = part.deferred
        assert deferred is not None  # noqa: S101 - popped from the deferred ones
        part.deferred = None
        captured: Captured | None = None
        outer, self.deferring, self.attention = self.deferring, part, True
        try:
            with self._program_order.before(part.key):
                if part.step.shape == "blocking":
                    self.foreground.call(part.step, deferred.context, deferred.arguments)
                else:
                    captured = self.foreground.capture(part.step, deferred.context, deferred.arguments)
        except BaseException as error:
            self._fail_foreground(part, error)
            raise
        finally:
            self.deferring = outer
        with self._changed:
            if part.key not in self._parts:  # abandoned meanwhile
                self._parts.staged_bytes -= captured.reserved if captured is not None else 0
            elif captured is None:
                self._finish(part)
            else:
                part.function, part.view, part.reserved = captured.function, captured.view, captured.reserved
                part.is_background = True
                self.ledger.tally(part.step).launched()
                if part.may_start:  # but what was fired inside the capture comes first
                    part.may_start = False
                    self._apply(self._board.asked_again(part.key))

    def _fail_foreground(self, part: Part, error: BaseException) -> None:
        """Abandon what had to follow a deferred method that raises; the error itself is raised right here."""
        failure = Failure(part.step, part.view, part.steps, error)
        with self._changed:
            self.ledger.tally(part.step).failed += 1
            if part.key in self._parts:
                self._forget(part)
                self._failures[part.key] = failure
                self._apply(self._board.failed(part.key))
                del self._failures[part.key]
                self._board.acknowledged(part.key)
        if failure.abandoned:
            error.add_note(failure.abandoned_note)
