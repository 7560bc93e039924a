"""What a save that was given up still does when its store lets it go: nothing that makes a checkpoint."""

import threading
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
import torch

from asynchooks.checkpoint import (
    Checkpointer,
    KeepLast,
    Planning,
    capture,
    capture_shards,
    list_checkpoints,
    open_store,
    plan_shards,
    sweep,
)
from asynchooks.checkpoint._owner import OWNER_FILE
from asynchooks.errors import StorageUnavailableError
from asynchooks.testing import FaultyStore


def _save_given_up(folder: Path, wedge: str) -> None:
    """A save whose write of the data hangs past the deadline, and goes on after it was given up."""
    released, done = threading.Event(), threading.Event()

    class Late(FaultyStore):
        def put(self, name: str, content: Any, **options: Any) -> None:
            if name != "a.pth":
                if wedge == name:
                    released.wait(30)
                self.inner.put(name, content, **options)
                return

            def before_visible() -> None:
                if wedge == "before announcing":
                    released.wait(30)
                options["before_visible"]()
                if wedge == "after announcing":
                    released.wait(30)

            try:
                self.inner.put(name, content, before_visible=before_visible)
            finally:
                done.set()

    async def save() -> None:
        try:
            await Checkpointer(Late(open_store(folder)), deadline_s=0.2).save(
                capture({"w": torch.ones(4)}), name="a.pth", step=4
            )
        finally:
            released.set()

    with pytest.raises(StorageUnavailableError):
        anyio.run(save)
    assert done.wait(30)


def test_data_of_a_save_that_was_given_up_does_not_appear(tmp_path: Path) -> None:
    _save_given_up(tmp_path, "before announcing")

    assert [path.name for path in tmp_path.iterdir()] == [OWNER_FILE]


def test_data_does_not_appear_when_its_save_was_given_up_while_it_was_announced(tmp_path: Path) -> None:
    _save_given_up(tmp_path, "a.pth.manifest.next.json")

    assert not (tmp_path / "a.pth").exists()
    assert sweep(tmp_path, older_than_s=-60) == ["a.pth.manifest.next.json"]


def test_data_that_appears_after_its_save_was_given_up_is_a_leftover_for_sweep(tmp_path: Path) -> None:
    _save_given_up(tmp_path, "after announcing")

    assert (tmp_path / "a.pth").exists()
    assert list_checkpoints(tmp_path) == []
    assert sweep(tmp_path, older_than_s=-60) == ["a.pth", "a.pth.manifest.next.json"]
    assert [path.name for path in tmp_path.iterdir()] == [OWNER_FILE]


@pytest.mark.parametrize("layout", ["single", "sharded"])
@pytest.mark.parametrize(
    ("wedged", "answer_is_late", "listed"),
    [
        ("iter_2.manifest.json", False, [1, 3]),
        ("iter_2.manifest.json", True, [1, 2, 3]),
        ("last_checkpoint", False, [1, 2, 3]),
    ],
    ids=["manifest", "answer", "pointer"],
)
def test_a_save_that_was_given_up_commits_points_prunes_and_tells_nothing_later(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    layout: str,
    wedged: str,
    answer_is_late: bool,
    listed: list[int],
) -> None:
    released = threading.Event()
    left = list[threading.Thread]()
    heard = list[int]()

    class Late(FaultyStore):
        def put(self, name: str, content: Any, **options: Any) -> None:
            if answer_is_late:
                self.inner.put(name, content, **options)
            if name == wedged:
                left.append(threading.current_thread())
                released.wait(30)
            if not answer_is_late:
                self.inner.put(name, content, **options)

    async def save(saves: Checkpointer, step: int, keep: KeepLast | None = None) -> None:
        state = {"w": torch.ones(4) * step}
        taken = capture(state) if layout == "single" else capture_shards(plan_shards(state, Planning()))
        await saves.save(
            taken,
            name=f"iter_{step}",
            step=step,
            pointer="last",
            keep=keep,
            on_commit=partial(heard.append, step),
        )

    async def save_all() -> None:
        saves = Checkpointer(tmp_path, run_id="run")
        await save(saves, 1)
        late = Checkpointer(Late(open_store(tmp_path)), run_id="run", deadline_s=0.3)
        with pytest.raises(StorageUnavailableError, match="step 2"):
            await save(late, 2, KeepLast(1))
        await save(saves, 3)
        caplog.clear()
        released.set()

    caplog.set_level("INFO")
    anyio.run(save_all)
    left[0].join(30)

    assert [info.step for info in list_checkpoints(tmp_path)] == listed
    assert (tmp_path / "last_checkpoint").read_text() == str(tmp_path / "iter_3")
    assert caplog.messages == []
    assert heard == ([1, 2, 3] if wedged == "last_checkpoint" else [1, 3])
