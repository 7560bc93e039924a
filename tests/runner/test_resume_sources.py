"""Where a resumed run finds its checkpoint, what it refuses, and what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from asynchooks.checkpoint import Checkpointer
from asynchooks.errors import (
    CheckpointNotFoundError,
    ConfigError,
    CorruptCheckpointError,
    ForeignCheckpointError,
)
from asynchooks.hooks import CheckpointHook

from .conftest import MakeRunner
from .resuming import (
    SCHEDULES,
    assert_equal,
)


@pytest.mark.parametrize("resume", [True, "auto"])
def test_resume_finds_the_newest_checkpoint_where_the_hook_saves(
    make_runner: MakeRunner, tmp_path: Path, resume: Any
) -> None:
    def hook() -> CheckpointHook:
        return CheckpointHook(interval=1, out_dir=str(tmp_path / "elsewhere"))

    make_runner(custom_hooks=[hook()]).train()

    resumed = make_runner(custom_hooks=[hook()], resume=resume, train_cfg={"max_epochs": 3})
    resumed.train()

    assert (resumed.epoch, resumed.iter) == (3, 15)
    assert len(resumed.message_hub.get_scalar("train/loss")) == 15


def test_resume_says_that_there_is_none_and_starts_anew(
    make_runner: MakeRunner, caplog: pytest.LogCaptureFixture
) -> None:
    runner = make_runner(resume="auto")

    runner.train()

    assert runner.epoch == 2
    assert "no checkpoint to resume" in caplog.text


def test_resume_falls_back_past_a_truncated_checkpoint(
    make_runner: MakeRunner, caplog: pytest.LogCaptureFixture
) -> None:
    make_runner(custom_hooks=[CheckpointHook(interval=1)]).train()
    runner = make_runner(custom_hooks=[CheckpointHook(interval=1)], resume="auto")
    newest = Path(runner.work_dir) / "epoch_2.pth"
    newest.write_bytes(newest.read_bytes()[:-100])

    runner.train()

    assert runner.epoch == 2
    assert "resumed from" in caplog.text
    assert "epoch_1.pth" in caplog.text


def test_a_named_checkpoint_that_is_truncated_is_an_error(make_runner: MakeRunner) -> None:
    make_runner(custom_hooks=[CheckpointHook(interval=1)]).train()
    runner = make_runner()
    newest = Path(runner.work_dir) / "epoch_2.pth"
    newest.write_bytes(newest.read_bytes()[:-100])

    with pytest.raises(CorruptCheckpointError, match=r"epoch_2\.pth"):
        make_runner(resume=str(newest)).train()


def test_a_missing_checkpoint_is_an_error(make_runner: MakeRunner, tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match=r"nothing\.pth"):
        make_runner(resume=str(tmp_path / "nothing.pth")).train()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"weights": torch.zeros(1)}, "no checkpoint of a training run"),
        ({"state_dict": {"a": torch.zeros(1)}, "meta": {}}, "does not fit Net"),
        ([1, 2], "not a dict"),
    ],
)
def test_a_foreign_file_is_an_error(
    make_runner: MakeRunner, tmp_path: Path, content: Any, words: str
) -> None:
    torch.save(content, tmp_path / "foreign.pth")

    with pytest.raises(ForeignCheckpointError, match=words):
        make_runner(resume=str(tmp_path / "foreign.pth")).train()


def test_weights_alone_cannot_be_resumed_but_loaded(make_runner: MakeRunner, tmp_path: Path) -> None:
    runner = make_runner()
    torch.save({"state_dict": runner.model.state_dict(), "meta": {}}, tmp_path / "weights.pth")

    with pytest.raises(ForeignCheckpointError, match=r"no optimizer state.*load_from"):
        make_runner(resume=str(tmp_path / "weights.pth")).train()
    loaded = make_runner(load_from=tmp_path / "weights.pth")
    loaded.train()
    assert loaded.epoch == 2


def test_other_schedulers_than_saved_are_an_error(make_runner: MakeRunner) -> None:
    make_runner(custom_hooks=[CheckpointHook(interval=1)]).train()

    with pytest.raises(ForeignCheckpointError, match="0 parameter schedulers, this run has 1"):
        make_runner(resume="auto", param_scheduler=SCHEDULES[0]).train()


def test_another_kind_of_loop_than_saved_is_an_error(make_runner: MakeRunner) -> None:
    make_runner(custom_hooks=[CheckpointHook(interval=1)]).train()

    with pytest.raises(ConfigError, match="counts epochs; this one counts iterations"):
        make_runner(resume="auto", train_cfg={"by_epoch": False, "max_iters": 12}).train()


def test_a_checkpoint_with_counters_alone_resumes_and_says_what_is_lost(
    make_runner: MakeRunner, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runner = make_runner(custom_hooks=[CheckpointHook(interval=1)])
    runner.train()
    saved = torch.load(Path(runner.work_dir) / "epoch_1.pth", weights_only=True)
    del saved["resume"], saved["message_hub"]
    torch.save(saved, tmp_path / "mmengine.pth")

    resumed = make_runner(resume=str(tmp_path / "mmengine.pth"))
    resumed.train()

    assert (resumed.epoch, resumed.iter) == (2, 10)
    assert "counters only" in caplog.text


def test_a_checkpoint_is_loadable_without_running_code_and_has_mmengines_keys(
    make_runner: MakeRunner,
) -> None:
    runner = make_runner(custom_hooks=[CheckpointHook(interval=1)], param_scheduler=SCHEDULES[0])
    runner.train()

    saved = torch.load(Path(runner.work_dir) / "epoch_2.pth", weights_only=True)

    assert {"meta", "state_dict", "message_hub", "optimizer", "param_schedulers"} <= set(saved)
    assert (saved["meta"]["epoch"], saved["meta"]["iter"], saved["meta"]["seed"]) == (2, 10, 7)


def test_evaluating_takes_the_weights_of_the_checkpoint_and_leaves_the_resume_for_training(
    make_runner: MakeRunner,
) -> None:
    trained = make_runner(custom_hooks=[CheckpointHook(interval=1)])
    trained.train()
    runner = make_runner(resume="auto", train_cfg={"max_epochs": 3})

    metrics = runner.val()

    assert_equal(trained.model.state_dict(), runner.model.state_dict())
    assert set(metrics) == {"loss"}
    runner.train()
    assert runner.iter == 15


def test_save_checkpoint_blocks_and_can_be_resumed(make_runner: MakeRunner) -> None:
    runner = make_runner()
    runner.train()

    info = runner.save_checkpoint()

    resumed = make_runner(train_cfg={"max_epochs": 3})
    resumed.resume(info.url)
    assert (resumed.epoch, resumed.iter) == (2, 10)
    assert_equal(runner.model.state_dict(), resumed.model.state_dict())


def test_a_best_checkpoint_without_the_optimizer_is_no_reason_to_fail_at_every_start(
    make_runner: MakeRunner, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runner = make_runner(train_cfg={"max_epochs": 1})
    runner.train()
    snapshot = runner.capture(save_optimizer=False)
    assert snapshot is not None
    Checkpointer(tmp_path / "best").save_sync(snapshot, name="best_acc.pth", step=5, pointer="best")

    resumed = make_runner(work_dir=tmp_path / "best", resume="auto", train_cfg={"max_epochs": 1})
    resumed.train()

    assert "was saved as best, without the optimizer" in caplog.text
    assert resumed.epoch == 1


def test_any_other_checkpoint_without_the_optimizer_is_an_error(
    make_runner: MakeRunner, tmp_path: Path
) -> None:
    runner = make_runner(train_cfg={"max_epochs": 1})
    runner.train()
    snapshot = runner.capture(save_optimizer=False)
    assert snapshot is not None
    Checkpointer(tmp_path / "last").save_sync(snapshot, name="iter_5.pth", step=5, pointer="last")

    with pytest.raises(ForeignCheckpointError, match="holds no optimizer state"):
        make_runner(work_dir=tmp_path / "last", resume="auto", train_cfg={"max_epochs": 1}).train()
