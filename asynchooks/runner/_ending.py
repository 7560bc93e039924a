"""The end of a run that failed: its hooks are told, so that each lets go of what it holds.

Decides the order - after everything in flight - and what becomes of errors. A run that ends well tells its hooks by
the point ``after_run``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asynchooks.execution import HookExecutor

__all__ = ["opened"]

logger = logging.getLogger(__name__)


@contextmanager
def opened(executor: HookExecutor) -> Iterator[None]:
    """Have an executor open; where an exception leaves it, its hooks are closed when all else has ended."""
    is_entered = False
    try:
        with executor:
            is_entered = True
            yield
    except BaseException as error:
        if is_entered:
            _close(executor.hooks, error)
        raise


def _close(hooks: Iterable[object], error: BaseException) -> None:
    """Close each hook that can be; what one of them raises is logged, and noted at the run's own error.

    Raises:
        BaseExceptionGroup: a Ctrl-C came meanwhile: with it and the run's own error. The hooks left stay as they are.
    """
    for hook in hooks:
        close = getattr(hook, "close", None)
        if not callable(close):
            continue
        what = f"{type(hook).__name__}.close()"
        try:
            close()
        except Exception as failed:
            logger.exception("%s failed", what)
            error.add_note(f"{what} failed too: {type(failed).__name__}")
        except BaseException as stop:  # noqa: BLE001 - raised in the group
            raise BaseExceptionGroup("training stopped, and then its end", [error, stop]) from None
