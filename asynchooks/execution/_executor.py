"""The executor: registers hooks, fires hook points, and sees every part of them to its end.

Decides when each piece runs on the training thread; order is the scoreboard's, room the backpressure's,
threads the portal's. Never touches a tensor or a file: it serves any loop and any context.
"""

from __future__ import annotations

import threading
import time
import warnings
from threading import get_ident
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, get_args

from asynchooks.errors import DrainTimeoutError, ExecutorClosedError, WrongThreadError
from asynchooks.execution._agreement import Agreement, raise_failures
from asynchooks.execution._closing import give_up, raise_all, report_orphan, settle
from asynchooks.execution._critical import interrupts
from asynchooks.execution._firing import Firings
from asynchooks.execution._flight import Flight
from asynchooks.execution._foreground import add_origin, check_blocking_result
from asynchooks.execution._open import OpenExecutors
from asynchooks.execution._part import current_part
from asynchooks.execution._parts import Limits
from asynchooks.execution._plan import Plan
from asynchooks.execution._plans import Plans
from asynchooks.execution._points import check_point_name
from asynchooks.execution._portal import Portal
from asynchooks.execution._registration import HookMode, Registration, check_choice, check_positive
from asynchooks.execution._scoreboard import Ordering
from asynchooks.execution._statistics import Statistics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from asynchooks.execution._change import ChangeBarrier
    from asynchooks.execution._priority import PriorityLike
    from asynchooks.instrument import Instrument

__all__ = ["ExecutionMode", "HookExecutor", "current_executor"]

ExecutionMode: TypeAlias = Literal["async", "sync"]

_NOT_OPEN = -1
_WORKER_THREADS = 16
_ABSENT: Any = object()


