"""One invocation in flight, and how the portal runs it."""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import anyio

from asynchooks.execution._foreground import check_blocking_result

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asynchooks.execution._hook import BackgroundPart
    from asynchooks.execution._plan import Step
    from asynchooks.execution._scoreboard import Invocation, Key
    from asynchooks.execution._view import RunnerView

__all__ = ["Deferred", "Job", "Part", "Turn", "current_part", "whole_body"]

current_part: ContextVar[Part | None] = ContextVar("asynchooks_current_part", default=None)


class _Ends(Protocol):
    """Where a job reports its end."""

    def ended(self, part: Part, started: int, cause: BaseException | None, *, completed: bool) -> None: ...


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
        function: the background part; None while its foreground is deferred, and for deferred blocking methods.
        deferred: the foreground still to run on the training thread, or None.
        steps: training steps fired at the capture.
        reserved: staged bytes released at its end.
        children: invocations that it has fired.
        may_start: the scoreboard's decision has come.
    """

    step: Step
    invocation: Invocation
    view: RunnerView
    function: BackgroundPart | None
    deferred: Deferred | None
    steps: int
    reserved: int = 0
    children: int = 0
    may_start: bool = False

    @property
    def key(self) -> Key:
        """Place in program order."""
        return self.invocation.key


class Turn:
    """A blocking method that waits on the training thread; None until decided."""

    __slots__ = ("granted", "step")

    def __init__(self, step: Step) -> None:
        self.step = step
        self.granted: bool | None = None


class Job:
    """A part as the portal runs it: reports its end, whatever it is, and raises nothing."""

    __slots__ = ("_flight", "_part")

    def __init__(self, flight: _Ends, part: Part) -> None:
        self._flight = flight
        self._part = part

    async def __call__(self, scope: anyio.CancelScope) -> None:
        part, function = self._part, self._part.function
        if function is None:  # abandoned between the decision and its start
            return
        current_part.set(part)
        started = time.perf_counter_ns()
        completed = False
        cause: BaseException | None = None
        try:
            await function()
            completed = True
        except anyio.get_cancelled_exc_class() as error:
            cause = None if scope.cancel_called else error
            raise
        except BaseException as error:  # noqa: BLE001 - told to the training thread, at its next firing
            cause = error
        finally:
            del function
            self._flight.ended(part, started, cause, completed=completed)


def whole_body(step: Step, view: RunnerView, arguments: Mapping[str, object]) -> BackgroundPart:
    """Return the background part of an ``async def``, or of a blocking method that runs in a worker thread."""
    call = partial(step.method, view, **arguments)
    if step.shape == "async":
        return call

    async def run_in_worker() -> None:
        check_blocking_result(step, await anyio.to_thread.run_sync(call))

    return run_in_worker
