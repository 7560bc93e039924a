"""SIGKILL at every single step of a save, of a pruning and of a replacement: a committed checkpoint always loads."""

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from asynchooks.checkpoint import (
    Checkpointer,
    capture,
    find_latest,
    list_checkpoints,
    open_store,
    restore,
    sweep,
)
from asynchooks.testing import S3Server

SAVER = Path(__file__).with_name("killed_saver.py")
RUN_ID = "run"


@contextmanager
def saver(url: str, options: dict[str, str]) -> Iterator["subprocess.Popen[str]"]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(SAVER), url, json.dumps(options), RUN_ID]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def kill_at(process: "subprocess.Popen[str]", step: int) -> bool:
    """Whether the saver was killed; False when it had finished before that step."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{step}\n")
    process.stdin.flush()
    code = int(process.stdout.readline())
    assert code in (0, -signal.SIGKILL)
    return code != 0


def assert_all_is_well(url: str, options: dict[str, str]) -> None:
    assert list_checkpoints(url, storage_options=options)
    for info in list_checkpoints(url, storage_options=options):
        loaded = restore(info.url, storage_options=options)
        assert loaded["meta"]["iter"] == info.step
        assert torch.all(loaded["state_dict"]["w"] == float(info.step))


def kill_everywhere(url: str, options: dict[str, str], *, every: int = 1) -> None:
    state = {"state_dict": {"w": torch.zeros(10)}, "meta": {"iter": 0}}
    first = Checkpointer(url, storage_options=options, run_id=RUN_ID)
    with saver(url, options) as process:
        killed = True
        step = 0
        while killed:
            first.save_sync(capture(state), name="iter_0.pth", step=0, pointer="last")
            killed = kill_at(process, step)
            assert find_latest(url, storage_options=options) is not None
            sweep(url, older_than_s=-5, storage_options=options)
            assert_all_is_well(url, options)
            names = set(open_store(url, options).entries())
            assert not [name for name in names if ".next." in name or name.endswith(".tmp")]
            step += every
        assert step > 20
    assert names == {"iter_1.pth", "iter_1.pth.manifest.json", "last_checkpoint"}


@pytest.mark.crash
def test_killed_at_every_step_on_a_local_disk(tmp_path: Path) -> None:
    kill_everywhere(str(tmp_path / "run"), {})


@pytest.mark.crash
@pytest.mark.s3
def test_killed_at_every_step_on_s3(s3_server: S3Server) -> None:
    kill_everywhere(
        f"{s3_server.make_bucket('killed')}/{uuid.uuid4().hex}", dict(s3_server.storage_options), every=2
    )
