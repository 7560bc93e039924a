"""What MMCV's runners take, and what they say of what they do not."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from asynchooks.errors import ConfigError, UnknownNameError, UnknownOptionError
from asynchooks.hooks import LoggerHook
from asynchooks.registry import RUNNERS
from asynchooks.runner import EpochBasedRunner, IterBasedRunner, build_runner
from asynchooks.runner.mmcv import RUNNER_BUILDERS, LogBuffer

from .conftest import MakeRun, Net, Step, loader


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"model": 3}, TypeError, r"model is a torch.nn.Module"),
        ({"batch_processor": print}, ConfigError, r"train_step\(data, optimizer\)"),
        ({"optimizer": "SGD"}, TypeError, r"optimizer is a torch.optim.Optimizer"),
        ({"optimizer": {"a": 1}}, TypeError, r"optimizer\['a'\] is 1"),
        ({"optimizer": {"type": "SGDD", "lr": 1}}, UnknownNameError, r"Did you mean 'SGD'"),
        ({"logger": print}, TypeError, r"logger is a logging.Logger"),
        ({"meta": [1]}, TypeError, r"meta is a dict"),
        ({"work_dir": 3}, TypeError, r"work_dir is a folder"),
        ({"max_epochs": 1, "max_iters": 1}, ValueError, r"not both"),
        ({"max_epochs": 1.5}, ValueError, r"max_epochs is an int"),
        ({"max_epoch": 1}, UnknownOptionError, r"Did you mean 'max_epochs'"),
    ],
)
def test_a_wrong_argument_is_refused_at_construction(changes: Any, error: Any, match: str) -> None:
    with pytest.raises(error, match=match):
        EpochBasedRunner(**{"model": Net(), **changes})


@pytest.mark.parametrize(
    ("loaders", "workflow", "error", "match"),
    [
        (loader(), [("train", 1)], TypeError, r"list of data loaders"),
        ([loader()], "train", TypeError, r"list of pairs"),
        ([loader()], [("train", 1), ("val", 1)], ValueError, r"1 data loaders came for 2 phases"),
        ([loader()], [(1, 1)], TypeError, r"a mode is a string"),
        ([loader()], [("learn", 1)], ValueError, r"no method named 'learn'"),
        ([loader()], [("train", 1.5)], ValueError, r"an int of at least 0"),
        ([loader()], [("val", 1)], ValueError, r"trains nothing"),
    ],
)
def test_a_wrong_workflow_is_refused(
    make_run: MakeRun, loaders: Any, workflow: Any, error: Any, match: str
) -> None:
    with pytest.raises(error, match=match):
        make_run().run(loaders, workflow)


@pytest.mark.parametrize(
    ("kind", "limit"), [(EpochBasedRunner, "max_epochs"), (IterBasedRunner, "max_iters")]
)
def test_the_limit_may_come_with_run_and_is_needed(kind: Any, limit: str) -> None:
    runner = kind(model=Net(), optimizer={"type": "SGD", "lr": 0.1})
    runner.register_hook(Step())
    with pytest.raises(ConfigError, match=f"needs {limit}"):
        runner.run([loader()])

    runner.run([loader()], [("train", 1)], **{limit: 2})

    assert (runner.epoch if limit == "max_epochs" else runner.iter) == 2


def test_a_run_needs_no_folder_and_no_logger() -> None:
    runner = EpochBasedRunner(model=Net(), optimizer={"type": "SGD", "lr": 0.1}, max_epochs=1)
    runner.register_hook(Step())
    runner.run([loader()])

    assert {runner.work_dir, runner.log_dir, str(runner.meta)} == {None, "None"}
    assert (runner.rank, runner.world_size, runner.model_name) == (0, 1, "Net")
    assert isinstance(runner.logger, logging.Logger)


@pytest.mark.parametrize("outputs", ["tensor", "losses"])
def test_a_plain_module_returns_its_loss(make_run: MakeRun, outputs: str) -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 1)

        def forward(self, batch: Tensor) -> Any:
            loss = self.layer(batch).square().mean()
            return loss if outputs == "tensor" else {"loss_a": loss, "loss_b": 2 * loss}

    runner = make_run(model=Plain(), max_epochs=1)
    before = nn.utils.parameters_to_vector(runner.model.parameters()).detach().clone()
    runner.run([loader(), loader()], [("train", 1), ("val", 1)])

    assert not torch.equal(nn.utils.parameters_to_vector(runner.model.parameters()), before)
    logged = ["loss"] if outputs == "tensor" else ["loss", "loss_a", "loss_b"]
    assert sorted(runner.log_buffer.val_history) == logged
    assert runner.log_buffer.n_history["loss"] == [4, 4, 4, 4]


def test_a_step_returns_a_dict(make_run: MakeRun) -> None:
    runner = make_run()
    runner.model.train_step = lambda data, optimizer: 3  # type: ignore[assignment]

    with pytest.raises(TypeError, match=r"Net.train_step returns a dict"):
        runner.run([loader()])


def test_the_general_logger_writes_to_the_runs_visualizer(make_run: MakeRun, tmp_path: Path) -> None:
    backend = {"type": "LocalVisBackend", "save_dir": str(tmp_path / "shown")}
    runner = make_run(visualizer={"vis_backends": [backend]}, max_epochs=1)
    runner.register_hook(LoggerHook(interval=1))
    runner.run([loader()])

    shown = [path.read_text() for path in (tmp_path / "shown").rglob("*.json")]
    assert {text.count('"loss"') for text in shown} == {2}  # a line for each iteration


def test_options_of_run_reach_train_step(make_run: MakeRun) -> None:
    runner, seen = make_run(max_epochs=1), []
    step = runner.model.train_step

    def noting(data: Any, optimizer: Any, **options: Any) -> Any:
        seen.append((optimizer is runner.optimizer, options))
        return step(data, optimizer)  # type: ignore[operator]

    runner.model.train_step = noting  # type: ignore[assignment]
    runner.run([loader(4), loader(4)], [("train", 1), ("val", 1)], weight=2)

    assert seen == [(True, {"weight": 2})]


def test_rates_and_momentums_are_those_of_the_groups(make_run: MakeRun) -> None:
    net = Net()
    groups = [{"params": [p], "lr": 0.1 * i} for i, p in enumerate(net.parameters())]
    sgd = torch.optim.SGD(groups, lr=1.0, momentum=0.5)
    adam = torch.optim.Adam(net.parameters(), lr=0.2, betas=(0.7, 0.9))
    runner = make_run(model=net, optimizer={"sgd": sgd, "adam": adam})

    assert runner.current_lr() == {"sgd": pytest.approx([0.0, 0.1, 0.2, 0.3]), "adam": [0.2]}
    assert runner.current_momentum() == {"sgd": [0.5] * 4, "adam": [0.7]}
    runner.optimizer = None
    with pytest.raises(RuntimeError, match="no optimizer"):
        runner.current_lr()


def test_a_runner_is_built_from_a_dict(tmp_path: Path) -> None:
    options = {"model": Net(), "work_dir": str(tmp_path), "max_epochs": 1}
    runner = build_runner({"type": "EpochBasedRunner", "max_epochs": 7}, options)

    assert (type(runner), runner.max_epochs) == (EpochBasedRunner, 7)
    assert RUNNERS.get("IterBasedRunner") is IterBasedRunner
    with pytest.raises(UnknownOptionError, match="max_epoch"):
        build_runner({"type": "EpochBasedRunner", "max_epoch": 7}, options)


def test_a_constructor_of_ones_own_builds_the_runner() -> None:
    @RUNNER_BUILDERS.register_module()
    class Naming:
        def __init__(self, runner_cfg: Any, default_args: Any = None) -> None:
            self.arguments = {**default_args, **runner_cfg}

        def __call__(self) -> Any:
            runner = RUNNERS.build(self.arguments)
            runner.my_name = "mine"
            return runner

    runner = build_runner(
        {"type": "IterBasedRunner", "max_iters": 2, "constructor": "Naming"}, {"model": Net()}
    )

    assert runner.my_name == "mine"


def test_the_log_buffer_averages_the_newest_values_by_their_counts() -> None:
    buffer = LogBuffer()
    buffer.update({"loss": 10.0}, 1)
    buffer.update({"loss": torch.tensor(1.0), "acc": 3}, 3)
    buffer.update({"loss": 2.0}, 1)
    earlier = buffer.capture(2)
    buffer.average(2)

    assert (buffer.output, buffer.ready) == ({"loss": 1.25, "acc": 3.0}, True)
    buffer.average()
    assert buffer.output["loss"] == 3.0
    buffer.clear()
    assert (buffer.output, buffer.ready, buffer.val_history) == ({}, False, {})
    assert earlier.read()["loss"] == 1.25
    with pytest.raises(TypeError, match="takes a dict"):
        buffer.update([1])  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="'loss' takes a number"):
        buffer.update({"loss": torch.zeros(2)})