class HookExecutor:
    """Runs hooks: blocking methods and captures on the training thread, the rest behind it.

    A context manager, on the thread that trains; it may be entered again after it was closed. Leaving it waits
    until everything in flight has finished, and raises what has failed and was not raised before.

    Args:
        hooks: hooks to register at once, with their own priorities.
        mode: "async", or "sync": every background part runs to its end before training goes on.
        ordering: "priority", or "strict": see the execution contract in this package's README.
        max_in_flight: background parts at once, of all hooks, started or not.
        staging_budget: bytes that captures may hold at once (see `reserve`). A capture larger than this is
            admitted when no other is held.
        grace_period: seconds that in-flight work gets when the context is left because of an exception.
        instrument: receives spans and counts; None costs nothing.
        points: custom hook points that may be fired without any hook defining them.

    Raises:
        HookDefinitionError, UnknownOptionError, ValueError, TypeError: an argument is wrong; see `register`.

    Example:
        >>> with HookExecutor([MyHook()]) as executor:
        ...     executor.fire("after_train_iter", state, batch_idx=0)
    """

    def __init__(
        self,
        hooks: Iterable[object] = (),
        *,
        mode: ExecutionMode = "async",
        ordering: Ordering = "priority",
        max_in_flight: int = 32,
        staging_budget: int = 4 * 2**30,
        grace_period: float = 60.0,
        instrument: Instrument | None = None,
        points: Iterable[str] = (),
    ) -> None:
        self.mode: ExecutionMode = check_choice("HookExecutor(mode=...)", mode, get_args(ExecutionMode))
        self.ordering: Ordering = check_choice("HookExecutor(ordering=...)", ordering, get_args(Ordering))
        self.grace_period = check_positive("grace_period", grace_period, float)
        self.instrument = instrument
        if isinstance(points, str):
            raise TypeError(f"HookExecutor(points={points!r}): give a collection of names.")
        self._flight = Flight(
            "inline" if mode == "sync" else ordering,
            Limits(
                check_positive("max_in_flight", max_in_flight, int),
                check_positive("staging_budget", staging_budget, int),
            ),
            instrument,
        )
        self._plans = Plans(tuple(map(check_point_name, points)), self.ordering, self._flight.ledger)
        self._compiled = self._plans.compiled
        self._firings = Firings(self._flight, inline=mode == "sync")
        self._owner = _NOT_OPEN
        self._why_closed = "was not entered; use it as `with executor:`"
        self._is_forked = False
        self._portal: Portal | None = None
        for hook in hooks:
            self.register(hook)

    # ---- hooks ----

    def register(
        self, hook: object, priority: PriorityLike | None = None, mode: HookMode | None = None
    ) -> None:
        """Register a hook; it runs by priority, then in order of registration.

        While the executor is open: on the training thread, where it waits for parts in flight that fire points,
        since the hook must not hear of what came before it.

        Args:
            hook: an instance with methods named after hook points.
            priority: wins over the hook's own ``priority``.
            mode: "background" runs the hook's blocking methods in a worker thread, with a frozen view.

        Raises:
            HookDefinitionError: the object is no hook, or one of its methods or attributes cannot work.
            UnknownOptionError: ``mode`` or one of the hook's options is no known word.
            ValueError, TypeError, UnknownNameError: the priority is none.
        """
        if self._owner != _NOT_OPEN:
            if self._owner != get_ident():
                self._refuse("register()", "register before, or in a method that runs on the training thread")
            self._flight.waits.told()
        self._plans.register(hook, priority=priority, mode=mode)

    @property
    def hooks(self) -> tuple[object, ...]:
        """The registered hooks, in order of execution."""
        return tuple(registration.hook for registration in self._plans.registrations)

    @property
    def registered(self) -> tuple[Registration, ...]:
        """What the executor knows of each hook, in order of execution."""
        return self._plans.registrations

    def plan(self, point: str) -> Plan:
        """Return the compiled plan of a point.

        Raises:
            UnknownPointError: the point is neither standard nor declared, and no hook defines it.
        """
        return self._plans.compiled.get(point) or self._plans.compile(point)

    # ---- firing ----

    def fire(  # noqa: C901, PLR0912 - the hot path: a call to a part of itself would cost a third of it
        self,
        point: str,
        context: object,
        batch_idx: Any = _ABSENT,
        data_batch: Any = _ABSENT,
        outputs: Any = _ABSENT,
        **others: Any,
    ) -> None:
        """Run a hook point: blocking methods and captures now, background parts when their turn comes.

        Called on the training thread. Waits only where the order demands it, or where there is no room. The
        arguments are the hooks'. Those of the iteration points have names of their own here, because packing
        them into a dict costs more than all the rest of a firing.

        Raises:
            BackgroundHookError: a background part has failed since the last firing (several: an
                ``ExceptionGroup``); no hook of this firing has run then.
            UnknownPointError: no such hook point.
            Exception: whatever a blocking method or a capture raises, with a note that names the hook.
        """
        try:
            plan = self._compiled[point]
        except KeyError:
            plan = self._plans.compile(point)
        flight = self._flight
        # Nothing happens here: the checks below would cost as much as all this. A call from a background part,
        # the wrong thread that happens in practice, is still seen, since such a part is in flight.
        if plan.idle and not flight.in_flight and not flight.attention and self._owner != _NOT_OPEN:
            return
        if self._owner != get_ident():
            self._refuse(f"fire({point!r})", "a background part calls fire_nowait()")
        if open_executors.are_several and open_executors.innermost() is not self:
            with open_executors.foremost(self):
                self.fire(point, context, batch_idx, data_batch, outputs, **others)
            return
        if flight.attention:
            self._firings.attend(point)
        methods = plan.inline
        if methods and (flight.captures or flight.barriers.standing):
            methods = None  # a copy is under way or may be soon: each hook is asked whether it has to wait
        if methods is None or others or batch_idx is _ABSENT or data_batch is _ABSENT:
            self._firings.run(plan, context, _packed(batch_idx, data_batch, outputs, others))
        elif methods:
            plan.firings += 1
            method = methods[0]
            try:
                for method in methods:
                    if outputs is _ABSENT:
                        result = method(context, batch_idx=batch_idx, data_batch=data_batch)
                    else:
                        result = method(context, batch_idx=batch_idx, data_batch=data_batch, outputs=outputs)
                    if result is not None:
                        check_blocking_result(plan.step_of(method), result)
            except BaseException as error:
                add_origin(error, plan.step_of(method))
                raise
        if plan.counted:
            self._firings.count_step(point, context)

    def fire_nowait(self, point: str, context: object, **arguments: Any) -> None:
        """Fire a hook point from inside a background part. Does not block.

        The background hooks of the point start as soon as the order allows; its blocking methods and captures
        run on the training thread at the start of the next firing, or while it waits or drains.

        Raises:
            WrongThreadError: called outside of a background part.
            HookDefinitionError: the hook does not name the point in its ``fires``.
        """
        self._firings.run_from_background(self.plan, point, context, arguments)

    @property
    def is_capturing(self) -> bool:
        """Whether a capture runs now, so that `reserve` may be called."""
        return self._flight.foreground.is_capturing

    def reserve(self, nbytes: int, *, may_skip: bool = True) -> None:
        """Reserve room in the staging budget for a copy that this capture is about to make.

        Called in a capture, before it copies. Waits for room, or ends the invocation, as ``when_busy`` says; without
        ``may_skip``, "skip" waits too. Released when the background part has ended, or the capture returns None.

        Raises:
            ExecutorError: no capture runs.
            ValueError: ``nbytes`` is negative.
        """
        if self._owner != get_ident():
            self._refuse("reserve()", "a background part has what its capture reserved")
        if nbytes < 0:
            raise ValueError(f"reserve({nbytes}): give the number of bytes that the capture will copy.")
        capturing = self._flight.foreground.capturing
        capturing.may_skip &= may_skip
        self._flight.make_room(capturing.step, nbytes, held=capturing.reserved, may_skip=capturing.may_skip)
        capturing.reserved += nbytes

    def before_next_change(self, callback: Callable[[], None]) -> ChangeBarrier:
        """Have `callback` called once, before the next foreground part of a hook with ``changes_state``.

        Called in a capture that leaves a copy under way, for which ``callback`` waits. Changes outside of hooks,
        such as the optimizer's step, are the loop's.

        Raises:
            ExecutorError: no capture runs.
        """
        if self._owner != get_ident():
            self._refuse("before_next_change()", "a background part has no training state to copy")
        return self._flight.foreground.before_next_change(callback)

    # ---- waiting and closing ----

    def drain(self, resources: Iterable[str] | None = None, timeout: float | None = None) -> None:
        """Wait until in-flight work has finished; raise what has failed. On the training thread.

        Args:
            resources: wait only for what touches these (and for hooks that declare nothing); None is all.
            timeout: seconds; None waits as long as it takes.

        Raises:
            DrainTimeoutError: the time is up; the message names what is in flight.
            BackgroundHookError, ExceptionGroup: what has failed.
        """
        if isinstance(resources, str):
            raise TypeError(f"drain(resources={resources!r}): give a set of names: {{{resources!r}}}.")
        if self._owner != get_ident():
            self._refuse("drain()", "a background part must not wait for others")
        deadline = None if timeout is None else time.monotonic() + timeout
        with open_executors.foremost(self):  # deferred hooks may run
            is_idle = self._flight.waits.idle(resources, deadline)
        if not is_idle:
            names = ", ".join(self._flight.in_flight_names())
            raise DrainTimeoutError(f"after {timeout} s still in flight: {names}. Nothing was cancelled.")
        raise_failures(self._flight, "drain" if resources is None else "")

    def agree_through(self, agreement: Agreement | None) -> None:
        """Raise background failures only together with other processes, which come to each drain; None: at once."""
        self._flight.agreement = agreement
        self._flight.look()

    def statistics(self) -> Statistics:
        """Return what happened so far. Called on any thread."""
        return Statistics(
            hooks=self._plans.statistics(),
            steps=self._flight.ledger.steps,
            drain_s=self._flight.ledger.drain_ns / 1e9,
            staged_bytes=self._flight.staged_bytes,
        )

    def close(self) -> None:
        """Drain, stop the background, and raise what has failed. Does nothing when closed already."""
        self.__exit__(None, None, None)

    def __enter__(self) -> Self:
        if self._owner != _NOT_OPEN:
            raise ExecutorClosedError("this HookExecutor is entered already; it is not re-entrant.")
        if self._is_forked:
            raise ExecutorClosedError(f"this HookExecutor {self._why_closed}; make a new one here.")
        flight = self._flight
        self._portal = Portal(workers=_WORKER_THREADS, on_orphaned=lambda: report_orphan(flight))
        self._portal.start()
        self._flight.open(self._portal)
        self._owner = get_ident()
        open_executors.add(self)
        interrupts.install()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        portal = self._portal
        if self._owner == _NOT_OPEN or portal is None:
            return
        if self._owner != get_ident():
            self._refuse("close()", "a background part cannot wait for itself")
        raised: list[BaseException] = []
        try:
            with open_executors.foremost(self):
                settle(self._flight, portal, error, self.grace_period, raised)
        finally:
            with interrupts.held():  # Ctrl-C must not lose a failure that is about to be told
                self._shut(portal)
                raise_all(error, raised, self._flight)

    def __del__(self) -> None:
        portal: Portal | None = getattr(self, "_portal", None)
        if portal is not None and portal.is_alive:
            try:
                warnings.warn(
                    "a HookExecutor was never closed; use it as a context manager, or call close().",
                    ResourceWarning,
                    stacklevel=2,
                    source=self,
                )
            finally:
                portal.orphan()

    # ---- private ----

    def _shut(self, portal: Portal) -> None:
        if self._flight.in_flight:  # settling was cut short
            give_up(self._flight, portal)
        portal.stop()
        self._portal = None
        self._owner = _NOT_OPEN
        self._why_closed = "is closed"
        open_executors.discard(self)
        interrupts.remove()
        self._flight.land()

    def close_in_forked_child(self) -> None:
        """Become a closed executor. Called in a child process right after a fork."""
        self._owner = _NOT_OPEN
        self._is_forked = True
        self._why_closed = "belongs to the parent of this forked process"
        if self._portal is not None:
            self._portal.forget()
            self._portal = None

    def _refuse(self, what: str, in_background: str) -> None:
        if self._owner == _NOT_OPEN:
            raise ExecutorClosedError(f"{what}: this HookExecutor {self._why_closed}.")
        where = in_background if current_part.get() else "use the thread that entered it"
        raise WrongThreadError(
            f"{what} was called on thread {threading.current_thread().name!r}, but the executor belongs to the "
            f"thread that trains; {where}."
        )


def _packed(batch_idx: Any, data_batch: Any, outputs: Any, others: dict[str, Any]) -> dict[str, Any]:
    named = {"batch_idx": batch_idx, "data_batch": data_batch, "outputs": outputs}
    if not others and outputs is not _ABSENT and batch_idx is not _ABSENT and data_batch is not _ABSENT:
        return named
    return {name: value for name, value in named.items() if value is not _ABSENT} | others


open_executors: OpenExecutors[HookExecutor] = OpenExecutors()


def current_executor() -> HookExecutor | None:
    """Return the executor that calls a hook on this thread now, or else the one entered last here, or None."""
    return open_executors.innermost()
