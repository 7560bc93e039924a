"""What stores raise, in the words of `asynchooks.errors`: what is permanent, what is worth another attempt.

Decides retry and error kind from exception types, errno and HTTP status. Removes credentials from every text.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit, urlunsplit

import stamina

from asynchooks.errors import (
    AsyncHooksError,
    CheckpointNotFoundError,
    StorageDeniedError,
    StorageError,
    StorageFullError,
    StorageUnavailableError,
)

__all__ = ["Guard", "Stopped", "is_overwritten", "redact_url"]

T = TypeVar("T")

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_MISSING = {errno.ENOENT, errno.EISDIR, errno.ENOTDIR}
_TRANSIENT = {
    errno.EAGAIN,
    errno.EBUSY,
    errno.ECONNABORTED,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.EHOSTUNREACH,
    errno.EINTR,
    errno.EIO,
    errno.ENETUNREACH,
    errno.EPIPE,
    errno.ESTALE,
    errno.ETIMEDOUT,
}
_STATUS = re.compile(r"status code: (\d{3})|\b(\d{3}) (?:Forbidden|Unauthorized|Not Found)")
_ANSWERED = re.compile(r"status: (\d{3})")  # as obstore tells of it
_RETRIES = re.compile(r"after (\d+) retries")
_SECRET_OPTIONS = re.compile(
    r"secret|token|pass|credential|connection_string|sas_|account_key", re.IGNORECASE
)

_ADVICE: dict[type[StorageError | CheckpointNotFoundError], str] = {
    StorageDeniedError: "Check the credentials and the policy of the bucket, or the permissions of the folder.",
    StorageFullError: "Free space or raise the quota; what was committed before is intact.",
    CheckpointNotFoundError: "Check the URL: a checkpoint is a file in its folder, a bucket must exist beforehand.",
    StorageUnavailableError: "Check that the store is up and reachable, or raise the deadline.",
    StorageError: "What was committed before is intact.",
}


class Stopped(Exception):  # noqa: N818 - not a failure: the caller asked for it
    """A transfer was told to stop; never leaves the package.

    Attributes:
        is_cancelled: says so to whoever tells other ranks.
    """

    is_cancelled = True

    def __str__(self) -> str:
        return "its save was cancelled"


def is_overwritten(error: Exception) -> bool:
    """Whether what is read became another object on the way: a store refuses the rest of the old one.

    A client that loses the connection asks for the rest, if it is still the same (412); where a store does not look
    at that, the rest may lie beyond the end of the new one (416).
    """
    found = _ANSWERED.search(str(error))
    return found is not None and found[1] in ("412", "416")


def redact_url(url: str) -> str:
    """The URL without user, password and query, which may be credentials."""
    if "://" not in url:
        return url
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


@dataclass(frozen=True, slots=True)
class Guard:
    """Runs a store's calls: retries what is transient, translates the rest.

    Attributes:
        url: the folder in messages.
        secrets: texts that must not appear in a message.
        attempts: how often a transient failure is tried; 1 where the store's own client retries.
        deadline_s: no new attempt after so long.
    """

    url: str
    secrets: tuple[str, ...] = ()
    attempts: int = 1
    deadline_s: float = 120.0

    @classmethod
    def secrets_of(cls, options: object) -> tuple[str, ...]:
        """The values in (nested) options that look like credentials."""
        if not isinstance(options, dict):
            return ()
        found: list[str] = []
        for key, value in options.items():
            if isinstance(value, dict):
                found += cls.secrets_of(value)
            elif isinstance(value, str) and len(value) >= 8 and _SECRET_OPTIONS.search(str(key)):
                found.append(value)
        return tuple(found)

    def call(self, action: str, name: str, function: Callable[[], T]) -> T:
        """Call the function; `action` and `name` say in a message what was tried."""
        for attempt in stamina.retry_context(
            on=_is_worth_another,
            attempts=self.attempts,
            timeout=self.deadline_s,
            wait_initial=0.1,
            wait_max=5.0,
        ):
            with attempt, self.translated(action, name, attempts=attempt.num):
                return function()
        raise AssertionError("unreachable: retry_context ends by returning or raising")

    @contextmanager
    def translated(self, action: str, name: str, *, attempts: int = 1) -> Iterator[None]:
        """Raise what the block raises as one of the package's own errors."""
        try:
            yield
        except (AsyncHooksError, Stopped):
            raise
        except Exception as error:  # noqa: BLE001 - third-party file systems raise what they like; the caller gets all of it
            text = self.clean(_first_line(error))
            retries = _RETRIES.search(str(error))
            attempts = int(retries[1]) + 1 if retries else attempts
            kind = _kind(error)
            where = f"{self.url.rstrip('/')}/{name}" if name else self.url
            tried = f"{attempts} attempt{'s' if attempts > 1 else ''}"
            message = f"could not {action} {where}: {text} ({tried}). {_ADVICE[kind]}"
            leaks = self.clean(str(error)) != str(error)
            raise kind(message) from (None if leaks else error)

    def clean(self, text: str) -> str:
        """The text without secrets."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text


def _is_worth_another(error: Exception) -> bool:
    return isinstance(error, StorageUnavailableError)


def _kind(error: Exception) -> type[StorageError | CheckpointNotFoundError]:
    by_class = {
        "PermissionDeniedError": StorageDeniedError,
        "UnauthenticatedError": StorageDeniedError,
        "NoCredentialsError": StorageDeniedError,
    }
    if type(error).__name__ in by_class:
        return by_class[type(error).__name__]
    if isinstance(error, FileNotFoundError):
        # an upload that is gone: it was aborted by the server, or by a rule of the bucket
        return StorageUnavailableError if "NoSuchUpload" in str(error) else CheckpointNotFoundError
    if isinstance(error, PermissionError):
        return StorageDeniedError
    if isinstance(error, (TimeoutError, ConnectionError)):
        return StorageUnavailableError
    if isinstance(error, OSError) and error.errno is not None:
        return _kind_of_errno(error.errno)
    return _kind_of_text(str(error))


def _kind_of_errno(number: int) -> type[StorageError | CheckpointNotFoundError]:
    kinds: Iterable[tuple[set[int], type[StorageError | CheckpointNotFoundError]]] = (
        (_FULL, StorageFullError),
        (_DENIED, StorageDeniedError),
        (_MISSING, CheckpointNotFoundError),
        (_TRANSIENT, StorageUnavailableError),
    )
    return next((kind for numbers, kind in kinds if number in numbers), StorageError)


def _kind_of_text(text: str) -> type[StorageError | CheckpointNotFoundError]:
    """The kind of a client's error that says what happened in words only."""
    found = _STATUS.search(text)
    status = int(found[1] or found[2]) if found else 0
    if status in (401, 403):
        return StorageDeniedError
    if status == 404:
        return CheckpointNotFoundError
    if status == 507 or "QuotaExceeded" in text:
        return StorageFullError
    if status in (408, 429) or status >= 500 or not status:
        return StorageUnavailableError
    return StorageError


def _first_line(error: Exception) -> str:
    """The first line of a client's message; S3 answers carry their code in the XML that follows."""
    text = str(error).partition("\n\nDebug source")[0]
    code = re.search(r"<Code>(\w+)</Code>", text)
    line = text.partition("\n")[0].partition(": <?xml")[0].strip() or type(error).__name__
    return f"{line} [{code[1]}]" if code else line
