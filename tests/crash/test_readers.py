"""A reader beside a run that saves, replaces and prunes: it never finds less than there is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from asynchooks.checkpoint import (
    KeepLast,
    Store,
    find_latest,
    list_checkpoints,
    open_store,
    restore,
    restore_latest,
)

from .points import CHANGES_NOTHING
from .saver import Saved, save


class MeddledStore:
    """Does something just before one of the calls by which a reader reads; counts them."""

    def __init__(self, inner: Store, number: int, meddle: Callable[[], None]) -> None:
        self._inner = inner
        self._left = number
        self._meddle = meddle
        self._lock = threading.Lock()
        self.is_done = False

    def __getattr__(self, method: str) -> Any:
        inner = getattr(self._inner, method)
        if method not in CHANGES_NOTHING or not callable(inner):
            return inner

        def call(*args: Any, **options: Any) -> Any:
            if method == "read":
                return self._pieces(inner(*args, **options))
            self._count()
            return inner(*args, **options)

        return call

    def _pieces(self, pieces: Iterator[memoryview]) -> Iterator[memoryview]:
        """A generator, as a store's: opened at the first piece."""
        self._count()
        yield from pieces

    def _count(self) -> None:
        with self._lock:  # a reader has several threads: none reads while it is meddled with
            if self._left == 0:
                self.is_done = True
                self._meddle()
            self._left -= 1


def save_on(folder: Path, *saves: Saved) -> None:
    """A run that keeps one."""
    for each in saves:
        save(open_store(folder), each, KeepLast(1))


RUNS = {
    "names of their own": [Saved(1, "a.pth"), Saved(2, "b.pth"), Saved(3, "c.pth")],
    "one name": [Saved(1, "a.pth"), Saved(2, "a.pth"), Saved(3, "a.pth")],
    "one name, other sizes": [Saved(1, "a.pth"), Saved(2, "a.pth", 1000), Saved(3, "a.pth")],
}


def meddled_with(tmp_path: Path, saves: list[Saved]) -> Iterator[MeddledStore]:
    """A folder with a checkpoint, in which two more saves happen before the n-th call of a reader, for each n."""
    number, is_done = 0, True
    while is_done:
        folder = tmp_path / str(number)
        save_on(folder, saves[0])
        store = MeddledStore(open_store(folder), number, partial(save_on, folder, *saves[1:]))
        yield store
        number, is_done = number + 1, store.is_done
    assert number > 2


@pytest.mark.parametrize("run", RUNS)
def test_the_latest_is_found_whatever_is_pruned_meanwhile(tmp_path: Path, run: str) -> None:
    for store in meddled_with(tmp_path, RUNS[run]):
        latest = find_latest(cast("Store", store))

        assert latest is not None
        assert latest.step in (1, 3)


@pytest.mark.parametrize("run", RUNS)
def test_the_latest_is_loaded_whatever_is_pruned_meanwhile(tmp_path: Path, run: str) -> None:
    for store in meddled_with(tmp_path, RUNS[run]):
        found = restore_latest(cast("Store", store))

        assert found is not None
        info, loaded = found
        assert loaded["meta"]["iter"] in (1, 3)
        assert info.step == loaded["meta"]["iter"]


@pytest.mark.parametrize("run", RUNS)
def test_a_listing_is_never_empty_once_there_was_a_checkpoint(
    tmp_path: Path, run: str, caplog: pytest.LogCaptureFixture
) -> None:
    for store in meddled_with(tmp_path, RUNS[run]):
        listed = list_checkpoints(cast("Store", store))

        assert {info.step for info in listed} <= {1, 3}
        assert listed
    assert not caplog.records, "what is replaced under the reader's hands is no damage"


def test_a_pruned_checkpoint_is_not_found_and_the_latest_loads(tmp_path: Path) -> None:
    save_on(tmp_path, *RUNS["names of their own"])

    with pytest.raises(FileNotFoundError, match=r"a\.pth"):
        restore(tmp_path / "a.pth")
    latest = find_latest(tmp_path)
    assert latest is not None
    assert restore(latest.url)["meta"]["iter"] == 3
