"""A real training on real data, from its configuration file: the same in both modes, and after an interruption."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_file_loader import (  # type: ignore[import-untyped]
    EventFileLoader,
)
from typer.testing import CliRunner

from asynchooks._cli._app import app

HERE = Path(__file__).parent
CONFIG = HERE / "digits.py"
MODES = ("sync", "async")
MOMENT = re.compile(r"\d{8}_\d{6}")
# What a clock says, and what names the place or the mode; nothing else may differ.
CLOCKED = {"time", "data_time", "train/time", "train/data_time", "val/time", "val/data_time", "eta"}
PLACED = {"cfg", "experiment_name", "last_ckpt", "best_ckpt", "run_id"}


@dataclass(frozen=True)
class Left:
    """What a run has left in its folder, without the moments at which it did."""

    folder: Path

    def names(self) -> list[str]:
        found = (p.relative_to(self.folder).as_posix() for p in self.folder.rglob("*") if p.is_file())
        return sorted(
            re.sub(r"tfevents\.[^/]*", "tfevents", MOMENT.sub("MOMENT", name))
            for name in found
            if not name.endswith(".owner.json")
        )

    def checkpoint(self, name: str) -> dict[str, Any]:
        loaded: dict[str, Any] = torch.load(self.folder / name, weights_only=True)
        return loaded

    def checkpoints(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("*.pth"))

    def numbers(self) -> list[dict[str, Any]]:
        lines = [
            line
            for path in sorted(self.folder.rglob("scalars.json"))
            for line in path.read_text().splitlines()
        ]
        return [{k: v for k, v in json.loads(line).items() if k not in CLOCKED} for line in lines]

    def accuracies(self) -> list[float]:
        return [line["accuracy"] for line in self.numbers() if "accuracy" in line]

    def text(self) -> list[str]:
        """Return the lines of the log, without what a clock says."""
        (log,) = self.folder.rglob("*.log")
        lines = (re.sub(r"(eta|time|data_time): \S+", r"\1", line) for line in log.read_text().splitlines())
        return [MOMENT.sub("MOMENT", line.partition(" - ")[2] or line[20:]) for line in lines]

    def events(self) -> list[tuple[str, int, float]]:
        (file,) = self.folder.rglob("events.out.tfevents.*")
        return [
            (value.tag, event.step, value.tensor.float_val[0])
            for event in EventFileLoader(str(file)).Load()
            for value in event.summary.value
            if value.tag not in CLOCKED and value.tensor.float_val
        ]

    def pointers(self) -> dict[str, str]:
        names = ("last_checkpoint", "best_checkpoint")
        return {name: Path((self.folder / name).read_text()).name for name in names}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "asynchooks", "train", str(CONFIG), *arguments]


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(HERE.parent.parent), str(HERE)])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def runs(made_once: Callable[[str, Callable[[Path], None]], Path]) -> dict[str, Left]:
    """The configuration, trained in both modes beside each other."""
    folder = made_once("digits", train)
    return {mode: Left(folder / mode / "run") for mode in MODES}


def train(folder: Path) -> None:
    processes: dict[str, subprocess.Popen[str]] = {}
    for mode in MODES:
        (folder / mode).mkdir()
        processes[mode] = subprocess.Popen(
            command("--work-dir", "run", "--mode", mode),
            cwd=folder / mode,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    said = {mode: process.communicate()[0] for mode, process in processes.items()}
    assert [process.returncode for process in processes.values()] == [0, 0], said


def same(first: Any, second: Any, where: str = "") -> None:
    """Compare two checkpoints, tensors bit by bit, save what a clock says and what names the place."""
    assert type(first) is type(second), where
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second), where
    elif isinstance(first, dict):
        assert list(first) == list(second), where
        for key in first:
            if key not in CLOCKED | PLACED:
                same(first[key], second[key], f"{where}/{key}")
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), where
        for index, (one, other) in enumerate(zip(first, second, strict=True)):
            same(one, other, f"{where}/{index}")
    else:
        assert first == second, where


def test_the_model_learns_to_read_and_the_training_stops_when_it_does_not_get_better(
    runs: dict[str, Left],
) -> None:
    accuracies = runs["async"].accuracies()

    assert max(accuracies) > 0.97
    assert 4 < len(accuracies) < 40
    assert max(accuracies[:-3]) >= max(accuracies[-3:]) - 0.001


def test_both_modes_leave_the_same_files(runs: dict[str, Left]) -> None:
    best = runs["async"].pointers()["best_checkpoint"]

    assert runs["async"].names() == runs["sync"].names()
    assert runs["async"].pointers() == runs["sync"].pointers()
    assert len(runs["async"].checkpoints()) == 3
    assert best.startswith("best_accuracy_epoch_")


def test_both_modes_save_the_same_tensors(runs: dict[str, Left]) -> None:
    for name in runs["sync"].checkpoints():
        synchronous, asynchronous = (runs[mode].checkpoint(name) for mode in ("sync", "async"))
        same(synchronous, asynchronous, name)
        averaged, live = asynchronous["state_dict"], asynchronous["ema_state_dict"]
        assert not torch.equal(averaged["head.2.weight"], live["module.head.2.weight"])


def test_both_modes_log_the_same_lines_in_the_same_order(runs: dict[str, Left]) -> None:
    synchronous, asynchronous = runs["sync"], runs["async"]

    assert asynchronous.numbers() == synchronous.numbers()
    assert asynchronous.events() == synchronous.events()
    assert len(synchronous.events()) > 100
    lines = [line for line in synchronous.text() if "Epoch(" in line]
    assert [line for line in asynchronous.text() if "Epoch(" in line] == lines
    assert len(lines) == len(synchronous.numbers())


def test_the_configuration_lies_beside_the_logs(runs: dict[str, Left]) -> None:
    (written,) = runs["async"].folder.glob("*/digits.py")
    names: dict[str, Any] = {}
    exec(written.read_text(), names)

    assert names["custom_hooks"][0]["ema_type"] == "ExpMomentumEMA"
    assert names["train_cfg"] == {"by_epoch": True, "max_epochs": 40}


def test_a_run_that_was_ended_goes_on_to_the_same_end(
    runs: dict[str, Left], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(HERE)
    for arguments in (["--cfg-options", "train_cfg.max_epochs=2"], ["--resume"]):
        result = CliRunner().invoke(app, ["train", str(CONFIG), "--work-dir", "run", *arguments])
        assert (result.exit_code, result.exception) == (0, None)
    resumed, whole = Left(tmp_path / "run"), runs["async"]
    accuracies = whole.accuracies()

    assert (
        resumed.accuracies() == accuracies[:2] + accuracies[1:]
    )  # epoch 2 was saved before it was validated
    assert resumed.pointers() == whole.pointers()
    for name in whole.checkpoints():
        for part in ("state_dict", "ema_state_dict", "optimizer", "param_schedulers"):
            same(whole.checkpoint(name).get(part), resumed.checkpoint(name).get(part), f"{name}: {part}")
