"""The books of what is in flight: parts, turns, failures and the scoreboard's decisions about them.

Whatever is done here is done under one lock, which its user holds. Decides nothing; waits for nothing.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from asynchooks.execution._backpressure import Admission, admit
from asynchooks.execution._critical import Critical
from asynchooks.execution._failures import Failure, Warnings
from asynchooks.execution._part import Job, Part, Turn
from asynchooks.execution._parts import Limits, Parts
from asynchooks.execution._scoreboard import Abandon, Decision, Key, Order, Scoreboard, Start

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from asynchooks.execution._ledger import Ledger, Mark
    from asynchooks.execution._plan import Step
    from asynchooks.execution._portal import Portal
    from asynchooks.execution._program_order import ProgramOrder

__all__ = ["Books"]


class Books:
    """What the flight knows of its parts; its methods are called with the lock held, but `ended`.

    Attributes:
        attention: as of `Flight`.
        in_flight: as of `Flight`.
        ledger: as of `Flight`.
    """

    _program_order: ProgramOrder

    def __init__(self, order: Order, limits: Limits, ledger: Ledger) -> None:
        self.attention = False
        self.ledger = ledger
        self._limits = limits
        self._board = Scoreboard(order)
        self._changed = Critical()
        self._parts = Parts()
        self.in_flight: Mapping[Key, Part] = self._parts.by_key
        self._turns: dict[Key, Turn] = {}
        self._failures: dict[Key, Failure] = {}
        self._warnings = Warnings()
        self._portal: Portal | None = None

    def _add(self, part: Part) -> None:
        self._parts.add(part)
        if part.is_background:
            self.ledger.tally(part.step).launched()
        self._apply(self._board.invoked(part.invocation))

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
                    turn.granted = turn.is_joint
                    step = turn.step
                if turn is None or not turn.is_joint:
                    self._abandon(decision, step)
        self._changed.notify()

    def _take_off(self, part: Part) -> None:
        if part.is_background:
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
        part.function = None
        if part.is_background:
            self.ledger.tally(part.step).in_flight -= 1

    def _fail(self, part: Part, cause: BaseException | None) -> None:
        self._forget(part)
        self.ledger.tally(part.step).failed += 1
        failure = Failure(part.step, part.view, part.steps, cause)
        if part.step.registration.on_error == "warn":
            self._warnings.note(failure)
            self._apply(self._board.finished(part.key))
            return
        self._failures[part.key] = failure
        self.attention = True
        self._apply(self._board.failed(part.key))

    def _finish(self, part: Part) -> None:
        self._forget(part)
        self._apply(self._board.finished(part.key))

    def _admission(self, step: Step, nbytes: int, held: int, *, may_skip: bool) -> Admission:
        when_busy = step.registration.when_busy
        if when_busy == "skip" and not may_skip:
            when_busy = "wait"
        room = self._parts.room(step.registration, self._limits, held)
        replaceable = self._replaceable(step) is not None
        return admit(room, nbytes, when_busy, replaceable=replaceable)

    def _may_proceed(self, step: Step, nbytes: int, held: int, *, may_skip: bool) -> bool:
        is_first = not self._parts.any_touching(None, self._program_order.here)
        return is_first or self._admission(step, nbytes, held, may_skip=may_skip) != "wait"

    def _replaceable(self, step: Step) -> Part | None:
        waiting = self._parts.of(step.registration, step.point)
        return next((part for part in waiting if not self._board.has_started(part.key)), None)

    def _replace(self, step: Step) -> None:
        part = self._replaceable(step)
        if part is not None:
            self.ledger.tally(step).coalesced += 1
            self._forget(part)
            self._apply(self._board.replaced(part.key))

    # ---- on the portal's thread ----

    def ended(self, part: Part, mark: Mark, cause: BaseException | None, *, completed: bool) -> None:
        """Report the end of a part. Called on the portal's thread."""
        lag = self.ledger.steps - part.steps
        self.ledger.record("background", part.step, mark, {"lag_steps": lag, "ok": completed})
        with self._changed:
            elapsed_ns = time.perf_counter_ns() - mark.start_ns
            self.ledger.tally(part.step).ended(elapsed_ns, lag, completed=completed)
            if completed:
                self._finish(part)
            else:
                self._fail(part, cause)
        self._warnings.log()
