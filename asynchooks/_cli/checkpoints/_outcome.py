"""How a command ends: its exit code, and its one readable message.

Decides which error is whose: damage is 1, the user's is 2, the store's is 3, ours is 4. Knows no checkpoint.
"""

from __future__ import annotations

import logging
import sys
import traceback
from contextlib import contextmanager
from enum import IntEnum
from typing import TYPE_CHECKING

import typer

from asynchooks._cli.checkpoints._interrupt import Terminated, interruptible
from asynchooks._cli.checkpoints._words import printable
from asynchooks.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    ConfigError,
    StorageError,
    UnsafePathError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["EXIT_CODES", "Outcome", "run_command", "say"]

EXIT_CODES = (
    "Exit codes: 0 fine; 1 a problem was found: damage, or nothing committed; 2 wrong usage; 3 the store cannot be "
    "reached, refuses, or has no such bucket; 4 the command itself failed; 130 Ctrl-C, 143 SIGTERM."
)


class Outcome(IntEnum):
    """The process's exit code."""

    FINE = 0
    PROBLEM = 1
    USAGE = 2
    STORE = 3
    FAILED = 4
    INTERRUPTED = 130
    TERMINATED = 143


def say(text: str) -> None:
    """Print one message for a person: on stderr, so that stdout is the result's alone."""
    typer.echo("\n".join(map(printable, text.splitlines())), err=True)


def run_command(command: Callable[[], Outcome], *, debug: bool) -> Outcome:
    """Run a command and return its outcome; an error of the package becomes one message without a traceback."""
    try:
        with interruptible(), _logging(debug=debug):
            return command()
    except typer.BadParameter:
        raise
    except (KeyboardInterrupt, typer.Abort):  # the latter at a question
        say("Interrupted.")
        return Outcome.INTERRUPTED
    except Terminated:
        say("Terminated.")
        return Outcome.TERMINATED
    except Exception as error:  # noqa: BLE001 - the last frame of the program: the user is told, by kind
        if debug:
            traceback.print_exc()
        return _tell(error, debug=debug)


def _tell(error: Exception, *, debug: bool) -> Outcome:
    outcome = _outcome_of(error)
    if outcome is Outcome.FAILED and not debug:
        what = " ".join(str(error).split()) or "no message"
        say(f"error: asynchooks itself failed: {type(error).__name__}: {what}. --debug shows where.")
        return outcome
    say("\n".join([f"error: {error}", *getattr(error, "__notes__", ())]))
    return outcome


def _outcome_of(error: Exception) -> Outcome:
    if isinstance(error, (ConfigError, UnsafePathError)):
        return Outcome.USAGE
    if isinstance(error, (StorageError, CheckpointNotFoundError)):
        return Outcome.STORE  # commands look for checkpoints in listings: what is missing here is the bucket
    return Outcome.PROBLEM if isinstance(error, CheckpointError) else Outcome.FAILED


@contextmanager
def _logging(*, debug: bool) -> Iterator[None]:
    """The package's log lines say what the results say; they are shown when they are asked for."""
    logger = logging.getLogger("asynchooks")
    before = logger.handlers, logger.level, logger.propagate
    logger.handlers = [logging.StreamHandler(sys.stderr) if debug else logging.NullHandler()]
    logger.setLevel(logging.DEBUG if debug else logging.CRITICAL)
    logger.propagate = False
    try:
        yield
    finally:
        logger.handlers, level, logger.propagate = before
        logger.setLevel(level)
