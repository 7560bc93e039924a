"""The points of a save: before and after each change of the store, and in the middle of those that take long.

The names are made from the calls as they come, so a save that takes a new step gets a new point by itself. A
method that this module does not know counts as a change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from asynchooks.checkpoint import OwnerFile, Store
from asynchooks.checkpoint._manifest import MANIFEST_SUFFIX, NEXT_SUFFIX, POINTERS, TEMPORARY

CHANGES_NOTHING = {"url", "read", "read_into", "entries", "is_being_written"}


class WatchedStore:
    """Hands every point of the calls to `at`, in the thread that reaches it; the inner store does the work.

    Args:
        inner: the store.
        saved: name of the checkpoint that is saved; all others are old ones.
        at: told the name of each point.
    """

    def __init__(self, inner: Store, saved: str, at: Callable[[str], None]) -> None:
        self._inner = inner
        self._saved = saved
        self._at = at

    def __getattr__(self, method: str) -> Any:
        inner = getattr(self._inner, method)
        if method == "owner_file":
            return lambda name: WatchedOwnerFile(inner(name), self._at)
        if method in CHANGES_NOTHING or not callable(inner):
            return inner

        def call(name: str = "", *args: Any, **options: Any) -> Any:
            step = f"{method} {kind_of(name, self._saved)}".strip()
            self._at(f"{step}: begins")
            told = {
                key: self._telling(f"{step}: {key}", value) if callable(value) else value
                for key, value in options.items()
            }
            answer = inner(*((name,) if name else ()), *args, **told)
            self._at(f"{step}: done")
            return answer

        return call

    def _telling(self, point: str, callback: Callable[..., Any]) -> Callable[..., Any]:
        """The callback, with a point before each call of it."""
        count = 0

        def tell(*args: Any) -> Any:
            nonlocal count
            count += 1
            self._at(f"{point} {count}")
            return callback(*args)

        return tell


class WatchedOwnerFile:
    """The same for the owner file: to write it is a change."""

    def __init__(self, inner: OwnerFile, at: Callable[[str], None]) -> None:
        self._inner = inner
        self._at = at

    def __getattr__(self, method: str) -> Any:
        return getattr(self._inner, method)

    def write(self, text: bytes) -> bool:
        self._at("write owner file: begins")
        answer = self._inner.write(text)
        self._at("write owner file: done")
        return answer


def watched(inner: Store, saved: str, at: Callable[[str], None]) -> Store:
    """The store, watched: it has whatever methods the inner one has."""
    return cast("Store", WatchedStore(inner, saved, at))


def kind_of(name: str, saved: str) -> str:
    """What a file is: the data, manifest or next manifest of the checkpoint that is saved, or of an old one."""
    if not name or name in POINTERS.values():
        return "pointer" if name else ""
    if TEMPORARY.fullmatch(name):
        return "temporary file"
    for ending, kind in ((NEXT_SUFFIX, "next manifest"), (MANIFEST_SUFFIX, "manifest"), (".pth", "data")):
        if name.endswith(ending):
            stem = name if ending == ".pth" else name.removesuffix(ending)
            return kind if stem == saved else f"old {kind}"
    return name
