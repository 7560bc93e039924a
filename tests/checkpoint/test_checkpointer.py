"""The order of the stations, what each depends on, and what callers are told."""

import logging
import os
import threading
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest
import torch
from blockbuster import blockbuster_ctx

from asynchooks.checkpoint import (
    Checkpointer,
    KeepBest,
    KeepEvery,
    KeepLast,
    Snapshot,
    capture,
    list_checkpoints,
    open_store,
    read_pointer,
    restore,
    sweep,
)
from asynchooks.checkpoint._owner import OWNER_FILE
from asynchooks.errors import StorageFullError, StorageUnavailableError, UnsafePathError
from asynchooks.testing import Call, Fault, FaultyStore, RecordingInstrument


def snapshot(step: int = 1, rows: int = 8) -> Snapshot:
    return capture({"w": torch.full((rows,), float(step)), "step": step})


def names(folder: Path) -> list[str]:
    return [info.name for info in list_checkpoints(folder)]


def test_the_order_is_announce_persist_commit_point_prune(tmp_path: Path) -> None:
    store = FaultyStore(open_store(tmp_path))
    saves = Checkpointer(store)
    saves.save_sync(snapshot(1), name="a.pth", step=1, pointer="last")
    store.calls.clear()

    saves.save_sync(snapshot(2), name="b.pth", step=2, pointer="last", keep=KeepLast(1))

    assert [call for call in store.calls if call.operation in ("put", "delete")] == [
        Call("put", "b.pth"),
        Call("put", "b.pth.manifest.next.json"),
        Call("put", "b.pth.manifest.json"),
        Call("delete", "b.pth.manifest.next.json"),
        Call("put", "last_checkpoint"),
        Call("put", "a.pth.manifest.next.json"),
        Call("delete", "a.pth.manifest.json"),
        Call("delete", "a.pth"),
        Call("delete", "a.pth.manifest.next.json"),
    ]


def test_the_pointer_is_one_absolute_path(tmp_path: Path) -> None:
    saves = Checkpointer(os.path.relpath(tmp_path))

    saves.save_sync(snapshot(), name="epoch_5.pth", step=5, pointer="last")

    assert (tmp_path / "last_checkpoint").read_text() == str(tmp_path / "epoch_5.pth")


def test_pruning_spares_other_runs_other_groups_and_the_best(tmp_path: Path) -> None:
    Checkpointer(tmp_path).save_sync(snapshot(0), name="other_run.pth", step=0)
    saves = Checkpointer(tmp_path)
    saves.save_sync(snapshot(1), name="iter_1.pth", step=1, pointer="last")
    saves.save_sync(snapshot(1), name="best_acc_iter_1.pth", step=1, pointer="best")
    for step in (2, 3):
        saves.save_sync(snapshot(step), name=f"iter_{step}.pth", step=step, pointer="last", keep=KeepLast(1))

    assert names(tmp_path) == ["other_run.pth", "best_acc_iter_1.pth", "iter_3.pth"]


def test_what_the_best_pointer_names_is_never_pruned(tmp_path: Path) -> None:
    saves = Checkpointer(tmp_path)
    saves.save_sync(snapshot(1), name="iter_1.pth", step=1, pointer="best", group="all")
    for step in (2, 3):
        saves.save_sync(snapshot(step), name=f"iter_{step}.pth", step=step, group="all", keep=KeepLast(1))

    assert names(tmp_path) == ["iter_1.pth", "iter_3.pth"]


def test_a_resumed_run_prunes_what_it_saved_before(tmp_path: Path) -> None:
    first = Checkpointer(tmp_path)
    info = first.save_sync(snapshot(1), name="iter_1.pth", step=1)

    Checkpointer(tmp_path, run_id=info.run_id).save_sync(
        snapshot(2), name="iter_2.pth", step=2, keep=KeepLast(1)
    )

    assert names(tmp_path) == ["iter_2.pth"]


def test_policies_combine_over_a_run(tmp_path: Path) -> None:
    saves = Checkpointer(tmp_path)
    keep = KeepLast(1) | KeepEvery(steps=4) | KeepBest("acc", "greater")
    for step in range(1, 8):
        saves.save_sync(
            snapshot(step), name=f"iter_{step}.pth", step=step, metrics={"acc": float(step == 3)}, keep=keep
        )

    assert names(tmp_path) == ["iter_3.pth", "iter_4.pth", "iter_7.pth"]


