"""Training processes that are killed while a writer process writes for them, and writers that are killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import psutil
import pytest
import torch

from asynchooks.checkpoint import Checkpointer, Store, capture, find_latest, open_store, restore, sweep
from asynchooks.checkpoint._storage._process import ProcessStore

from .points import watched
from .program import ROOT, running

pytestmark = pytest.mark.crash

WITHIN_S = 20.0  # a second to notice, five to clean up; the rest is for a busy machine


@pytest.fixture(autouse=True)
def odd_file_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)
    fsspec.register_implementation("odd", "tests.checkpoint.odd_filesystem.OddFileSystem", clobber=True)


@contextmanager
def killed(
    tmp_path: Path, end_at: str, *, is_forking: bool = False, **options: Any
) -> Iterator[tuple[Store, psutil.Process]]:
    """The store after a program was killed in its second save, and the writer that it had."""
    folder = tmp_path / "run"
    order = {"url": f"odd://{folder}", "options": options, "end_at": end_at, "is_forking": is_forking}
    with running("writing", tmp_path / "errors") as program:
        answer = program.ask(order)
        writer = psutil.Process(answer["writer"])
        assert program.process.wait() == -signal.SIGKILL
    try:
        yield open_store(folder), writer
    finally:
        if answer["forked"]:
            os.kill(answer["forked"], signal.SIGKILL)


@pytest.mark.parametrize(
    ("point", "is_forking"), [("put data: progress", False), ("put data: before_visible", True)]
)
def test_a_writer_ends_with_the_killed_run_and_leaves_nothing(
    tmp_path: Path, point: str, is_forking: bool
) -> None:
    with killed(tmp_path, point, is_forking=is_forking) as (store, writer):
        writer.wait(WITHIN_S)

        data = [name for name in store.entries() if "manifest" not in name and "owner" not in name]
        assert data == ["iter_1.pth"]
        latest = find_latest(store)
        assert latest is not None
        assert latest.step == 1


def test_an_idle_writer_ends_with_the_killed_run(tmp_path: Path) -> None:
    with killed(tmp_path, "put data: done", is_forking=True) as (store, writer):
        writer.wait(WITHIN_S)

        assert "iter_2.pth" in store.entries()


def test_a_writer_that_hangs_ends_with_the_killed_run(tmp_path: Path) -> None:
    """What it leaves is a temporary file, which a sweep finds."""
    with killed(tmp_path, "put data: progress", at="write", what="hang") as (store, writer):
        writer.wait(WITHIN_S)
        left = [name for name in store.entries() if name.endswith(".tmp")]
        swept = sweep(store, older_than_s=-5)

        assert len(left) == 1
        assert left[0] in swept
        latest = find_latest(store)
        assert latest is not None
        assert latest.step == 1


@pytest.mark.parametrize("point", ["put data: progress 1", "put data: before_visible 1", "put data: done"])
def test_a_save_survives_the_kill_of_its_writer(tmp_path: Path, point: str) -> None:
    store = open_store(f"odd://{tmp_path / 'run'}")
    assert isinstance(store, ProcessStore)
    killed_at: list[str] = []

    def at(reached: str) -> None:
        if reached == point and not killed_at:
            killed_at.append(reached)
            assert store.writer_pid is not None
            os.kill(store.writer_pid, signal.SIGKILL)

    state = {"w": torch.arange(1_000_000.0)}
    for step in (1, 2):
        name = f"iter_{step}.pth"
        Checkpointer(watched(store, name, at), run_id="run").save_sync(capture(state), name=name, step=step)

    assert killed_at == [point]
    for step in (1, 2):
        assert torch.equal(restore(tmp_path / "run" / f"iter_{step}.pth")["w"], state["w"])
