"""What a Runner's log says, and where: one visualizer for its training, its validations and its tests."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)
from torch import nn

from asynchooks.errors import ConfigError
from asynchooks.hooks import LoggerHook
from asynchooks.runner import Runner
from asynchooks.visualization import LocalVisBackend, VisBackend, Visualizer

LOGGER: dict[str, Any] = {"type": "LoggerHook", "interval": 2}


class Net(nn.Module):
    """Its forward is its loss."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = self.layer(batch).square().mean()
        return loss


class Accuracy:
    """Always says the same, with something that is no number."""

    def process(self, data_batch: Any, data_samples: Any) -> None:
        pass

    def evaluate(self, size: int) -> dict[str, Any]:
        return {"acc": 0.5, "per_class": [0.25, 0.75]}


@pytest.fixture
def make_runner(tmp_path: Path) -> Callable[..., Runner]:
    """Make a runner of two epochs of four batches, with a validation and a test."""

    def make(**changes: Any) -> Runner:
        torch.manual_seed(0)
        batches = [torch.full((2, 4), float(index)) for index in range(4)]
        options: dict[str, Any] = {
            "model": Net(),
            "work_dir": tmp_path / "run",
            "train_dataloader": batches,
            "val_dataloader": batches[:2],
            "val_evaluator": Accuracy(),
            "test_dataloader": batches[:2],
            "test_evaluator": Accuracy(),
            "train_cfg": {"by_epoch": True, "max_epochs": 2},
            "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.1}},
            "default_hooks": {"checkpoint": None, "logger": LOGGER},
            "cfg": {"lr": 0.1, "model": Net()},
        }
        return Runner(**{**options, **changes})

    return make


def folder(runner: Runner) -> Path:
    assert runner.log_dir is not None
    return Path(runner.log_dir)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_train_then_val_then_test_reach_the_same_backends(make_runner: Callable[..., Runner]) -> None:
    backends = [{"type": "LocalVisBackend"}, {"type": "TensorboardVisBackend"}]
    runner = make_runner(visualizer={"vis_backends": backends})
    runner.train()
    runner.val()
    runner.test()

    written = lines(folder(runner) / "vis_data" / "scalars.json")
    assert [(line["mode"], line["step"]) for line in written] == [
        *[("train", 2), ("train", 4), ("val", 1), ("train", 6), ("train", 8), ("val", 2)],
        *[("val", 2), ("test", 8)],
    ]
    (path,) = (folder(runner) / "vis_data").glob("events.*")
    events = EventAccumulator(str(path)).Reload()
    assert [e.step for e in events.Scalars("train/loss")] == [2, 4, 6, 8]
    assert [e.value for e in events.Scalars("val/acc")] == [0.5, 0.5, 0.5]
    assert [e.value for e in events.Scalars("test/acc")] == [0.5]


def test_the_default_visualizer_writes_where_mmengine_does(make_runner: Callable[..., Runner]) -> None:
    runner = make_runner()
    runner.train()

    names = {path.relative_to(folder(runner)).as_posix() for path in folder(runner).rglob("*.*")}
    stem = runner.timestamp
    files = {f"{stem}.log", f"vis_data/{stem}.json", "vis_data/scalars.json", "vis_data/config.py"}
    assert names - {f"{stem}.py"} == files
    first = lines(folder(runner) / "vis_data" / f"{stem}.json")[0]
    assert {"lr", "loss", "time", "data_time", "epoch", "iter", "step"} <= first.keys()
    assert "'Net'" in (folder(runner) / "vis_data" / "config.py").read_text()


def test_sync_and_async_leave_the_same_files(make_runner: Callable[..., Runner], tmp_path: Path) -> None:
    written = []
    for mode in ("sync", "async"):
        hooks = {"checkpoint": None, "logger": LOGGER, "timer": None}
        runner = make_runner(mode=mode, default_hooks=hooks, work_dir=tmp_path / mode)
        runner.train()
        runner.test()
        written.append(lines(folder(runner) / "vis_data" / "scalars.json"))

    assert written[0] == written[1]
    assert len(written[0]) == 7


def test_the_results_of_each_test_are_added_to_a_file_of_their_own(
    make_runner: Callable[..., Runner],
) -> None:
    runner = make_runner()
    runner.test()
    path = folder(runner) / f"{runner.timestamp}.json"
    first = json.loads(path.read_text())
    runner.test()

    assert (first["acc"], first["per_class"]) == (0.5, [0.25, 0.75])
    assert [line["acc"] for line in lines(path)] == [0.5, 0.5]


def test_a_metric_is_filed_under_step_0_where_nothing_was_trained(make_runner: Callable[..., Runner]) -> None:
    runner = make_runner()
    runner.val()

    assert [line["step"] for line in lines(folder(runner) / "vis_data" / "scalars.json")] == [0]


