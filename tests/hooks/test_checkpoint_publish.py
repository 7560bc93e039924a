"""What is published after training: chosen keys, under a name that says what is inside."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from asynchooks.checkpoint import find_latest, list_checkpoints, open_store
from asynchooks.hooks import CheckpointHook
from asynchooks.testing import S3Server

Names = Callable[[Path], list[str]]


def test_the_last_and_the_best_are_published_with_the_hash_of_their_bytes(
    train: Any, names: Names, tmp_path: Path
) -> None:
    hook = CheckpointHook(interval=2, save_best="acc", published_keys=["meta", "state_dict"])
    train(hook, epochs=2, metrics=[{"acc": 0.1}], work_dir=tmp_path)

    published = [name for name in names(tmp_path) if "-" in name]
    assert [name.partition("-")[0] for name in published] == ["best_acc_epoch_1", "epoch_2"]
    for name in published:
        content = (tmp_path / name).read_bytes()
        assert hashlib.sha256(content).hexdigest().startswith(name.partition("-")[2].removesuffix(".pth"))
        assert set(torch.load(tmp_path / name, weights_only=True)) == {"meta", "state_dict"}


def test_what_is_published_is_nothing_to_resume_from(train: Any, tmp_path: Path) -> None:
    train(CheckpointHook(interval=2, published_keys="state_dict"), epochs=2, work_dir=tmp_path)

    latest = find_latest(tmp_path)
    assert latest is not None
    assert latest.name == "epoch_2.pth"
    assert len(list_checkpoints(tmp_path)) == 1


def test_the_published_form_of_a_superseded_best_is_removed(train: Any, names: Names, tmp_path: Path) -> None:
    for scores in ([0.1], [0.1, 0.9]):
        hook = CheckpointHook(save_best="acc", save_last=False, published_keys=["state_dict"])
        train(hook, epochs=len(scores), metrics=[{"acc": s} for s in scores], work_dir=tmp_path)

    published = [name for name in names(tmp_path) if "-" in name]
    assert [name.partition("-")[0] for name in published] == ["best_acc_epoch_2"]


def test_missing_keys_are_said_and_the_others_published(
    train: Any, names: Names, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(CheckpointHook(published_keys=["state_dict", "ema"]), epochs=1, work_dir=tmp_path)

    assert "without ema" in caplog.text
    assert any("-" in name for name in names(tmp_path))


def test_without_anything_saved_nothing_is_published(train: Any, names: Names, tmp_path: Path) -> None:
    hook = CheckpointHook(save_best="acc", save_last=False, published_keys=["state_dict"])
    train(hook, epochs=1, metrics=[{"acc": None}], work_dir=tmp_path)

    assert names(tmp_path) == []


@pytest.mark.s3
def test_a_bucket_takes_published_files(train: Any, s3_server: S3Server) -> None:
    bucket = s3_server.make_bucket("published")
    options = dict(s3_server.storage_options)
    hook = CheckpointHook(interval=1, out_dir=bucket, backend_args=options, published_keys="state_dict")
    train(hook, epochs=1)

    files = open_store(f"{bucket}/run", options).entries()
    assert sum("-" in name for name in files) == 1
