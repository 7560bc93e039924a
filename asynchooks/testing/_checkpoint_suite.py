"""The conformance suite of checkpoints: what `asynchooks.checkpoint` promises on every store.

Inherit in a pytest module and give a `store` fixture (an empty folder), as for `StoreSuite`.
"""

# ruff: noqa: S101 - these are tests, shipped
from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import torch
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from asynchooks.checkpoint import (
    Checkpointer,
    Content,
    KeepLast,
    Planning,
    ShardReader,
    ShardWriter,
    capture,
    capture_shards,
    find_latest,
    list_checkpoints,
    owner_file,
    plan_shards,
    read_pointer,
    restore_latest,
    sweep,
)
from asynchooks.checkpoint._owner import OWNER_FILE, Owner
from asynchooks.checkpoint._process import Process
from asynchooks.checkpoint._storage import nesting
from asynchooks.errors import CheckpointConflictError, StorageError, StorageFullError
from asynchooks.testing._storage import Fault, FaultyStore

if TYPE_CHECKING:
    from asynchooks.checkpoint import Snapshot, Store

__all__ = ["CheckpointSuite"]

_MIB = 2**20


class CheckpointSuite:
    """What `asynchooks.checkpoint` promises on every store."""

    def test_saved_equals_loaded(self, store: Store) -> None:
        """Bit by bit, read from the store again."""
        state = _state(1)

        info = Checkpointer(store).save_sync(capture(state), name="iter_1.pth", step=1, metrics={"acc": 0.5})

        assert list_checkpoints(store) == [info]
        assert torch.equal(_loaded(store, info.name)["state_dict"]["weight"], state["state_dict"]["weight"])

    def test_the_newest_is_found_and_the_pointer_names_it(self, store: Store) -> None:
        """By the order of the saves."""
        saves = Checkpointer(store)
        for step in (1, 2, 3):
            saves.save_sync(_snapshot(step), name=f"iter_{step}.pth", step=step, pointer="last")

        latest = find_latest(store)

        assert latest is not None
        assert latest.step == 3
        assert read_pointer(store) == latest.url

    def test_pruning_leaves_exactly_what_the_policy_keeps(self, store: Store) -> None:
        """And no manifest of what is gone."""
        saves = Checkpointer(store)
        for step in (1, 2, 3, 4):
            saves.save_sync(
                _snapshot(step), name=f"iter_{step}.pth", step=step, pointer="last", keep=KeepLast(2)
            )

        assert _names(store) == [
            "iter_3.pth",
            "iter_3.pth.manifest.json",
            "iter_4.pth",
            "iter_4.pth.manifest.json",
            "last_checkpoint",
        ]

    def test_shards_are_saved_and_pruned_beside_single_files(self, store: Store) -> None:
        """In folders, that go with the last file in them."""
        saves, planning = Checkpointer(store), Planning()
        saves.save_sync(_snapshot(1), name="iter_1.pth", step=1, pointer="last")
        for step in (2, 3, 4):
            shards = capture_shards(plan_shards(_state(step), planning))
            saves.save_sync(shards, name=f"iter_{step}", step=step, pointer="last", keep=KeepLast(2))
        found = restore_latest(store)

        assert [(info.name, info.layout) for info in list_checkpoints(store)] == [
            ("iter_3", "sharded"),
            ("iter_4", "sharded"),
        ]
        assert sorted(nesting(store).folders()) == ["iter_3", "iter_4"]
        assert found is not None
        assert torch.equal(found[1]["state_dict"]["weight"], _state(4)["state_dict"]["weight"])

    @pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
    def test_dcp_saves_to_it_and_loads_from_it(self, store: Store) -> None:
        """``torch.distributed.checkpoint``, through the writer and the reader."""
        folder, state, there = nesting(store).folder("iter_1"), _state(1), _state(2)

        save(state, storage_writer=ShardWriter(folder), no_dist=True)
        load(there, storage_reader=ShardReader(folder), no_dist=True)

        assert torch.equal(there["state_dict"]["weight"], state["state_dict"]["weight"])

    @pytest.mark.parametrize(
        "file", ["iter_1.pth.manifest.next.json", "iter_1.pth", "iter_1.pth.manifest.json"]
    )
    def test_a_replacement_that_fails_anywhere_leaves_one_loadable_checkpoint(
        self, store: Store, file: str
    ) -> None:
        """The old one or the new one, whole."""
        Checkpointer(store).save_sync(_snapshot(1), name="iter_1.pth", step=1)
        faulty = FaultyStore(store, [Fault(lambda: StorageFullError("full"), "put", file, times=1)])

        with pytest.raises(StorageError, match="full"):
            Checkpointer(faulty).save_sync(_snapshot(2), name="iter_1.pth", step=2)

        latest = find_latest(store)
        assert latest is not None
        assert latest.step in (1, 2)

    def test_a_save_that_fails_midway_leaves_nothing_of_itself(self, store: Store) -> None:
        """Not even a name."""
        faulty = FaultyStore(
            store, [Fault(lambda: OSError(28, "No space left"), "put", "iter_2.pth", after_bytes=1)]
        )
        Checkpointer(store).save_sync(_snapshot(1), name="iter_1.pth", step=1)

        with pytest.raises(StorageError, match="step 2"):
            Checkpointer(faulty).save_sync(_snapshot(2), name="iter_2.pth", step=2)

        assert _names(store) == ["iter_1.pth", "iter_1.pth.manifest.json"]

    def test_nothing_is_pruned_when_the_commit_fails(self, store: Store) -> None:
        """Durable first, then the pointer, then the pruning."""
        saves = Checkpointer(store)
        saves.save_sync(_snapshot(1), name="iter_1.pth", step=1, pointer="last")
        faulty = FaultyStore(
            store, [Fault(lambda: StorageFullError("full"), "put", "iter_2.pth.manifest.json")]
        )

        with pytest.raises(StorageFullError):
            Checkpointer(faulty, run_id=saves.run_id).save_sync(
                _snapshot(2), name="iter_2.pth", step=2, pointer="last", keep=KeepLast(1)
            )

        latest = find_latest(store)
        assert latest is not None
        assert latest.step == 1
        assert read_pointer(store) == latest.url

    def test_a_cancelled_save_leaves_nothing_of_itself(self, store: Store) -> None:
        """Cancelled while the bytes are on their way."""

        async def save_and_cancel() -> None:
            with anyio.CancelScope() as scope:
                cancelling = _CancellingStore(store, scope)
                await Checkpointer(cancelling).save(_snapshot(1, rows=6 * _MIB), name="iter_1.pth", step=1)
            assert scope.cancelled_caught

        anyio.run(save_and_cancel)

        assert _names(store) == []

    def test_damage_is_found_and_the_one_before_is_taken(
        self, store: Store, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Loudly: the file and the reason."""
        saves = Checkpointer(store)
        saves.save_sync(_snapshot(1), name="iter_1.pth", step=1)
        saves.save_sync(_snapshot(2), name="iter_2.pth", step=2)
        data = bytearray(b"".join(store.read("iter_2.pth")))
        data[len(data) // 2] ^= 1
        store.put("iter_2.pth", Content.of(data))

        with caplog.at_level(logging.WARNING):
            latest = find_latest(store)

        assert latest is not None
        assert latest.step == 1
        assert "iter_2.pth" in caplog.text
        assert "differs" in caplog.text

    def test_sweep_removes_what_an_interrupted_commit_left(self, store: Store) -> None:
        """Data whose manifest was never written, and nothing committed."""
        faulty = FaultyStore(
            store, [Fault(lambda: StorageFullError("full"), "put", "iter_2.pth.manifest.json")]
        )
        Checkpointer(store).save_sync(_snapshot(1), name="iter_1.pth", step=1)
        with pytest.raises(StorageFullError):
            Checkpointer(faulty).save_sync(_snapshot(2), name="iter_2.pth", step=2)
        assert "iter_2.pth" in store.entries()

        sweep(store, older_than_s=-5)

        assert _names(store) == ["iter_1.pth", "iter_1.pth.manifest.json"]

    def test_check_leaves_nothing(self, store: Store) -> None:
        """The probe is gone; the claim of the folder stays."""
        Checkpointer(store).check_sync()

        assert _names(store) == []

    def test_a_folder_that_was_released_says_so(self, store: Store) -> None:
        """To whoever claims it next."""
        saves = Checkpointer(store)
        saves.save_sync(_snapshot(1), name="iter_1.pth", step=1)
        before = Owner.from_json(b"".join(store.read(OWNER_FILE)))
        saves.release_sync()
        after = Owner.from_json(b"".join(store.read(OWNER_FILE)))

        assert (before.step, before.released, after.released) == (1, False, True)
        assert before.run_id == saves.run_id

    def test_a_process_whose_folder_was_taken_over_cannot_commit(self, store: Store) -> None:
        """Nothing of its save is visible, and the message names who took it."""
        saves = Checkpointer(store, run_id="mine")
        saves.save_sync(_snapshot(1), name="iter_1.pth", step=1)
        other = Owner("theirs", "another process", Process("far-away", 7, ""), 0.0, 5)
        file = owner_file(store, OWNER_FILE)
        file.read()
        assert file.write(other.to_json())
        file.let_go()

        with pytest.raises(
            CheckpointConflictError, match=r"step 2: .*run theirs \(process 7 on far-away.*step 5"
        ):
            saves.save_sync(_snapshot(2), name="iter_2.pth", step=2)

        assert _names(store) == ["iter_1.pth", "iter_1.pth.manifest.json"]

    def test_many_saves_leave_no_trail_of_files_behind(self, store: Store) -> None:
        """Only what is kept."""
        saves = Checkpointer(store)
        for step in range(12):
            saves.save_sync(_snapshot(step), name=f"iter_{step}.pth", step=step, keep=KeepLast(1))

        assert _names(store) == ["iter_11.pth", "iter_11.pth.manifest.json"]


class _CancellingStore:
    """Cancels a scope, from the worker thread, when the first bytes of the data were taken."""

    def __init__(self, inner: Store, scope: anyio.CancelScope) -> None:
        self._inner = inner
        self._scope = scope

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def put(self, name: str, content: Content, *, progress: Any = None, **options: Any) -> None:
        def cancel_first(nbytes: int) -> None:
            anyio.from_thread.run_sync(self._scope.cancel)
            anyio.from_thread.run(anyio.lowlevel.checkpoint)
            progress(nbytes)

        if name.endswith(".json"):
            self._inner.put(name, content, **options)
        else:
            self._inner.put(name, content, progress=cancel_first, **options)


def _names(store: Store) -> list[str]:
    return sorted(store.entries().keys() - {OWNER_FILE})


def _state(step: int, rows: int = 64) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(step)
    return {"state_dict": {"weight": torch.randn(rows, generator=generator)}, "meta": {"iter": step}}


def _snapshot(step: int, rows: int = 64) -> Snapshot:
    return capture(_state(step, rows))


def _loaded(store: Store, name: str) -> dict[str, Any]:
    import io

    loaded: dict[str, Any] = torch.load(io.BytesIO(b"".join(store.read(name))), weights_only=True)
    return loaded
