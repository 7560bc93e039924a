"""Calls of hook methods on the training thread: blocking methods and captures, and what they may return."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from time import perf_counter_ns
from types import FunctionType
from typing import TYPE_CHECKING, Any

from asynchooks.errors import BackgroundHookError, ExecutorError, HookDefinitionError
from asynchooks.execution._backpressure import InvocationSkipped
from asynchooks.execution._change import ChangeBarrier, ChangeBarriers
from asynchooks.execution._view import view_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from asynchooks.execution._hook import BackgroundPart
    from asynchooks.execution._ledger import Ledger
    from asynchooks.execution._plan import Step
    from asynchooks.execution._view import RunnerView

__all__ = ["Captured", "Capturing", "Foreground", "add_origin", "check_blocking_result"]


@dataclass(slots=True)
class Capturing:
    """A capture that runs now, the bytes that it has reserved, and whether it may be skipped for lack of room."""

    step: Step
    reserved: int = 0
    may_skip: bool = True


@dataclass(frozen=True, slots=True)
class Captured:
    """What a capture has left: the background part, the run as it was, and what `Capturing` says of it."""

    function: BackgroundPart
    view: RunnerView
    reserved: int
    may_skip: bool = True


class Foreground:
    """Calls blocking methods and captures. Training thread only.

    Attributes:
        captures: the captures that run now, the innermost last.
        barriers: what has to be waited for before a hook that may change training state is called.
    """

    def __init__(self, release: Callable[[int], None], ledger: Ledger) -> None:
        self.captures: list[Capturing] = []
        self.barriers = ChangeBarriers(ledger)
        self._release = release
        self._ledger = ledger

    @property
    def is_capturing(self) -> bool:
        """Whether a capture runs now."""
        return bool(self.captures)

    @property
    def capturing(self) -> Capturing:
        """The capture that runs now."""
        if not self.captures:
            raise ExecutorError(
                "this was called outside of a capture; call it in a @background method, before it copies."
            )
        return self.captures[-1]

    def before_next_change(self, callback: Callable[[], None]) -> ChangeBarrier:
        """Put up a barrier for the capture that runs now."""
        return self.barriers.add(callback, self.capturing.step)

    def call(self, step: Step, context: object, arguments: Mapping[str, Any]) -> None:
        """Call a blocking method."""
        if self.barriers.standing and step.changes_state:
            self.barriers.wait_passed()
        self._ledger.tally(step).invocations += 1
        try:
            result = step.method(context, **arguments)
            if result is not None:
                check_blocking_result(step, result)
        except BaseException as error:
            add_origin(error, step)
            raise

    def capture(self, step: Step, context: object, arguments: Mapping[str, Any]) -> Captured | None:
        """Call a capture; return its background part, or None.

        Bytes reserved by a capture that returns no part, or raises, are released.
        """
        if self.barriers.standing and step.changes_state:
            self.barriers.wait_passed()
        ledger = self._ledger
        tally = ledger.tally(step)
        tally.invocations += 1
        start_ns, exposed_ns = perf_counter_ns(), ledger.exposed_ns
        capturing = Capturing(step)
        self.captures.append(capturing)
        captured: Captured | None = None
        try:
            part = step.method(context, **arguments)
            if part is not None:
                part = _checked_part(step, part)
                captured = Captured(part, view_of(context), capturing.reserved, capturing.may_skip)
        except InvocationSkipped:
            pass
        except BaseException as error:
            add_origin(error, step)
            raise
        finally:
            self.captures.pop()
            if captured is None and capturing.reserved:
                self._release(capturing.reserved)
            nbytes = None if captured is None else capturing.reserved
            ledger.captured(step, tally, start_ns, exposed_ns, nbytes)
        return captured


def add_origin(error: BaseException, step: Step) -> None:
    """Note on an error of the training thread which hook it came from."""
    first = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
    told = isinstance(first, BackgroundHookError)  # it names the hooks that failed
    error.add_note(f"{'Told at a firing inside' if told else 'Raised by'} {step.name}, {step.registration}.")


def check_blocking_result(step: Step, result: object) -> None:
    """Refuse a coroutine or async function from a method that is not ``@background``: nothing would run."""
    if inspect.iscoroutine(result):
        result.close()
        what = "a coroutine"
    elif inspect.iscoroutinefunction(result):
        what = "an async function"
    else:
        return
    raise HookDefinitionError(
        f"{step.name} returns {what} but is not @background, so nothing would run. "
        f"Decorate it with @background, or make it async def."
    )


def _checked_part(step: Step, result: object) -> BackgroundPart:
    if inspect.iscoroutine(result):
        result.close()
        raise HookDefinitionError(
            f"{step.name} is @background and returns a coroutine; return the async function, without calling it."
        )
    if not callable(result) or not (
        inspect.iscoroutinefunction(result) or inspect.iscoroutinefunction(type(result).__call__)
    ):
        raise HookDefinitionError(
            f"{step.name} is @background and returns {result!r}; return None or a zero-argument async function."
        )
    if not _takes_no_arguments(result):
        raise HookDefinitionError(
            f"{step.name} is @background and returns {result!r}, which takes arguments; the background part "
            f"takes none."
        )
    return result


def _takes_no_arguments(function: Callable[..., object]) -> bool:
    code = function.__code__ if isinstance(function, FunctionType) else None
    if code is not None and not code.co_argcount and not code.co_kwonlyargcount:
        return True  # the usual closure, without the cost of a signature
    try:
        inspect.signature(function).bind()
    except TypeError:
        return False
    return True
