"""Every error that asynchooks raises on purpose, in one tree.

::

    AsyncHooksError
    ├── HookError                      what a hook is or does
    │   ├── HookDefinitionError        TypeError: a hook of the wrong shape
    │   ├── UnknownPointError          ValueError: no such hook point
    │   ├── LiveStateError             RuntimeError: background code reached for live state
    │   └── BackgroundHookError        RuntimeError: a background part failed (hook, point, step, cause)
    ├── ExecutorError
    │   ├── ExecutorClosedError        RuntimeError: used before it was entered or after it was closed
    │   ├── WrongThreadError           RuntimeError: called on a thread that must not call it
    │   └── DrainTimeoutError          TimeoutError: in-flight work did not finish in time
    ├── ConfigError                    ValueError: a wrong value in a configuration
    │   ├── UnknownNameError           KeyError: no such registry entry, priority, policy ...
    │   ├── DuplicateNameError         KeyError: the registry entry exists already
    │   ├── UnknownOptionError         TypeError: no such argument
    │   ├── ClassCountError            AssertionError: the model and the data set differ in their classes
    │   └── CustomImportError          ImportError: a module that a configuration asks for
    ├── InvalidLossError               AssertionError, FloatingPointError: a loss is infinite or NaN
    ├── DistributedError               RuntimeError: what several ranks do together has failed
    │   ├── RankFailedError            another rank has failed; its number and its error
    │   └── RankLostError              TimeoutError: a rank has died or hangs
    └── CheckpointError
        ├── CaptureError               TypeError: the state holds what cannot be captured
        ├── CheckpointNotFoundError    FileNotFoundError: there is no committed checkpoint there
        ├── CorruptCheckpointError     ValueError: size, checksum or content differ from the manifest
        ├── ForeignCheckpointError     ValueError: a file that is no checkpoint of this kind of run
        ├── UnsafePathError            ValueError: a path component leaves the checkpoint's folder
        ├── CheckpointConflictError    RuntimeError: another process writes to the same folder
        └── StorageError               OSError: the store refused or failed
            ├── StorageDeniedError     PermissionError: credentials, bucket policy, read-only folder
            ├── StorageFullError       no space left, quota exceeded
            └── StorageUnavailableError  still failing when the retries or the deadline ran out

Beside it stands ``Preempted``, a SystemExit: the run was asked to end, and ended in good order.

A message says what was expected, what came and what to do. Credentials never stand in one.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "AsyncHooksError",
    "BackgroundHookError",
    "CaptureError",
    "CheckpointConflictError",
    "CheckpointError",
    "CheckpointNotFoundError",
    "ClassCountError",
    "ConfigError",
    "CorruptCheckpointError",
    "CustomImportError",
    "DistributedError",
    "DrainTimeoutError",
    "DuplicateNameError",
    "ExecutorClosedError",
    "ExecutorError",
    "ForeignCheckpointError",
    "HookDefinitionError",
    "HookError",
    "InvalidLossError",
    "LiveStateError",
    "Preempted",
    "RankFailedError",
    "RankLostError",
    "StorageDeniedError",
    "StorageError",
    "StorageFullError",
    "StorageUnavailableError",
    "UnknownNameError",
    "UnknownOptionError",
    "UnknownPointError",
    "UnsafePathError",
    "WrongThreadError",
    "did_you_mean",
]


def did_you_mean(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """Return ``" Did you mean 'x'?"`` for the nearest known word, or an empty string."""
    nearest = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return f" Did you mean {nearest[0]!r}?" if nearest else ""


class AsyncHooksError(Exception):
    """The root: everything that asynchooks raises on purpose."""


class HookError(AsyncHooksError):
    """What a hook is or does is wrong."""


class HookDefinitionError(HookError, TypeError):
    """A hook has a shape that cannot run as written; the message names hook, point and fix."""


class UnknownPointError(HookError, ValueError):
    """No hook point has this name, and no registered hook defines it."""


class LiveStateError(HookError, RuntimeError):
    """Background code touched live training state; capture it in a ``@background`` method."""


class BackgroundHookError(HookError, RuntimeError):
    """A background part failed; ``__cause__`` is its own exception.

    Attributes:
        hook: class name of the hook.
        point: hook point that started the part.
        epoch: epoch at the capture, counted from 0; None where the context has none.
        iter: iteration at the capture, counted from 0; None where the context has none.
        abandoned: what was never started because it had to follow this part, as ``Hook.point`` names.
    """

    def __init__(
        self,
        message: str,
        *,
        hook: str,
        point: str,
        epoch: int | None = None,
        iter: int | None = None,  # noqa: A002 - MMEngine's word for the iteration
        abandoned: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.hook = hook
        self.point = point
        self.epoch = epoch
        self.iter = iter
        self.abandoned = abandoned


class Preempted(SystemExit):
    """The run was asked to end, saved a checkpoint and ended: what ends the process, with an exit code of its own.

    Attributes:
        reason: what asked.
        deadline: until when the process has to have ended, as `time.monotonic`; None where nobody said.
        given_up: what did not fit into that time, as ``Hook.point`` names; filled when the executor has closed.
    """

    def __init__(self, code: int, *, reason: str, deadline: float | None = None) -> None:
        super().__init__(code)
        self.reason = reason
        self.deadline = deadline
        self.given_up: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"preempted: {self.reason}"


class ExecutorError(AsyncHooksError):
    """The executor was used in a way or at a time that cannot work."""


class ExecutorClosedError(ExecutorError, RuntimeError):
    """The executor was not entered, is closed, or lives in a forked child process."""


class WrongThreadError(ExecutorError, RuntimeError):
    """A call that belongs to the training thread came from another one, or the other way round."""


class DrainTimeoutError(ExecutorError, TimeoutError):
    """In-flight work did not finish in the given time; the message names it."""


class ConfigError(AsyncHooksError, ValueError):
    """A configuration holds a wrong value."""


class UnknownNameError(ConfigError, KeyError):
    """A name is in no registry; the message lists what is near."""

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return str(self.args[0]) if self.args else ""


class DuplicateNameError(ConfigError, KeyError):
    """A registry holds another object under this name already."""

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return str(self.args[0]) if self.args else ""


class UnknownOptionError(ConfigError, TypeError):
    """An argument that the class or function does not take; the message suggests the right one."""


class ClassCountError(ConfigError, AssertionError):
    """A head has another number of classes than the data set names, or the names are no list."""


class InvalidLossError(AsyncHooksError, AssertionError, FloatingPointError):
    """A loss is infinite or NaN; the message names the iteration and the loss."""


class CustomImportError(ConfigError, ImportError):
    """A module of ``custom_imports`` cannot be imported; the message names it and the file that asks for it."""


class DistributedError(AsyncHooksError, RuntimeError):
    """What several ranks do together has failed."""


class RankFailedError(DistributedError):
    """Another rank has failed, so that what all do together has.

    Attributes:
        rank: its number.
        is_early: whether the first rank has certainly not acted on what the ranks brought.
        is_cancelled: whether it has given its part up, and nothing went wrong.
    """

    def __init__(
        self, message: str, *, rank: int, is_early: bool = False, is_cancelled: bool = False
    ) -> None:
        super().__init__(message)
        self.rank = rank
        self.is_early = is_early
        self.is_cancelled = is_cancelled


class RankLostError(DistributedError, TimeoutError):
    """A rank has died or hangs.

    Attributes:
        rank: its number.
        is_early: whether the first rank has certainly not acted on what the ranks brought.
    """

    def __init__(self, message: str, *, rank: int, is_early: bool = False) -> None:
        super().__init__(message)
        self.rank = rank
        self.is_early = is_early


class CheckpointError(AsyncHooksError):
    """A checkpoint could not be captured, saved, found or loaded."""


class CaptureError(CheckpointError, TypeError):
    """The state holds something that cannot be captured; the message gives its path in the state."""


class CheckpointNotFoundError(CheckpointError, FileNotFoundError):
    """There is no committed checkpoint at this place."""


class CorruptCheckpointError(CheckpointError, ValueError):
    """What the store returned is not what was committed; the message names the file and the chunk."""


class ForeignCheckpointError(CheckpointError, ValueError):
    """The file was read, but it is not a checkpoint that this run can use."""


class UnsafePathError(CheckpointError, ValueError):
    """A path component from a name, file or URL would leave the checkpoint's folder."""


class CheckpointConflictError(CheckpointError, RuntimeError):
    """Another process owns the folder; the message names its run, host, process and last save."""


class StorageError(CheckpointError, OSError):
    """The store refused or failed; the message says the URL (no credentials), attempts and what to do."""


class StorageDeniedError(StorageError, PermissionError):
    """Access denied: credentials, bucket policy, or a read-only folder. Not retried."""


class StorageFullError(StorageError):
    """No space left on the device, or a quota is used up. Not retried."""


class StorageUnavailableError(StorageError):
    """The store was still failing when the retries or the deadline ran out."""
