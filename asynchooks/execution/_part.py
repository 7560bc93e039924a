"""One invocation in flight, and how the portal runs it."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import anyio

from asynchooks.execution._foreground import check_blocking_result

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from asynchooks.execution._hook import BackgroundPart
    from asynchooks.execution._ledger import Ledger, Mark
    from asynchooks.execution._plan import Step
    from asynchooks.execution._scoreboard import Invocation, Key
    from asynchooks.execution._view import RunnerView

__all__ = ["Cancellation", "Deferred", "Job", "Part", "Turn", "current_part", "whole_body"]

current_part: ContextVar[Part | None] = ContextVar("asynchooks_current_part", default=None)


class _Ends(Protocol):
    """Where a job reports its end."""

    @property
    def ledger(self) -> Ledger: ...

    def ended(self, part: Part, mark: Mark, cause: BaseException | None, *, completed: bool) -> None: ...


@dataclass(frozen=True, slots=True)
class Deferred:
    """What a listener of a point fired from the background still has to do on the training thread."""

    context: object
    arguments: Mapping[str, Any]


@dataclass(slots=True, eq=False)
class Part:
    """One invocation in flight.

    Attributes:
        step: the hook's step.
        invocation: its place in program order.
        view: the run as it was at the capture.
        function: the background part until it starts; None while its foreground is deferred.
        deferred: the foreground still to run on the training thread, or None.
        steps: training steps fired at the capture.
        is_background: it has, or had, a background part; False for deferred blocking methods.
        reserved: staged bytes released at its end.
        children: invocations that it has fired.
        may_start: the scoreboard's decision has come.
        is_given_up: it is to be cancelled. On the portal's thread.
        scope: cancels it while it runs. On the portal's thread.
    """

    step: Step
    invocation: Invocation
    view: RunnerView
    function: BackgroundPart | None
    deferred: Deferred | None
    steps: int
    is_background: bool = False
    reserved: int = 0
    children: int = 0
    may_start: bool = False
    is_given_up: bool = False
    scope: anyio.CancelScope | None = None

    @property
    def key(self) -> Key:
        """Place in program order."""
        return self.invocation.key


class Turn:
    """A blocking method that waits on the training thread.

    Attributes:
        granted: whether it is called; None until decided.
        is_joint: it is called whatever has failed: other processes may meet in it.
    """

    __slots__ = ("granted", "is_joint", "step")

    def __init__(self, step: Step, *, is_joint: bool) -> None:
        self.step = step
        self.is_joint = is_joint
        self.granted: bool | None = None


class Job:
    """A part as the portal runs it: reports its end, whatever it is, and raises nothing."""

    __slots__ = ("_flight", "_part")

    def __init__(self, flight: _Ends, part: Part) -> None:
        self._flight = flight
        self._part = part

    async def __call__(self, scope: anyio.CancelScope) -> None:
        part, function = self._part, self._part.function
        assert function is not None  # noqa: S101 - what has started is never abandoned
        part.function = None  # what it captured goes when it ends, outside of the lock
        part.scope = scope
        if part.is_given_up:
            scope.cancel()
        current_part.set(part)
        mark = self._flight.ledger.mark()
        completed = False
        cause: BaseException | None = None
        try:
            await function()
            completed = True
        except anyio.get_cancelled_exc_class() as error:
            if scope.cancel_called:
                raise
            cause = error  # by other code than the portal: it must not reach the portal's task group
        except BaseException as error:  # noqa: BLE001 - told to the training thread, at its next firing
            cause = error
        finally:
            del function
            part.scope = None
            self._flight.ended(part, mark, cause, completed=completed)
            del cause  # its traceback holds this frame: the cycle would keep what was captured


class Cancellation:
    """A job that cancels parts that the portal has been given; what shields itself still finishes."""

    __slots__ = ("_parts",)

    def __init__(self, parts: Iterable[Part]) -> None:
        self._parts = tuple(parts)

    async def __call__(self, scope: anyio.CancelScope) -> None:
        del scope
        for part in self._parts:
            part.is_given_up = True
            if part.scope is not None:
                part.scope.cancel()


def whole_body(step: Step, view: RunnerView, arguments: Mapping[str, object]) -> BackgroundPart:
    """Return the background part of an ``async def``, or of a blocking method that runs in a worker thread."""
    call = partial(step.method, view, **arguments)
    if step.shape == "async":
        return call

    async def run_in_worker() -> None:
        check_blocking_result(step, await anyio.to_thread.run_sync(call))

    return run_in_worker
