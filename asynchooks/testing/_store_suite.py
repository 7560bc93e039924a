"""The conformance suite of a store: what `asynchooks.checkpoint.Store` promises.

Inherit in a pytest module, with `CheckpointSuite` or without, and give a `store` fixture (an empty folder)::

    class TestMyStore(StoreSuite, CheckpointSuite):
        @pytest.fixture
        def store(self) -> Store:
            return MyStore(...)
"""

# ruff: noqa: S101 - these are tests, shipped
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from asynchooks.checkpoint import Content, NestingStore
from asynchooks.errors import CheckpointNotFoundError, StorageFullError, UnsafePathError

if TYPE_CHECKING:
    from asynchooks.checkpoint import Store

__all__ = ["StoreSuite"]

_MIB = 2**20


class StoreSuite:
    """What `asynchooks.checkpoint.Store` promises, and `NestingStore` where the store is one."""

    def test_what_was_put_reads_back(self, store: Store) -> None:
        """One buffer or many, empty ones among them."""
        store.put("a.pth", Content.of(b"one", b"", bytearray(b"two")))

        assert b"".join(store.read("a.pth")) == b"onetwo"
        assert store.entries()["a.pth"].nbytes == 6

    def test_an_empty_file_is_a_file(self, store: Store) -> None:
        """Zero bytes are content."""
        store.put("empty", Content.of())

        assert store.entries()["empty"].nbytes == 0
        assert b"".join(store.read("empty")) == b""

    def test_a_large_file_comes_back_whole(self, store: Store) -> None:
        """Larger than one part and one chunk, of no round length, in uneven buffers."""
        data = bytes(torch.arange(33 * _MIB + 5, dtype=torch.int64).to(torch.uint8).numpy())
        store.put("large", Content.of(data[:7], memoryview(data)[7 : 20 * _MIB + 1], data[20 * _MIB + 1 :]))

        pieces = b"".join(store.read("large"))

        assert pieces == data

    def test_progress_hears_of_every_byte(self, store: Store) -> None:
        """The sum of what it is told is the length."""
        told: list[int] = []

        store.put("large", Content.of(bytes(20 * _MIB)), progress=told.append)

        assert sum(told) == 20 * _MIB

    def test_putting_again_replaces_the_file(self, store: Store) -> None:
        """No append, no second version."""
        store.put("a.pth", Content.of(b"a long first content"))
        store.put("a.pth", Content.of(b"second"))

        assert b"".join(store.read("a.pth")) == b"second"

    def test_a_stopped_put_leaves_the_old_file_and_nothing_else(self, store: Store) -> None:
        """In the middle of the bytes."""
        store.put("a.pth", Content.of(b"old"))
        told: list[int] = []

        def stop(nbytes: int) -> None:
            told.append(nbytes)
            if sum(told) > 8 * _MIB:
                raise StorageFullError("no space left")

        with pytest.raises(StorageFullError, match="no space left"):
            store.put("a.pth", Content.of(bytes(40 * _MIB)), progress=stop)

        assert b"".join(store.read("a.pth")) == b"old"
        assert list(store.entries()) == ["a.pth"]

    def test_a_stopped_put_of_a_new_name_leaves_nothing(self, store: Store) -> None:
        """Also when the whole content was taken but not yet visible."""

        def stop(_nbytes: int) -> None:
            raise StorageFullError("no space left")

        with pytest.raises(StorageFullError):
            store.put("a.pth", Content.of(bytes(20 * _MIB)), progress=stop)

        assert dict(store.entries()) == {}

    @pytest.mark.parametrize("nbytes", [5, 20 * _MIB])
    def test_a_file_is_announced_when_its_bytes_are_there_and_before_it_is_visible(
        self, store: Store, nbytes: int
    ) -> None:
        """The callback may use the store, and still sees the old file."""
        store.put("a.pth", Content.of(b"old"))
        seen: list[tuple[int, bytes]] = []
        told: list[int] = []

        def look() -> None:
            store.put("announcement", Content.of(b"soon"))
            seen.append((sum(told), b"".join(store.read("a.pth"))))

        store.put("a.pth", Content.of(bytes(nbytes)), progress=told.append, before_visible=look)

        assert seen == [(nbytes, b"old")]
        assert store.entries()["a.pth"].nbytes == nbytes

    @pytest.mark.parametrize("nbytes", [5, 20 * _MIB])
    def test_what_is_refused_when_it_is_announced_never_appears(self, store: Store, nbytes: int) -> None:
        """And the old file stays."""
        store.put("a.pth", Content.of(b"old"))

        def refuse() -> None:
            raise StorageFullError("no room for the announcement")

        with pytest.raises(StorageFullError, match="announcement"):
            store.put("a.pth", Content.of(bytes(nbytes)), before_visible=refuse)

        assert b"".join(store.read("a.pth")) == b"old"
        assert list(store.entries()) == ["a.pth"]

    def test_a_missing_file_is_not_found(self, store: Store) -> None:
        """At the first piece, by its URL."""
        with pytest.raises(CheckpointNotFoundError, match="missing"):
            next(store.read("missing"))

    def test_a_read_may_end_early(self, store: Store) -> None:
        """Closing the iterator frees what it holds."""
        store.put("large", Content.of(bytes(20 * _MIB)))
        pieces: Any = store.read("large", chunk_bytes=1024)

        assert len(next(pieces)) > 0
        pieces.close()

    @pytest.mark.parametrize("offset", [0, 5, 16 * _MIB - 1, 16 * _MIB + 3, 33 * _MIB])
    def test_a_range_fills_the_buffers_one_after_the_other(self, store: Store, offset: int) -> None:
        """From any byte on, whatever their lengths, empty ones among them."""
        data = bytes(torch.arange(34 * _MIB + 5, dtype=torch.int64).to(torch.uint8).numpy())
        store.put("large", Content.of(data))
        buffers = [bytearray(nbytes) for nbytes in (3, 0, 100_000, 1)]

        nread = store.read_into("large", offset, [memoryview(buffer) for buffer in buffers])

        assert nread == 100_004
        assert b"".join(buffers) == data[offset : offset + nread]

    def test_a_range_may_be_larger_than_a_chunk(self, store: Store) -> None:
        """And is whole all the same."""
        data = bytes(torch.arange(34 * _MIB + 5, dtype=torch.int64).to(torch.uint8).numpy())
        store.put("large", Content.of(data))
        buffer = bytearray(33 * _MIB)

        assert store.read_into("large", 7, [memoryview(buffer)]) == 33 * _MIB
        assert buffer == data[7 : 7 + 33 * _MIB]

    def test_a_range_ends_with_the_file(self, store: Store) -> None:
        """Short at its end, and nothing behind it; the rest of the buffers is left alone."""
        store.put("a.pth", Content.of(b"content"))
        first, second = bytearray(b"...."), bytearray(b"....")

        assert store.read_into("a.pth", 2, [memoryview(first), memoryview(second)]) == 5
        assert first + second == b"ntent..."
        assert store.read_into("a.pth", 7, [memoryview(first)]) == 0
        assert store.read_into("a.pth", 1000, [memoryview(first)]) == 0
        assert store.read_into("a.pth", 3, []) == 0

    def test_a_range_of_a_missing_file_is_not_found(self, store: Store) -> None:
        """By its URL."""
        with pytest.raises(CheckpointNotFoundError, match="missing"):
            store.read_into("missing", 0, [memoryview(bytearray(1))])

    def test_at_least_one_range_is_read_at_a_time(self, store: Store) -> None:
        """Also once it was found out how the store answers."""
        store.put("a.pth", Content.of(b"content"))
        store.read_into("a.pth", 0, [memoryview(bytearray(1))])

        assert store.parallel_reads >= 1

    def test_deleting_is_idempotent(self, store: Store) -> None:
        """What is gone may be deleted again."""
        store.put("a.pth", Content.of(b"x"))
        store.delete("a.pth")
        store.delete("a.pth")

        assert "a.pth" not in store.entries()

    def test_a_folder_that_does_not_exist_yet_is_empty(self, store: Store) -> None:
        """Nothing has to be made beforehand, save a bucket."""
        assert dict(store.entries()) == {}

    def test_a_folder_holds_files_of_its_own(self, store: Store) -> None:
        """The same names in both; neither lists what is the other's. `.metadata` is a name like others."""
        folder = _nesting(store).folder("iter_1")
        store.put("a", Content.of(b"outside"))
        folder.put("a", Content.of(b"inside"))
        folder.put(".metadata", Content.of(b"it"))

        assert b"".join(folder.read("a")) == b"inside"
        assert b"".join(store.read("a")) == b"outside"
        assert set(folder.entries()) == {"a", ".metadata"}
        assert set(store.entries()) == {"a"}
        assert folder.url == store.url.rstrip("/") + "/iter_1"

    def test_a_large_file_in_a_folder_comes_back_whole(self, store: Store) -> None:
        """Through whatever writes large files."""
        folder = _nesting(store).folder("iter_1")
        data = bytes(torch.arange(20 * _MIB + 5, dtype=torch.int64).to(torch.uint8).numpy())
        folder.put("large", Content.of(data))
        buffer = bytearray(100)

        assert b"".join(folder.read("large")) == data
        assert folder.read_into("large", 17 * _MIB, [memoryview(buffer)]) == 100
        assert buffer == data[17 * _MIB : 17 * _MIB + 100]

    def test_folders_that_hold_something_are_named(self, store: Store) -> None:
        """Those directly inside; none of what was never written to."""
        nesting = _nesting(store)
        store.put("a", Content.of(b"x"))
        nesting.folder("unused")
        nesting.folder("outer").folder("inner").put("a", Content.of(b"x"))

        assert list(nesting.folders()) == ["outer"]
        assert list(nesting.folder("outer").folders()) == ["inner"]
        assert list(nesting.folder("unused").folders()) == []

    def test_a_folder_is_discarded_once_it_is_empty(self, store: Store) -> None:
        """And not before; again does no harm, and neither does writing to it again."""
        folder = _nesting(store).folder("iter_1")
        folder.put("a", Content.of(b"x"))
        folder.discard()
        assert set(folder.entries()) == {"a"}
        folder.delete("a")

        folder.discard()
        folder.discard()
        assert list(_nesting(store).folders()) == []
        folder.put("b", Content.of(b"y"))
        assert list(_nesting(store).folders()) == ["iter_1"]

    def test_a_stopped_put_in_a_folder_leaves_no_file(self, store: Store) -> None:
        """Nor a temporary one."""
        folder = _nesting(store).folder("iter_1")

        def stop(_nbytes: int) -> None:
            raise StorageFullError("no space left")

        with pytest.raises(StorageFullError):
            folder.put("a", Content.of(bytes(20 * _MIB)), progress=stop)

        assert dict(folder.entries()) == {}

    @pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "a\\b", ".hidden", "a\0"])
    def test_a_folders_name_is_one_safe_component(self, store: Store, name: str) -> None:
        """Whatever the name says, nothing outside is reached."""
        with pytest.raises(UnsafePathError):
            _nesting(store).folder(name)


def _nesting(store: Store) -> NestingStore:
    if not isinstance(store, NestingStore):
        pytest.skip("this store has no folders inside")
    return store
