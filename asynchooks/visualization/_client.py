"""What the backends of tracking services share: a client that is there or not, opened late, closed, opened again.

Decides nothing about any service. Messages never show what a constructor was given: it may hold a token.
"""

from __future__ import annotations

import importlib.util
import os
import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from asynchooks.errors import ConfigError
from asynchooks.visualization._backend import VisBackend

__all__ = [
    "ClientBackend",
    "check_package",
    "checked_mapping",
    "checked_suffixes",
    "config_values",
    "files_below",
    "plain",
]

_REST_S = 60.0  # from an opening that failed to the next


def check_package(taker: str, package: str, extra: str | None = None) -> None:
    """Raise `ConfigError` where a client package is not installed.

    Args:
        taker: who needs it.
        package: what is imported.
        extra: the extra of this project that brings it; None where a plain ``pip install`` does.
    """
    try:
        is_there = importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # the parent of a dotted name
        is_there = False
    if not is_there:
        install = f"'asynchooks[{extra}]'" if extra else package.partition(".")[0]
        raise ConfigError(f"{taker} needs the package {package}: pip install {install}.")


def checked_mapping(taker: str, name: str, value: Any) -> dict[str, Any]:
    """Return an argument that is a dict with names as keys, or None, as a dict of its own."""
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise TypeError(f"{taker}({name}=...): give a dict with names as keys, not a {type(value).__name__}.")
    return dict(value)


def checked_suffixes(taker: str, name: str, value: Any) -> tuple[str, ...]:
    """Return an argument that is an ending of file names, or several of them."""
    endings = (value,) if isinstance(value, str) else value
    if not isinstance(endings, Sequence) or not all(isinstance(each, str) for each in endings):
        raise TypeError(f"{taker}({name}={value!r}): give an ending such as '.log', or a list of them.")
    return tuple(endings)


def files_below(folder: str | os.PathLike[str] | None, suffixes: tuple[str, ...]) -> Iterator[Path]:
    """Yield the files of a local folder and those below it, by their endings, sorted; none where it is none."""
    root = None if folder is None or "://" in os.fspath(folder) else Path(folder)
    if root is not None and root.is_dir() and suffixes:
        for path in sorted(root.rglob("*")):
            hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
            if path.is_file() and path.name.endswith(suffixes) and not hidden:
                yield path


def config_values(config: Any) -> dict[str, Any]:
    """Return a configuration as a dict of dicts, lists, numbers and strings; a text stands under ``config``."""
    if isinstance(config, str):
        return {"config": config}
    values: dict[str, Any] = plain(config.to_dict() if hasattr(config, "to_dict") else config)
    return values


def plain(value: Any) -> Any:
    """Return a configuration as dicts, lists, numbers and strings."""
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(each) for each in value]
    if isinstance(value, str | int | float | None):
        return value
    for method in ("tolist", "item"):
        if hasattr(value, method):
            return getattr(value, method)()
    return str(value)


class ClientBackend(VisBackend):
    """A backend that writes through a client library's object: a run, a task, a logger.

    Attributes:
        has_failed: whether the run that is closed next has failed; for services that show it.
    """

    package: str
    extra: str
    has_failed = False

    def __init__(self, save_dir: str | os.PathLike[str] | None = None) -> None:
        check_package(type(self).__name__, self.package, self.extra)
        super().__init__(save_dir)
        self._client: Any = None
        self._rests_until = 0.0

    @property
    def experiment(self) -> Any:
        """The client's object, opened now if it is not open."""
        if self._client is None:
            if time.monotonic() < self._rests_until:
                raise ConnectionError(
                    f"{type(self).__name__} could not be opened a moment ago, so this is not recorded. It is tried "
                    f"again later."
                )
            try:
                self._client = self._open()
            except Exception:
                self._rests_until = time.monotonic() + _REST_S  # lines do not queue up behind its time limits
                raise
        return self._client

    def add_scalar(self, name: str, value: Any, step: int = 0) -> None:
        """Record one number."""
        self.add_scalars({name: value}, step)

    def close(self) -> None:
        """Write what is held back, and finish; a later call opens again, and continues where the client can."""
        client, self._client = self._client, None
        self._rests_until = 0.0
        if client is not None:
            self._finish(client)

    @abstractmethod
    def _open(self) -> Any:
        """Import the library and open a run."""

    @abstractmethod
    def _finish(self, client: Any) -> None:
        """End what `_open` returned."""