def test_the_remote_folder_is_the_same_for_every_run_and_keeps_what_it_had(
    make_runner: Callable[..., Runner], tmp_path: Path
) -> None:
    logger = {**LOGGER, "out_dir": str(tmp_path / "out"), "keep_local": False}
    runner = make_runner(default_hooks={"checkpoint": None, "logger": logger})
    runner.train()
    runner.val()

    assert [path.name for path in (tmp_path / "out").iterdir()] == ["run"]
    remote = tmp_path / "out" / "run"
    assert {p.name for p in remote.iterdir() if p.is_dir()} == {"vis_data"}
    assert [line["mode"] for line in lines(remote / "vis_data" / "scalars.json")].count("val") == 3
    assert [path for path in folder(runner).rglob("*") if path.is_file()] == []


class Broken(VisBackend):
    """Refuses everything."""

    def add_scalars(self, scalars: Any, step: int = 0, file_path: Any = None) -> None:
        raise OSError("no connection")


def test_a_failing_backend_warns_and_keeps_no_other_from_its_record(
    make_runner: Callable[..., Runner], caplog: pytest.LogCaptureFixture
) -> None:
    runner = make_runner(visualizer={"vis_backends": [Broken(), {"type": "LocalVisBackend"}]})
    runner.train()

    assert len(lines(folder(runner) / "vis_data" / "scalars.json")) == 6
    assert len((folder(runner) / f"{runner.timestamp}.log").read_text().splitlines()) > 6
    assert "no connection" in caplog.text


class Closing(VisBackend):
    """Counts how often it is closed, and cannot be closed well."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = 0

    def close(self) -> None:
        self.closed += 1
        raise OSError("connection lost")


class Interrupted(Net):
    """Stops in the middle."""

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        raise KeyboardInterrupt


def test_whatever_ends_a_run_closes_its_visualizer_and_hides_nothing(
    make_runner: Callable[..., Runner], caplog: pytest.LogCaptureFixture
) -> None:
    backend = Closing()
    make_runner(visualizer={"vis_backends": [backend]}).train()
    assert backend.closed == 1

    with pytest.raises(KeyboardInterrupt):
        make_runner(visualizer={"vis_backends": [backend]}, model=Interrupted()).train()
    assert backend.closed == 2
    assert [record.message for record in caplog.records].count("the visualizer could not be closed") == 2


def test_what_the_sinks_name_and_the_visualizer_lacks_is_written_too(
    make_runner: Callable[..., Runner],
) -> None:
    logger = {**LOGGER, "sinks": ["tensorboard"]}
    runner = make_runner(default_hooks={"checkpoint": None, "logger": logger})
    runner.train()

    assert len(lines(folder(runner) / "vis_data" / "scalars.json")) == 6
    assert len(list((folder(runner) / "vis_data").glob("events.*"))) == 1
    assert not (folder(runner) / f"{runner.timestamp}.log").exists()


def test_a_visualizer_is_configured_as_mmdetection_does_or_given(
    make_runner: Callable[..., Runner], tmp_path: Path
) -> None:
    local = [{"type": "LocalVisBackend"}]
    named = make_runner(visualizer={"type": "mmdet.DetLocalVisualizer", "vis_backends": local, "name": "v"})
    given = Visualizer(vis_backends=[LocalVisBackend(tmp_path / "given")])

    assert named.visualizer.name == "v"
    assert named.visualizer.get_backend("LocalVisBackend").save_dir == str(folder(named) / "vis_data")
    assert make_runner(visualizer=given).visualizer is given
    with pytest.raises(ConfigError, match="visualizer is a Visualizer or dict"):
        make_runner(visualizer="Visualizer")


def test_a_configuration_s_visualizer_is_used(
    make_runner: Callable[..., Runner], caplog: pytest.LogCaptureFixture
) -> None:
    backends = [{"type": "LocalVisBackend"}]
    cfg = {"type": "DetLocalVisualizer", "vis_backends": [{"type": "TensorboardVisBackend"}], "name": "seen"}
    made = Runner.from_cfg(
        {"model": Net(), "work_dir": make_runner().work_dir, "vis_backends": backends, "visualizer": cfg}
    )

    assert list(made.visualizer.backends) == ["TensorboardVisBackend"]
    assert made.visualizer.name == "seen"
    assert "no effect" not in caplog.text


def test_a_run_on_a_remote_store_has_no_files_and_no_visualizer(make_runner: Callable[..., Runner]) -> None:
    runner = make_runner(work_dir="memory://somewhere/run")
    runner.train()

    assert runner.visualizer is None


def test_an_iteration_without_a_line_looks_at_nothing_of_the_run() -> None:
    hook = LoggerHook(interval=100, interval_exp_name=1000)

    class Run:
        train_dataloader = range(50_000)
        iter = 0

    hook._begin(Run(), 0)
    assert [hook.after_train_iter(object(), index) for index in range(1, 99)] == [None] * 98
