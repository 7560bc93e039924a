"""Pruning by hand: run by run, never what remains or what is pointed to, and only beside something whole."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch

from asynchooks.checkpoint import (
    Checkpointer,
    CheckpointInfo,
    KeepEvery,
    KeepLast,
    Store,
    capture,
    list_checkpoints,
    open_store,
    prune,
    sweep,
)
from asynchooks.errors import CorruptCheckpointError, StorageDeniedError, StorageFullError
from asynchooks.testing import Fault, FaultyStore


def saved(folder: Path, step: int, run_id: str = "run", **options: Any) -> CheckpointInfo:
    state = {"w": torch.full((100,), float(step)), "step": step}
    saves = Checkpointer(folder, run_id=run_id)
    info = saves.save_sync(capture(state), name=f"{run_id}_{step}.pth", step=step, **options)
    saves.release_sync()
    return info


class ReplacingStore:
    """While the removal of run_1.pth is announced, another process replaces it."""

    def __init__(self, inner: Store, folder: Path) -> None:
        self._inner = inner
        self._folder = folder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def put(self, name: str, *arguments: Any, **options: Any) -> None:
        saved(self._folder, 1)
        self._inner.put(name, *arguments, **options)


def names(folder: Path) -> list[str]:
    return [info.name for info in list_checkpoints(folder)]


def test_what_no_policy_keeps_goes_whole(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        saved(tmp_path, step)

    verdicts = prune(tmp_path, KeepLast(1) | KeepEvery(steps=2))
    assert names(tmp_path) == ["run_2.pth", "run_4.pth"]
    assert [verdict.info.step for verdict in verdicts if verdict.goes] == [1, 3]
    assert len(list(tmp_path.glob("run_*"))) == 4


def test_a_dry_run_judges_and_deletes_nothing(tmp_path: Path) -> None:
    for step in (1, 2):
        saved(tmp_path, step)

    assert [verdict.goes for verdict in prune(tmp_path, KeepLast(1), dry_run=True)] == [True, False]
    assert names(tmp_path) == ["run_1.pth", "run_2.pth"]


def test_each_run_and_group_is_judged_on_its_own(tmp_path: Path) -> None:
    for step in (1, 2):
        saved(tmp_path, step, run_id="old")
        saved(tmp_path, 10 + step, run_id="old", group="weekly")
        saved(tmp_path, step, run_id="new")

    prune(tmp_path, KeepLast(1), run_id="old", group="last")
    assert names(tmp_path) == ["old_11.pth", "new_1.pth", "old_2.pth", "old_12.pth", "new_2.pth"]
    prune(tmp_path, KeepLast(1))
    assert names(tmp_path) == ["old_2.pth", "old_12.pth", "new_2.pth"]


def test_what_a_pointer_names_stays(tmp_path: Path) -> None:
    saved(tmp_path, 1, pointer="best", group="last")
    saved(tmp_path, 2)
    saved(tmp_path, 3)

    verdicts = prune(tmp_path, KeepLast(1))
    assert [verdict.kept_by for verdict in verdicts] == [
        ("best_checkpoint names it",),
        (),
        ("newest", "KeepLast(n=1)"),
    ]


def test_nothing_goes_when_what_would_remain_is_damaged(tmp_path: Path) -> None:
    for step in (1, 2):
        saved(tmp_path, step)
    content = bytearray((tmp_path / "run_2.pth").read_bytes())
    content[-400] ^= 1
    (tmp_path / "run_2.pth").write_bytes(content)

    with pytest.raises(CorruptCheckpointError, match=r"run_2\.pth: chunk"):
        prune(tmp_path, KeepLast(1))
    assert names(tmp_path) == ["run_1.pth", "run_2.pth"]


def test_what_a_save_under_way_concerns_stays(tmp_path: Path) -> None:
    for step in (1, 2):
        saved(tmp_path, step)
    manifest = tmp_path / "run_1.pth.manifest.json"
    (tmp_path / "run_1.pth.manifest.next.json").write_bytes(manifest.read_bytes())

    (verdict, _) = prune(tmp_path, KeepLast(1))
    assert "being saved or removed" in verdict.kept_by[0]
    assert names(tmp_path) == ["run_1.pth", "run_2.pth"]


def test_one_that_was_replaced_meanwhile_stays(tmp_path: Path) -> None:
    for step in (1, 2):
        saved(tmp_path, step)

    def replace(nbytes: int) -> None:
        if nbytes == 0:
            saved(tmp_path, 1)

    (verdict, _) = prune(tmp_path, KeepLast(1), progress=replace)
    assert verdict.kept_by == ("replaced or removed meanwhile",)
    assert names(tmp_path) == ["run_2.pth", "run_1.pth"]


def test_what_a_run_that_writes_here_may_save_again_stays(tmp_path: Path) -> None:
    for step in (20, 10, 30):
        saved(tmp_path, step)
    live = Checkpointer(tmp_path, run_id="live")
    live.check_sync()
    assert not any(verdict.goes for verdict in prune(tmp_path, KeepLast(1), run_id="run"))

    live.save_sync(capture({"w": torch.ones(3)}), name="live_15.pth", step=15)
    verdicts = prune(tmp_path, KeepLast(1), run_id="run")
    assert [verdict.info.step for verdict in verdicts if verdict.goes] == [10]
    assert "may be saved again by run live" in verdicts[0].kept_by[0]

    live.release_sync()
    prune(tmp_path, KeepLast(1), run_id="run")
    assert names(tmp_path) == ["run_30.pth", "live_15.pth"]


def test_a_removal_looks_again_before_each_deletion(tmp_path: Path) -> None:
    for step in (1, 2):
        saved(tmp_path, step)
    store = ReplacingStore(open_store(tmp_path), tmp_path)

    (verdict, _) = prune(cast("Store", store), KeepLast(1))
    assert verdict.kept_by == ("replaced or removed meanwhile",)
    assert names(tmp_path) == ["run_2.pth", "run_1.pth"]
    assert not [path.name for path in tmp_path.iterdir() if ".next." in path.name]


def test_a_pruning_that_is_stopped_leaves_nothing_half_deleted(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        saved(tmp_path, step)
    before_each: list[int] = []

    def stop_at_the_second(nbytes: int) -> None:
        before_each.extend([nbytes] if nbytes == 0 else [])
        if len(before_each) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prune(tmp_path, KeepLast(1), progress=stop_at_the_second)
    assert names(tmp_path) == ["run_2.pth", "run_3.pth", "run_4.pth"]
    assert sweep(tmp_path, older_than_s=-60) == []


def test_a_pruning_can_be_stopped_while_it_verifies_what_stays(tmp_path: Path) -> None:
    for step in (1, 2):
        saved(tmp_path, step)

    def stop(nbytes: int) -> None:
        assert nbytes > 0
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prune(tmp_path, KeepLast(1), progress=stop)
    assert names(tmp_path) == ["run_1.pth", "run_2.pth"]


def test_a_failure_says_how_many_were_deleted_before(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        saved(tmp_path, step)
    fault = Fault(lambda: StorageDeniedError("no"), "delete", "run_2.pth")
    store = FaultyStore(open_store(tmp_path), [fault])

    with pytest.raises(StorageDeniedError) as raised:
        prune(store, KeepLast(1))
    assert raised.value.__notes__ == ["1 of 2 were deleted before."]


def test_a_full_store_can_be_pruned(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        saved(tmp_path, step)
    store = FaultyStore(open_store(tmp_path), [Fault(lambda: StorageFullError("full"), "put")])

    prune(store, KeepLast(1))
    assert names(tmp_path) == ["run_3.pth"]
    assert len(list(tmp_path.glob("run_*"))) == 2


def test_a_sweep_can_be_dry(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    (tmp_path / "run_1.pth.manifest.json").rename(tmp_path / "run_1.pth.manifest.next.json")
    saved(tmp_path, 2)
    (tmp_path / "run_2.pth.manifest.next.json").write_bytes(
        (tmp_path / "run_2.pth.manifest.json").read_bytes()
    )
    before = sorted(tmp_path.iterdir())
    leftovers = ["run_1.pth", "run_1.pth.manifest.next.json", "run_2.pth.manifest.next.json"]

    assert sweep(tmp_path, older_than_s=-60, dry_run=True) == leftovers
    assert sorted(tmp_path.iterdir()) == before
    assert sweep(tmp_path, older_than_s=-60) == leftovers
    assert names(tmp_path) == ["run_2.pth"]
    assert len(list(tmp_path.glob("run_*"))) == 2