def test_identical_tensors_of_different_steps_are_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    saves = Checkpointer(tmp_path)
    saves.save_sync(capture({"w": torch.ones(9), "iter": 1}), name="a.pth", step=1)
    saves.save_sync(capture({"w": torch.ones(9), "iter": 1}), name="again.pth", step=1)
    assert "identical" not in caplog.text

    saves.save_sync(capture({"w": torch.ones(9), "iter": 22222}), name="b.pth", step=2)

    assert "step 2: b.pth holds bit-identical tensors to again.pth of step 1" in caplog.text


def test_spans_and_bytes_are_recorded(tmp_path: Path) -> None:
    instrument = RecordingInstrument()

    Checkpointer(tmp_path, instrument=instrument).save_sync(
        snapshot(), name="a.pth", step=7, keep=KeepLast(1)
    )

    assert [span.kind for span in instrument.spans] == ["persist", "commit", "prune"]
    assert {span.step for span in instrument.spans} == {7}


def test_a_failing_pointer_says_that_the_checkpoint_is_committed(tmp_path: Path) -> None:
    store = FaultyStore(
        open_store(tmp_path), [Fault(lambda: StorageFullError("full"), "put", "last_checkpoint")]
    )

    with pytest.raises(StorageFullError, match="step 1") as raised:
        Checkpointer(store).save_sync(snapshot(), name="a.pth", step=1, pointer="last")

    assert "is committed" in raised.value.__notes__[0]
    assert names(tmp_path) == ["a.pth"]


@pytest.mark.parametrize(
    ("failing", "told"),
    [
        (Fault(lambda: StorageFullError("full"), "put", "a.pth.manifest.json"), []),
        (Fault(lambda: StorageFullError("full"), "delete", "a.pth.manifest.next.json"), ["a.pth"]),
        (Fault(lambda: StorageFullError("full"), "put", "last_checkpoint"), ["a.pth"]),
    ],
)
def test_the_caller_hears_of_the_commit_whatever_fails_after_it(
    tmp_path: Path, failing: Fault, told: list[str]
) -> None:
    store = FaultyStore(open_store(tmp_path), [failing])
    heard: list[str] = []

    with pytest.raises(StorageFullError):
        Checkpointer(store).save_sync(
            snapshot(), name="a.pth", step=1, pointer="last", on_commit=lambda: heard.append("a.pth")
        )

    assert heard == told == names(tmp_path)


def test_one_snapshot_may_be_saved_many_times(tmp_path: Path) -> None:
    saves, taken = Checkpointer(tmp_path), snapshot(3)

    infos = [saves.save_sync(taken, name=f"{name}.pth", step=3) for name in "ab"]

    assert all(restore(info.url)["step"] == 3 for info in infos)


def test_saves_at_the_same_time_take_turns(tmp_path: Path) -> None:
    async def save_all() -> None:
        saves = Checkpointer(tmp_path)
        async with anyio.create_task_group() as group:
            for step in range(4):
                save = partial(saves.save, snapshot(step), name="same.pth", step=step, pointer="last")
                group.start_soon(save)

    anyio.run(save_all)

    assert len(names(tmp_path)) == 1
    assert read_pointer(tmp_path) == str(tmp_path / "same.pth")


def test_a_save_cancelled_after_its_data_is_durable_is_committed(tmp_path: Path) -> None:
    class CancellingAtTheEnd(FaultyStore):
        __slots__ = ("scope",)
        scope: anyio.CancelScope

        def put(self, name: str, content: Any, **options: Any) -> None:
            self.inner.put(name, content, **options)
            if name == "a.pth":
                anyio.from_thread.run_sync(self.scope.cancel)

    async def save_and_cancel() -> None:
        store = CancellingAtTheEnd(open_store(tmp_path))
        with anyio.CancelScope() as store.scope:
            await Checkpointer(store).save(snapshot(), name="a.pth", step=1, pointer="last")

    anyio.run(save_and_cancel)

    assert names(tmp_path) == ["a.pth"]
    assert read_pointer(tmp_path) == str(tmp_path / "a.pth")


