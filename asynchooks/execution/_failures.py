"""Failures of background parts: kept until they are raised, worded so that hook, point and step are named."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from asynchooks.errors import BackgroundHookError, RankFailedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asynchooks.execution._plan import Step
    from asynchooks.execution._view import RunnerView

__all__ = ["Failure", "Warnings", "as_exception"]

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Failure:
    """A part that raised, or was cancelled (no cause).

    Attributes:
        step: the hook's step.
        view: the run at the capture.
        steps: training steps fired at the capture.
        cause: the part's own exception.
        abandoned: what was never started because of it.
    """

    step: Step
    view: RunnerView
    steps: int
    cause: BaseException | None
    abandoned: list[str] = field(default_factory=list)

    @property
    def is_given_up(self) -> bool:
        """Whether the part was cancelled, here or on another rank without which it cannot end."""
        return self.cause is None or (isinstance(self.cause, RankFailedError) and self.cause.is_cancelled)

    @property
    def abandoned_note(self) -> str:
        """What was never started because of it, as a sentence; empty if nothing."""
        return f"Not started because of it: {', '.join(self.abandoned)}." if self.abandoned else ""

    def as_error(self) -> BackgroundHookError:
        """Return the error to raise on the training thread."""
        cause, step = self.cause, self.step
        epoch, iteration, place = self._position()
        what = "was cancelled before it had finished" if cause is None else "failed"
        why = "." if cause is None else f": {_text_of(cause)}"
        error = BackgroundHookError(
            f"{step.name} {what} in the background, started {place}{why} {self.abandoned_note}".rstrip(),
            hook=step.registration.name,
            point=step.point,
            epoch=epoch,
            iter=iteration,
            abandoned=tuple(self.abandoned),
        )
        error.__cause__ = cause
        return error

    def _position(self) -> tuple[int | None, int | None, str]:
        view = self.view
        if self.steps and not view.epoch and not view.iter:  # a context that counts nothing
            return None, None, f"after {self.steps} training iterations"
        return view.epoch, view.iter, f"at epoch {view.epoch}, iteration {view.iter} (counted from 0)"


class Warnings:
    """Failures of hooks with ``on_error="warn"``: each kind is logged once, with traceback, and counted.

    Noted under the flight's lock, logged outside of it: a log handler may block, or be anybody's code.
    """

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], int] = {}
        self._to_log: deque[Failure] = deque()

    def note(self, failure: Failure) -> None:
        """Count a failure."""
        kind = (failure.step.name, type(failure.cause).__name__)
        self._counts[kind] = self._counts.get(kind, 0) + 1
        if self._counts[kind] == 1:
            self._to_log.append(failure)

    def log(self) -> None:
        """Log the first failure of each kind. Called on any thread, without the lock."""
        while self._to_log:
            try:
                failure = self._to_log.popleft()
            except IndexError:  # another thread was faster
                return
            logger.warning(
                "%s Training goes on (on_error='warn'); further failures of this kind are only counted.",
                failure.as_error(),
                exc_info=failure.cause,
            )

    def summarize(self) -> None:
        """Log how often each kind happened, and forget; called when the executor closes."""
        for (name, kind), count in self._counts.items():
            if count > 1:
                logger.warning("%s failed %d times with %s (on_error='warn')", name, count, kind)
        self._counts.clear()


def as_exception(failures: Sequence[Failure]) -> Exception | None:
    """Return one error for one failure, an `ExceptionGroup` for several, None for none."""
    errors = [failure.as_error() for failure in failures]
    if len(errors) > 1:
        return ExceptionGroup(f"{len(errors)} background parts failed", errors)
    return errors[0] if errors else None


def _text_of(cause: BaseException) -> str:
    """Return the type and the message of an exception, as a sentence."""
    try:
        message = str(cause)
    except Exception:  # noqa: BLE001 - a broken __str__ must not hide that the part has failed
        message = "(its message cannot be shown)"
    return f"{type(cause).__name__}: {message}".rstrip(" :.") + "."
