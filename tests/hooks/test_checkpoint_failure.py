"""What a failed, refused or dropped save leaves: the checkpoint before, and no false belief."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from asynchooks.checkpoint import list_checkpoints, verify
from asynchooks.errors import BackgroundHookError, StorageFullError
from asynchooks.execution import Effects, Hook, HookExecutor, background
from asynchooks.hooks import CheckpointHook
from asynchooks.runner import TrainState
from asynchooks.testing import Gate


class Shelf(MemoryFileSystem):  # type: ignore[misc] # fsspec is untyped
    """A store of its own that is full for some names, and can be held."""

    protocol = "shelf"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    full_for: ClassVar[set[str]] = set()
    held: ClassVar[set[str]] = set()
    gate = threading.Event()

    def pipe_file(self, path: str, value: Any, mode: str = "overwrite", **kwargs: Any) -> Any:
        self.refuse(path)
        return super().pipe_file(path, value, mode=mode, **kwargs)

    def _open(self, path: str, mode: str = "rb", *args: Any, **kwargs: Any) -> Any:
        if "r" not in mode:
            self.refuse(path)
        return super()._open(path, mode, *args, **kwargs)

    def mv(self, path1: str, path2: str, *args: Any, **kwargs: Any) -> Any:
        self.refuse(path2)
        return super().mv(path1, path2, *args, **kwargs)

    def refuse(self, path: str) -> None:
        if any(name in path for name in self.held):
            self.gate.wait(timeout=30)
        if any(name in path for name in self.full_for):
            raise OSError(28, "No space left on device")


@pytest.fixture
def shelf() -> Iterator[type[Shelf]]:
    fsspec.register_implementation("shelf", Shelf, clobber=True)
    Shelf.store.clear()
    Shelf.pseudo_dirs[:] = [""]
    Shelf.full_for.clear()
    Shelf.held.clear()
    Shelf.gate.clear()
    yield Shelf
    Shelf.store.clear()


def saved_on(url: str) -> list[str]:
    return [info.name for info in list_checkpoints(url)]


def test_a_failed_save_stops_the_run_and_leaves_the_checkpoint_before(train: Any, shelf: type[Shelf]) -> None:
    shelf.full_for.add("epoch_2")
    hook = CheckpointHook(interval=1, max_keep_ckpts=1, out_dir="shelf://disk")
    with pytest.raises((BackgroundHookError, ExceptionGroup)) as caught:
        train(hook, epochs=4)

    failure = caught.value.exceptions[0] if isinstance(caught.value, ExceptionGroup) else caught.value
    assert isinstance(failure, BackgroundHookError)
    assert (failure.hook, failure.point) == ("CheckpointHook", "after_train_epoch")
    assert isinstance(failure.__cause__, StorageFullError)
    assert saved_on("shelf://disk/run") == ["epoch_1.pth"]
    verify("shelf://disk/run/epoch_1.pth")


def test_a_failed_save_with_warn_goes_on_and_removes_nothing_that_is_needed(
    train: Any, shelf: type[Shelf]
) -> None:
    shelf.full_for.add("epoch_2")
    hook = CheckpointHook(interval=1, max_keep_ckpts=2, out_dir="shelf://disk", on_error="warn")
    state = train(hook, epochs=4)

    assert saved_on("shelf://disk/run") == ["epoch_3.pth", "epoch_4.pth"]
    assert state.message_hub.get_info("last_ckpt").endswith("/epoch_4.pth")


def test_a_best_that_could_not_be_saved_is_not_believed(train: Any, shelf: type[Shelf]) -> None:
    shelf.full_for.add("best_acc_epoch_2")
    hook = CheckpointHook(save_best="acc", save_last=False, out_dir="shelf://disk", on_error="warn")
    state = train(hook, metrics=[{"acc": value} for value in (0.1, 0.9, 0.2, 0.15)], mode="sync")

    assert saved_on("shelf://disk/run") == ["best_acc_epoch_3.pth"]
    assert state.message_hub.get_info("best_score") == 0.2


@pytest.mark.parametrize("full", ["/epoch_3", "best_checkpoint"])
def test_a_best_that_was_committed_is_believed_whatever_fails_after_it(
    train: Any, shelf: type[Shelf], full: str
) -> None:
    shelf.full_for.add(full)
    hook = CheckpointHook(
        interval=2, save_best="acc", save_last=False, out_dir="shelf://disk", on_error="warn"
    )
    state = train(hook, metrics=[{"acc": value} for value in (0.1, 0.2, 0.9, 0.5)], mode="sync")

    assert [name for name in saved_on("shelf://disk/run") if "best" in name][-1] == "best_acc_epoch_3.pth"
    assert state.message_hub.get_info("best_score") == 0.9
    assert state.message_hub.get_info("best_ckpt") == "shelf://disk/run/best_acc_epoch_3.pth"


def test_of_several_bests_those_are_believed_that_were_committed(train: Any, shelf: type[Shelf]) -> None:
    shelf.full_for.add("best_loss")
    hook = CheckpointHook(save_best=["acc", "loss"], save_last=False, out_dir="shelf://disk", on_error="warn")
    state = train(hook, epochs=2, metrics=[{"acc": 0.9, "loss": 1.0}, {"acc": 0.5, "loss": 2.0}], mode="sync")

    assert saved_on("shelf://disk/run") == ["best_acc_epoch_1.pth"]
    assert state.message_hub.get_info("best_score_acc") == 0.9
    assert state.message_hub.get_info("best_score_loss") == 2.0, "claimed by the last validation"


def test_the_old_best_stays_when_the_new_one_cannot_be_saved(train: Any, shelf: type[Shelf]) -> None:
    shelf.full_for.add("best_acc_epoch_2")
    hook = CheckpointHook(save_best="acc", save_last=False, out_dir="shelf://disk", on_error="warn")
    train(hook, epochs=2, metrics=[{"acc": 0.1}, {"acc": 0.9}])

    assert saved_on("shelf://disk/run") == ["best_acc_epoch_1.pth"]


def test_what_finds_no_room_is_dropped_and_nothing_names_it(
    make_state: Callable[..., TrainState], tmp_path: Path
) -> None:
    hook = CheckpointHook(interval=1, by_epoch=False, when_busy="skip")
    state = make_state(tmp_path)
    with HookExecutor([hook], staging_budget=1) as executor:
        for step in range(3):
            executor.fire("after_train_iter", state, batch_idx=step)
        rows = {row.point: row for row in executor.statistics().hooks}
    committed = saved_on(str(tmp_path))

    row = rows["after_train_iter"]
    assert row.skipped + row.parts == 3
    assert committed[0] == "iter_1.pth"
    assert Path(state.message_hub.get_info("last_ckpt")).name == committed[-1]


class Occupies(Hook):
    """Takes the only place in the background until the training thread waits for it, in a capture."""

    effects = Effects()
    fires = ("after_test",)

    def __init__(self) -> None:
        self.captured, self.waited = Gate(), Gate()
        self.executor: Any = None

    async def before_train(self, runner: Any) -> None:
        await self.captured.wait()
        self.executor.fire_nowait("after_test", runner)  # heard where the training thread waits
        await self.waited.wait()

    @background
    def before_save_checkpoint(self, runner: Any, checkpoint: Any) -> None:
        self.captured.open()

    @background
    def after_test(self, runner: Any) -> None:
        self.waited.open()


def test_a_checkpoint_that_was_asked_for_waits_for_room_where_others_are_skipped(
    make_state: Callable[..., TrainState], tmp_path: Path
) -> None:
    state = make_state(tmp_path)
    occupies = Occupies()
    hooks = [CheckpointHook(interval=100, when_busy="skip"), occupies]
    with HookExecutor(hooks, max_in_flight=1) as occupies.executor:
        executor = occupies.executor
        executor.fire("before_train", state)
        state.request_checkpoint()
        executor.fire("after_train_iter", state, batch_idx=0)

    assert saved_on(str(tmp_path)) == ["iter_1.pth"]


def test_a_best_that_found_no_room_is_not_believed(
    make_state: Callable[..., TrainState], shelf: type[Shelf]
) -> None:
    shelf.held.add("best_acc_epoch_1")
    state = make_state()
    hook = CheckpointHook(save_best="acc", save_last=False, out_dir="shelf://disk", when_busy="skip")
    with HookExecutor([hook], staging_budget=1) as executor:
        for score in (0.1, 0.9, 0.5):
            executor.fire("after_train_epoch", state)
            executor.fire("after_val_epoch", state, metrics={"acc": score})
            if score == 0.9:
                shelf.gate.set()
                executor.drain()

    assert saved_on("shelf://disk/run") == ["best_acc_epoch_3.pth"]
    assert state.message_hub.get_info("best_score") == 0.5


def test_a_folder_that_takes_no_files_is_an_error_before_training(train: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        train(CheckpointHook(interval=1, out_dir=str(tmp_path / "file")), epochs=1)