def test_a_wedged_store_becomes_an_error(tmp_path: Path) -> None:
    released = threading.Event()

    class Wedged(FaultyStore):
        def put(self, name: str, content: Any, **options: Any) -> None:
            if name == "a.pth":
                released.wait(30)
            self.inner.put(name, content)

    async def save() -> None:
        try:
            await Checkpointer(Wedged(open_store(tmp_path)), deadline_s=0.2).save(
                snapshot(), name="a.pth", step=4
            )
        finally:
            released.set()

    with pytest.raises(StorageUnavailableError, match=r"step 4.*no progress for 0\.2 s"):
        anyio.run(save)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"name": "../a.pth", "step": 1}, UnsafePathError, "no name inside"),
        ({"name": "a.pth", "step": 1, "pointer": "first"}, ValueError, "pointer is one of"),
        ({"name": "a.pth", "step": 1, "keep": 3}, TypeError, r"KeepLast\(3\)"),
        ({"name": "a.pth", "step": 1, "metrics": {"acc": "high"}}, ValueError, "high"),
    ],
)
def test_a_wrong_argument_fails_before_anything_is_written(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        Checkpointer(tmp_path).save_sync(snapshot(), **options)

    assert list(tmp_path.iterdir()) == []


def test_a_state_is_a_dict(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="a dict, not a list"):
        Checkpointer(tmp_path).save_sync(capture([1]), name="a.pth", step=1)


def test_sweep_leaves_alone_what_is_in_flight_and_what_it_cannot_prove(tmp_path: Path) -> None:
    Checkpointer(tmp_path).save_sync(snapshot(), name="a.pth", step=1)
    (tmp_path / "copy.pth").write_bytes((tmp_path / "a.pth").read_bytes())
    torch.save({}, tmp_path / "foreign.pth")
    (tmp_path / "notes.tmp").write_text("mine")
    leftover = tmp_path / f".asynchooks-{'0' * 32}.tmp"
    leftover.write_text("half")
    in_flight: list[list[str]] = []

    def look(_nbytes: int) -> None:
        in_flight.append(sweep(tmp_path, older_than_s=-5))

    assert sweep(tmp_path) == []  # too young
    open_store(tmp_path).put("b.pth", snapshot_content(), progress=look)

    assert in_flight == [[leftover.name]]
    assert {"copy.pth", "foreign.pth", "notes.tmp", "b.pth"} < {path.name for path in tmp_path.iterdir()}


def snapshot_content() -> Any:
    from asynchooks.checkpoint import Content

    return Content.of(b"x" * 100)


def test_many_saves_leave_no_thread_descriptor_or_file(tmp_path: Path) -> None:
    process = psutil.Process()
    saves = Checkpointer(tmp_path)
    saves.save_sync(snapshot(0), name="iter_0.pth", step=0)
    before = (process.num_fds(), threading.active_count())

    for step in range(1, 60):
        saves.save_sync(snapshot(step), name=f"iter_{step}.pth", step=step, pointer="last", keep=KeepLast(2))

    assert process.num_fds() <= before[0]
    assert threading.active_count() <= before[1] + 1  # the last worker thread may still be ending
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        OWNER_FILE,
        "iter_58.pth",
        "iter_58.pth.manifest.json",
        "iter_59.pth",
        "iter_59.pth.manifest.json",
        "last_checkpoint",
    ]


def test_every_line_of_the_log_says_the_step_first(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    saves = Checkpointer(tmp_path)
    with caplog.at_level(logging.INFO, "asynchooks.checkpoint"):
        for step in (1, 2):
            saves.save_sync(snapshot(step), name=f"iter_{step}.pth", step=step, keep=KeepLast(1))

    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "step 1",
        "step 2",
        "step 2",
    ]


def test_nothing_blocks_the_event_loop(tmp_path: Path) -> None:
    async def save() -> None:
        saves = Checkpointer(tmp_path)
        with blockbuster_ctx("asynchooks.checkpoint"):
            await saves.check()
            for step in (1, 2):
                await saves.save(
                    snapshot(step), name=f"iter_{step}.pth", step=step, pointer="last", keep=KeepLast(1)
                )

    anyio.run(save)

    assert names(tmp_path) == ["iter_2.pth"]
