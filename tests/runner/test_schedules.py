"""Schedules in a run: what they are told of its length, and what of them is saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from asynchooks.errors import ConfigError
from asynchooks.execution import Effects, Hook
from asynchooks.hooks import CheckpointHook

from .conftest import MakeRunner


class Rates(Hook):
    """Writes down the learning rate that each iteration runs with."""

    effects = Effects()

    def __init__(self) -> None:
        self.seen: list[float] = []

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        self.seen.append(round(runner.optim_wrapper.optimizer.param_groups[0]["lr"], 6))


def test_a_schedule_in_epochs_is_converted_to_the_loaders_iterations(make_runner: MakeRunner) -> None:
    rates = Rates()
    cfg = {"type": "LinearLR", "start_factor": 0.25, "end": 1, "convert_to_iter_based": True}
    runner = make_runner(custom_hooks=[rates], param_scheduler=cfg, train_cfg={"max_epochs": 2})
    (scheduler,) = runner.param_schedulers
    runner.train()

    assert (scheduler.end, scheduler.by_epoch) == (len(runner.train_dataloader), False)
    assert rates.seen[scheduler.end - 1] == rates.seen[-1] == pytest.approx(4 * rates.seen[0])
    assert sorted(set(rates.seen)) == rates.seen[: scheduler.end]


def test_a_schedule_ends_with_the_run(make_runner: MakeRunner) -> None:
    cosine = {"type": "CosineAnnealingLR"}
    by_iter = {"type": "PolyLR", "by_epoch": False}
    epochs = make_runner(param_scheduler=[cosine, by_iter], train_cfg={"max_epochs": 3})
    iterations = make_runner(param_scheduler=by_iter, train_cfg={"by_epoch": False, "max_iters": 7})

    ends = [s.end for s in [*epochs.param_schedulers, *iterations.param_schedulers]]
    assert ends == [3, 3 * len(epochs.train_dataloader), 7]


def test_a_loader_without_a_length_cannot_convert(make_runner: MakeRunner) -> None:
    batches: Any = iter([])
    cfg = {"type": "StepLR", "step_size": 1, "convert_to_iter_based": True}
    with pytest.raises(ConfigError, match="needs the length of train_dataloader"):
        make_runner(train_dataloader=batches, param_scheduler=cfg)


def test_a_plateaus_range_counts_epochs(make_runner: MakeRunner) -> None:
    cfg = {"type": "ReduceOnPlateauLR", "begin": 2, "patience": 0, "factor": 0.5, "threshold": 100.0}
    cfg["threshold_rule"] = "abs"
    runner = make_runner(param_scheduler=cfg, train_cfg={"max_epochs": 4})
    before = runner.optim_wrapper.optimizer.param_groups[0]["lr"]
    runner.train()

    assert runner.param_schedulers[0].last_step == 2
    # the first metric of the range is the best so far by far; the two after it are no improvement
    assert runner.optim_wrapper.optimizer.param_groups[0]["lr"] == pytest.approx(before / 4)


def test_schedulers_of_several_optimizers_are_saved_and_resumed(
    make_runner: MakeRunner, tmp_path: Path
) -> None:
    step = {"type": "StepLR", "step_size": 1, "gamma": 0.5}
    hook = CheckpointHook(interval=1)
    runner = make_runner(custom_hooks=[hook], param_scheduler=step, train_cfg={"max_epochs": 2})
    runner.param_schedulers = {"all": runner.param_schedulers}
    runner.train()
    saved = torch.load(tmp_path / "run" / "epoch_1.pth", weights_only=True)
    resumed = make_runner(
        custom_hooks=[hook],
        param_scheduler=step,
        train_cfg={"max_epochs": 2},
        resume=str(tmp_path / "run" / "epoch_1.pth"),
    )
    resumed.param_schedulers = {"all": resumed.param_schedulers}
    resumed.train()

    assert saved["param_schedulers"]["all"][0]["global_step"] == 2
    assert resumed.param_schedulers["all"][0].state_dict() == runner.param_schedulers["all"][0].state_dict()
