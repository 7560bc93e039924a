"""What MMCV's loggers do where: records on the training thread, everything else in the background."""

import json
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from asynchooks.execution import Effects, RunnerHook
from asynchooks.hooks.mmcv.loggers import TensorboardLoggerHook, TextLoggerHook
from asynchooks.hooks.mmcv.loggers._background import BackgroundLogger
from asynchooks.hooks.mmcv.loggers._record import Record, frozen

Run = Callable[..., Any]


class Threads(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        self.names.add(threading.current_thread().name)


class Waiting(BackgroundLogger):
    """Writes its first line when the second epoch has begun, and not before."""

    effects = Effects(writes={"logs.own"})

    def __init__(self) -> None:
        super().__init__(interval=4)
        self.second_epoch = threading.Event()
        self.written: list[tuple[bool, float]] = []

    def _write(self, record: Record) -> None:
        self.written.append((self.second_epoch.wait(timeout=30), record.read()["loss"]))


class TellsTheSecondEpoch(RunnerHook):
    effects = Effects()
    changes_state = False

    def __init__(self, event: threading.Event) -> None:
        self.event = event

    def before_train_iter(self, runner: Any) -> None:  # type: ignore[override]
        if runner.epoch == 1:
            self.event.set()


def test_training_goes_on_while_a_line_of_the_last_epoch_is_written(run: Run) -> None:
    logger = Waiting()
    run(logger, TellsTheSecondEpoch(logger.second_epoch), max_epochs=2)

    assert logger.written == [(True, 2.5), (True, 6.5)]


def test_lines_are_written_off_the_training_thread(run: Run) -> None:
    own, threads = logging.getLogger("tests.mmcv.threads"), Threads()
    own.setLevel(logging.INFO)
    own.addHandler(threads)
    run(TextLoggerHook(interval=2), logger=own)

    assert threads.names
    assert threading.current_thread().name not in threads.names


def test_a_record_is_a_copy_of_what_may_change() -> None:
    live = {"tensor": torch.ones(2), "array": torch.ones(2).numpy().copy(), "list": [torch.zeros(())]}
    copies, _ = frozen(live)
    live["tensor"].add_(1)  # type: ignore[attr-defined]
    live["array"] += 1  # type: ignore[operator]
    live["list"][0].add_(1)  # type: ignore[index]

    assert copies["tensor"].tolist() == [1, 1]
    assert copies["array"].tolist() == [1, 1]
    assert copies["list"][0].item() == 0


def test_every_rank_but_the_first_is_silent(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from asynchooks.runner import EpochBasedRunner

    monkeypatch.setattr(EpochBasedRunner, "rank", 1)
    run(TextLoggerHook(interval=2), TensorboardLoggerHook(interval=2))

    assert not list((tmp_path / "run").rglob("*.json"))
    assert not list((tmp_path / "run").rglob("*tfevents*"))


def test_the_log_is_the_same_in_both_modes(run: Run, tmp_path: Path) -> None:
    logs = []
    for mode in ("async", "sync"):
        work_dir = tmp_path / mode
        run(TextLoggerHook(interval=1), work_dir=work_dir, mode=mode, max_epochs=3)
        (path,) = work_dir.glob("*.log.json")
        logs.append([json.loads(line) for line in path.read_text().splitlines()])

    assert logs[0] == logs[1]
    assert len(logs[0]) == 13


def test_a_logger_that_fails_is_told_once_and_training_goes_on(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    class Fails(Waiting):
        def _write(self, record: Record) -> None:
            raise OSError("the disk is full")

    runner = run(Fails(), max_epochs=2)

    assert runner.epoch == 2
    assert "the disk is full" in caplog.text
