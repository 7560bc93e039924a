"""MMCV's text log: its lines, its file, and the copy of it elsewhere."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from asynchooks.errors import ConfigError, UnknownOptionError
from asynchooks.execution import Effects, RunnerHook
from asynchooks.hooks.mmcv.loggers import TextLoggerHook
from asynchooks.hooks.mmcv.loggers._lines import Place, json_line, text_line

Run = Callable[..., Any]


class Adds(RunnerHook):
    """Puts values into the log buffer's output before the loggers come."""

    priority = "LOW"
    effects = Effects()

    def __init__(self, **values: Any) -> None:
        self.values = values

    def after_train_epoch(self, runner: Any) -> None:
        runner.log_buffer.output.update(self.values)
        runner.log_buffer.ready = True


@pytest.fixture
def logger(caplog: pytest.LogCaptureFixture) -> logging.Logger:
    caplog.set_level(logging.INFO)
    return logging.getLogger("tests.mmcv.text")


def entries(folder: Path) -> list[dict[str, Any]]:
    (path,) = folder.glob("*.log.json")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_lines_of_epochs(run: Run, logger: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    run(TextLoggerHook(interval=2), Adds(mAP=0.5, eval_iter_num=7), logger=logger, max_epochs=2)

    assert [r.message for r in caplog.records if r.name == logger.name][:5] == [
        "Epoch [1][2/4]\tlr: 5.000e-01, eta: 0:00:12, time: 2.000, data_time: 0.250, loss: 1.5000",
        "Exp name: exp.py",
        "Epoch [1][4/4]\tlr: 5.000e-01, eta: 0:00:08, time: 2.000, data_time: 0.250, loss: 3.5000",
        "Exp name: exp.py",
        "Epoch(val) [1][7]\tmAP: 0.5000",
    ]


def test_lines_of_iterations(run: Run, logger: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    run(TextLoggerHook(interval=3, by_epoch=False, interval_exp_name=6), logger=logger, max_iters=7)

    assert [r.message for r in caplog.records if r.name == logger.name] == [
        "Iter [3/7]\tlr: 5.000e-01, eta: 0:00:08, time: 2.000, data_time: 0.250, loss: 2.0000",
        "Exp name: exp.py",
        "Iter [6/7]\tlr: 5.000e-01, eta: 0:00:02, time: 2.000, data_time: 0.250, loss: 5.0000",
    ]


def test_the_file_has_the_notes_first_and_five_digits(run: Run, tmp_path: Path) -> None:
    run(TextLoggerHook(interval=4), Adds(mAP=torch.tensor(1 / 3), best="mAP", bad=float("nan")))

    assert entries(tmp_path / "run") == [
        {"exp_name": "exp.py"},
        {"mode": "train", "epoch": 1, "iter": 4, "lr": 0.5, "loss": 2.5, "time": 2.0, "data_time": 0.25},
        {"mode": "val", "epoch": 1, "iter": 4, "lr": 0.5, "mAP": 0.33333, "best": "mAP", "bad": "nan"},
    ]


def test_the_time_left_counts_iterations_without_a_line(
    run: Run, logger: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    run(TextLoggerHook(interval=3), logger=logger, batches=4, max_epochs=2)

    assert [r.message.split("eta: ")[1][:7] for r in caplog.records if "eta" in r.message] == [
        "0:00:10",
        "0:00:02",
    ]


def test_several_optimizers_have_their_rates_each() -> None:
    values = {"mode": "train", "epoch": 1, "iter": 2, "lr": {"g": 0.1, "d": 0.2}, "acc": 1, "memory": 7}

    assert text_line(values, Place(by_epoch=True, of=None)) == (
        "Epoch [1][2/?]\tlr_g: 1.000e-01 lr_d: 2.000e-01, memory: 7, acc: 1"
    )


def test_what_json_does_not_know_is_a_list_or_a_text() -> None:
    line = json.loads(
        json_line({"t": torch.tensor([1 / 3, 1.0]), "p": Path("a"), "n": {"x": [1 / 3, float("inf")]}})
    )

    assert line == {"t": [0.33333, 1.0], "p": "a", "n": {"x": [1 / 3, "inf"]}}


def test_the_log_files_are_copied_to_another_place(run: Run, tmp_path: Path) -> None:
    hook = TextLoggerHook(interval=4, out_dir=tmp_path / "out", keep_local=False)
    runner = run(hook)
    name = f"{runner.timestamp}.log.json"

    assert len((tmp_path / "out" / "run" / name).read_text().splitlines()) == 2
    assert not (tmp_path / "run" / name).exists()


def test_a_second_run_copies_to_the_same_place(run: Run, tmp_path: Path) -> None:
    runner = run(TextLoggerHook(interval=4, out_dir=tmp_path / "out"))
    runner._max_epochs = 2
    run(runner=runner)

    assert [path.name for path in (tmp_path / "out").iterdir()] == ["run"]


def test_a_run_without_a_folder_has_lines_alone(run: Run, tmp_path: Path) -> None:
    run(TextLoggerHook(interval=4), work_dir=None)

    assert not list(tmp_path.rglob("*.log.json"))


def test_where_a_run_is_resumed_its_line_of_time_starts_there(
    run: Run, logger: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    runner = run(TextLoggerHook(interval=4), logger=logger)
    caplog.clear()
    runner._max_epochs = 3
    run(runner=runner)

    assert "Epoch [2][4/4]\tlr: 5.000e-01, eta: 0:00:08, time: 2.000" in caplog.text


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"out_dir": 3}, TypeError),
        ({"out_suffix": 3}, TypeError),
        ({"keep_local": False}, ConfigError),
        ({"backend_args": {"anon": True}}, ConfigError),
        ({"out_dir": "s3://b/x", "backend_args": {"no_such_option": 1}}, UnknownOptionError),
    ],
)
def test_wrong_arguments_are_refused(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match="TextLoggerHook|no_such_option"):
        TextLoggerHook(**options)
