"""Failures of background parts: kept until they are raised, worded so that hook, point and step are named."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from asynchooks.errors import BackgroundHookError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asynchooks.execution._plan import Step
    from asynchooks.execution._view import RunnerView

__all__ = ["Failure", "Warnings", "as_exception"]

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Failure:
    """A background part that raised, or was cancelled (no cause)."""

    step: Step
    view: RunnerView
    cause: BaseException | None
    abandoned: list[str] = field(default_factory=list)

    def as_error(self) -> BackgroundHookError:
        """Return the error to raise on the training thread."""
        return _error(self.step, self.view, self.cause, tuple(self.abandoned))


class Warnings:
    """Failures of hooks with ``on_error="warn"``: each kind is logged once, with traceback, and counted."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], int] = {}

    def report(self, failure: Failure) -> None:
        """Log the first failure of its kind; count the others."""
        kind = (failure.step.name, type(failure.cause).__name__)
        self._counts[kind] = self._counts.get(kind, 0) + 1
        if self._counts[kind] == 1:
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


def _error(
    step: Step, view: RunnerView, cause: BaseException | None, abandoned: tuple[str, ...]
) -> BackgroundHookError:
    what = "was cancelled before it had finished" if cause is None else "failed"
    why = "" if cause is None else f": {type(cause).__name__}: {cause}"
    never = f" Not started because of it: {', '.join(abandoned)}." if abandoned else ""
    error = BackgroundHookError(
        f"{step.name} {what} in the background, started at epoch {view.epoch}, iteration {view.iter} "
        f"(counted from 0){why}.{never}".replace("..", "."),
        hook=step.registration.name,
        point=step.point,
        epoch=view.epoch,
        iter=view.iter,
        abandoned=abandoned,
    )
    error.__cause__ = cause
    return error
