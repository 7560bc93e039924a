"""Folders inside a store: one writer process for all, faults that reach inside, and stores that have none."""

from pathlib import Path
from typing import Any, cast

import pytest

from asynchooks.checkpoint import Content, NestingStore, Store, open_store
from asynchooks.checkpoint._storage import nesting
from asynchooks.checkpoint._storage._process import ProcessStore
from asynchooks.errors import StorageError, StorageFullError
from asynchooks.testing import Call, Fault, FaultyStore, SlowStore

LARGE = Content.of(bytes(2 * 2**20))


def test_a_folder_and_those_inside_have_one_writer_process(tmp_path: Path) -> None:
    store = open_store(tmp_path, writer="process")
    assert isinstance(store, ProcessStore)
    inside = store.folder("outer").folder("inner")

    inside.put("a", LARGE, before_visible=lambda: store.put("announcement", LARGE))
    pid = inside.writer_pid
    store.put("b", LARGE)
    assert pid is not None
    assert store.writer_pid == pid
    assert (tmp_path / "outer" / "inner" / "a").stat().st_size == LARGE.nbytes
    store.close()
    assert inside.writer_pid is None


def test_faults_reach_inside_folders_and_calls_name_them(tmp_path: Path) -> None:
    fault = Fault(lambda: StorageFullError("full"), "put", "iter_1/*", times=1)
    store = FaultyStore(open_store(tmp_path), [fault])
    folder = store.folder("iter_1")

    with pytest.raises(StorageFullError):
        folder.put("a", Content.of(b"x"))
    folder.put("a", Content.of(b"x"))
    folder.entries()
    folder.delete("a")
    folder.discard()
    assert store.folders() == []
    assert store.calls == [
        *(Call("put", "iter_1/a"), Call("put", "iter_1/a"), Call("entries", "iter_1/")),
        *(Call("delete", "iter_1/a"), Call("discard", "iter_1/"), Call("folders", "")),
    ]


class FlatStore:
    """Its own eight methods and no more."""

    def __init__(self, inner: Store) -> None:
        self.put, self.read, self.read_into = inner.put, inner.read, inner.read_into
        self.entries, self.delete, self.is_being_written = inner.entries, inner.delete, inner.is_being_written
        self.url, self.parallel_reads = inner.url, inner.parallel_reads


def test_a_store_without_folders_is_told_from_one_that_has_them(tmp_path: Path) -> None:
    flat = cast("Any", FlatStore(open_store(tmp_path)))

    assert not isinstance(flat, NestingStore)
    with pytest.raises(StorageError, match="FlatStore has none"):
        nesting(flat)
    for wrapped in (FaultyStore(flat), SlowStore(flat, bytes_per_s=1e9)):
        with pytest.raises(TypeError, match="FlatStore has no folders inside"):
            wrapped.folder("a")


def test_a_folder_that_somebody_else_removed_is_made_again(tmp_path: Path) -> None:
    folder = nesting(open_store(tmp_path)).folder("iter_1")
    folder.put("a", Content.of(b"x"))
    nesting(open_store(tmp_path)).folder("iter_1").delete("a")
    nesting(open_store(tmp_path)).folder("iter_1").discard()

    folder.put("b", Content.of(b"y"))
    assert list(folder.entries()) == ["b"]
