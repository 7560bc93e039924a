"""Stores that are wrong from the start, or fail in the middle of a run: told in time, and nothing is lost."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from asynchooks.checkpoint import list_checkpoints, read_pointer, restore
from asynchooks.checkpoint._owner import OWNER_FILE
from asynchooks.errors import (
    BackgroundHookError,
    CheckpointNotFoundError,
    StorageDeniedError,
    StorageError,
    StorageFullError,
    StorageUnavailableError,
)
from asynchooks.execution import Effects, Hook
from asynchooks.runner import Runner
from asynchooks.testing import S3Server, ThrottledLink

from .trainer import make_runner, state_bytes

SIZE = 150
STATE_BYTES = state_bytes(SIZE)  # 270 kB
ITERS = 8


def make(tmp_path: Path, out_dir: str | Path, *hooks: Hook, **changes: Any) -> Runner:
    """A run that saves every second iteration and keeps two."""
    options = changes.pop("options", {})
    changes.setdefault("val_dataloader", None)
    checkpoint = {"save_best": None, **changes.pop("checkpoint", {})}
    return make_runner(
        str(tmp_path / "run"),
        str(out_dir),
        options,
        ITERS,
        *hooks,
        size=SIZE,
        checkpoint=checkpoint,
        **changes,
    )


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    """No thread of an executor outlives its run, however that ended."""
    before = set(threading.enumerate())
    yield
    assert not [t for t in set(threading.enumerate()) - before if t.name == "asynchooks-portal"]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk with room for three checkpoints, not for four; skips where this process may not mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    size = f"size={STATE_BYTES * 22 // 5}"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip(f"no permission to mount a tmpfs: {done.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


class At(Hook):
    """Does something on the training thread, right after the checkpoint hook, at an iteration."""

    effects = Effects()
    priority = "LOWEST"

    def __init__(self, iteration: int, action: Callable[[Any], object]) -> None:
        self.iteration = iteration
        self.action = action

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if runner.iter + 1 == self.iteration:
            self.action(runner)


def failure_of(runner: Runner) -> BackgroundHookError:
    """Train; return the failure of a save that ends it."""
    with pytest.raises((BackgroundHookError, ExceptionGroup)) as caught:
        runner.train()
    error = caught.value
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, BackgroundHookError)
    return error


def loadable(url: str | Path, options: Mapping[str, str] = {}) -> list[int]:
    """Restore every committed checkpoint, and what the pointer names; return their steps."""
    folder = f"{url}/run"
    steps = [
        int(restore(info.url, storage_options=options)["meta"]["iter"])
        for info in list_checkpoints(folder, storage_options=options)
    ]
    pointed = read_pointer(folder, storage_options=options)
    assert pointed is not None
    assert restore(pointed, storage_options=options)["meta"]["iter"] == steps[-1]
    return steps


# ---- wrong from the start: an error before the first iteration ----


def check_refused(runner: Runner, error: type[Exception], words: str, *, within_s: float = 10) -> None:
    weights = {name: tensor.clone() for name, tensor in runner.model.state_dict().items()}
    started = time.monotonic()

    with pytest.raises(error, match=words):
        runner.train()

    assert time.monotonic() - started < within_s
    assert runner.iter == 0
    assert all(tensor.equal(weights[name]) for name, tensor in runner.model.state_dict().items())


@pytest.mark.s3
@pytest.mark.parametrize("resume", ["auto", False])
def test_a_missing_bucket_is_an_error_before_training(
    tmp_path: Path, s3_server: S3Server, resume: Any
) -> None:
    runner = make(tmp_path, "s3://no-such-bucket/x", options=s3_server.storage_options, resume=resume)

    check_refused(runner, CheckpointNotFoundError, r"s3://no-such-bucket/x/run.*NoSuchBucket.*must exist")


@pytest.mark.s3
@pytest.mark.parametrize("resume", ["auto", False])
def test_a_forbidden_bucket_is_an_error_before_training(
    tmp_path: Path, s3_server: S3Server, resume: Any
) -> None:
    options = {**s3_server.storage_options, "secret": "not-the-secret-at-all"}
    runner = make(tmp_path, s3_server.make_bucket("forbidden"), options=options, resume=resume)

    check_refused(runner, StorageDeniedError, r"s3://forbidden/run.*1 attempt.*credentials")


@pytest.mark.parametrize("resume", ["auto", False])
def test_an_unreachable_store_is_an_error_before_training(tmp_path: Path, resume: Any) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, not listening: refuses
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
        options = {"key": "key", "secret": "a-secret-value", "endpoint_url": endpoint}

        check_refused(
            make(tmp_path, "s3://bucket/x", options=options, resume=resume),
            StorageUnavailableError,
            r"s3://bucket/x/run.*attempts\).*reachable",
            within_s=30,
        )


def test_a_read_only_folder_is_an_error_before_training(tmp_path: Path, disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)

    check_refused(make(tmp_path, disk), StorageDeniedError, r"disk/run.*Read-only file system.*permissions")


def test_a_read_only_work_dir_is_an_error_before_training(tmp_path: Path, disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)

    check_refused(make(disk, disk), StorageDeniedError, r"work_dir=.*disk/run.*Read-only")


def test_a_full_disk_is_an_error_before_training(tmp_path: Path, disk: Path) -> None:
    fill(disk)

    check_refused(make(tmp_path, disk), StorageFullError, r"No space left.*Free space")


# ---- failing in the middle ----


def fill(disk: Path, leave_bytes: int = 0) -> None:
    """Fill a disk up to some bytes."""
    free_bytes = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    (disk / "ballast").write_bytes(bytes(free_bytes - leave_bytes))


def test_a_disk_that_fills_up_stops_the_run_and_names_the_save(tmp_path: Path, disk: Path) -> None:
    error = failure_of(make(tmp_path, disk, checkpoint={"max_keep_ckpts": 5}))

    assert (error.hook, error.point, error.iter) == ("CheckpointHook", "after_train_iter", 7)
    assert isinstance(error.__cause__, StorageFullError)
    assert "step 8: could not write" in str(error)
    assert "No space left" in str(error)
    assert loadable(disk) == [2, 4, 6]
    assert [path.name for path in (disk / "run").glob(".*")] == [OWNER_FILE]


def test_a_disk_that_is_full_for_a_while_costs_only_the_saves_of_that_time(
    tmp_path: Path, disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    seen: dict[int, list[int]] = {}

    def wait(runner: Any) -> None:
        runner.executor.drain()
        seen[runner.iter + 1] = loadable(disk)

    def fill_up(runner: Any) -> None:
        wait(runner)
        fill(disk, leave_bytes=STATE_BYTES // 2)

    def make_room(runner: Any) -> None:
        wait(runner)
        (disk / "ballast").unlink()

    hooks = [At(3, fill_up), At(4, wait), At(5, make_room), At(6, wait)]
    checkpoint = {"on_error": "warn", "max_keep_ckpts": 1}
    runner = make(tmp_path, disk, *hooks, checkpoint=checkpoint)
    with caplog.at_level(logging.WARNING):
        runner.train()

    assert seen == {3: [2], 4: [2], 5: [2], 6: [6]}, "nothing is pruned for a save that failed"
    assert loadable(disk) == [8]
    assert runner.iter == ITERS
    assert "CheckpointHook.after_train_iter failed" in caplog.text
    assert "step 4: could not write" in caplog.text
    assert "Training goes on (on_error='warn')" in caplog.text


def test_a_folder_that_becomes_read_only_stops_the_run(tmp_path: Path, disk: Path) -> None:
    def forbid(runner: Any) -> None:
        runner.executor.drain()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)

    error = failure_of(make(tmp_path, disk, At(5, forbid)))

    assert (error.hook, error.point, error.iter) == ("CheckpointHook", "after_train_iter", 5)
    assert isinstance(error.__cause__, StorageDeniedError)
    assert "step 6: could not" in str(error)
    assert loadable(disk) == [2, 4]


class Link(ExitStack):
    """A way to the server that is cut in the middle of a save."""

    def __init__(self, server: S3Server) -> None:
        super().__init__()
        address = urlsplit(server.endpoint_url)
        assert address.hostname is not None
        assert address.port is not None
        link = ThrottledLink(
            address.hostname, address.port, bytes_per_s=STATE_BYTES / 0.3, direction="upload"
        )
        self.enter_context(link)
        self.options = {**server.storage_options, "endpoint_url": f"http://{link.host}:{link.port}"}

    def cut(self, runner: Any) -> None:
        assert runner.executor.statistics().in_flight
        self.close()


@pytest.mark.s3
@pytest.mark.slow
@pytest.mark.parametrize("on_error", ["raise", "warn"])
def test_a_store_that_is_cut_off_leaves_the_checkpoint_before(
    tmp_path: Path, s3_server: S3Server, on_error: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"{s3_server.make_bucket('cut-off')}/{uuid.uuid4().hex}"
    with Link(s3_server) as link:
        checkpoint = {"on_error": on_error, "max_keep_ckpts": 1, "interval": 3, "save_last": False}
        hooks = [At(5, lambda runner: runner.executor.drain()), At(6, link.cut)]
        runner = make(tmp_path, url, *hooks, options=link.options, checkpoint=checkpoint)
        if on_error == "warn":
            runner.train()
            told = caplog.text
        else:
            error = failure_of(runner)
            assert (error.hook, error.point, error.iter) == ("CheckpointHook", "after_train_iter", 5)
            assert isinstance(error.__cause__, StorageError)
            told = str(error)

    assert "step 6: could not" in told
    assert loadable(url, s3_server.storage_options) == [3]
    assert runner.iter == ITERS if on_error == "warn" else 6 <= runner.iter <= ITERS
