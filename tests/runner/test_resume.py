"""A run that is interrupted anywhere and resumed continues bit-identically."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from asynchooks.execution import Effects, Hook
from asynchooks.hooks import CheckpointHook
from asynchooks.runner import Runner

from .conftest import MakeRunner, Net, Noisy, Recorder
from .resuming import (
    LOADERS,
    SCHEDULES,
    assert_equal,
    check_every_interruption,
    endless,
    outcome,
    shuffled,
)


@pytest.mark.parametrize("loader", LOADERS)
def test_epochs_resume_from_any_iteration(make_runner: MakeRunner, tmp_path: Path, loader: Any) -> None:
    check_every_interruption(
        make_runner, [1, 4, 5, 6, 9, 10], tmp_path, train_dataloader=loader, train_cfg={"max_epochs": 2}
    )


@pytest.mark.parametrize("loader", [*LOADERS, endless])
def test_iterations_resume_from_any_iteration(make_runner: MakeRunner, tmp_path: Path, loader: Any) -> None:
    train_cfg = {"by_epoch": False, "max_iters": 12, "val_interval": 4}

    check_every_interruption(
        make_runner, [1, 4, 5, 6, 10, 12], tmp_path, train_dataloader=loader, train_cfg=train_cfg
    )


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_resume(make_runner: MakeRunner, tmp_path: Path, schedule: Any) -> None:
    check_every_interruption(make_runner, [3, 5, 7], tmp_path, param_scheduler=schedule)


@pytest.mark.parametrize("optimizer", ["AdamW", "RMSprop", "NAdam"])
def test_optimizers_resume(make_runner: MakeRunner, tmp_path: Path, optimizer: str) -> None:
    wrapper = {"optimizer": {"type": optimizer, "lr": 0.01}, "clip_grad": {"max_norm": 0.1}}

    check_every_interruption(make_runner, [3, 5], tmp_path, optim_wrapper=wrapper)


def test_accumulated_gradients_resume(make_runner: MakeRunner, tmp_path: Path) -> None:
    wrapper = {"optimizer": {"type": "SGD", "lr": 0.1}, "accumulative_counts": 4}

    check_every_interruption(make_runner, [1, 3, 4, 6, 9], tmp_path, optim_wrapper=wrapper)


def test_sync_mode_resumes_and_ends_where_async_ends(make_runner: MakeRunner, tmp_path: Path) -> None:
    check_every_interruption(make_runner, [3, 5], tmp_path, mode="sync")
    synchronous, asynchronous = make_runner(mode="sync"), make_runner(mode="async")
    synchronous.train()
    expected = outcome(synchronous)
    asynchronous.train()

    assert_equal(expected, outcome(asynchronous))


class Crash(Hook):
    """Ends the process of training at an iteration, as far as the run can tell."""

    effects = Effects()

    def __init__(self, at: int) -> None:
        self.at = at

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if runner.iter == self.at:
            raise KeyboardInterrupt


@settings(max_examples=25, deadline=None)
@given(
    loader=st.sampled_from([*LOADERS, endless]),
    by_epoch=st.booleans(),
    accumulated=st.integers(1, 3),
    schedule=st.sampled_from([None, *SCHEDULES]),
    interval=st.integers(1, 4),
    crashes=st.lists(st.integers(1, 11), min_size=1, max_size=3),
    mode=st.sampled_from(["async", "sync"]),
)
def test_any_run_that_crashes_and_resumes_ends_like_one_that_does_not(
    tmp_path_factory: pytest.TempPathFactory,
    loader: Any,
    by_epoch: bool,
    accumulated: int,
    schedule: Any,
    interval: int,
    crashes: list[int],
    mode: str,
) -> None:
    if loader is endless:
        by_epoch = False
    limit = {"max_epochs": 2} if by_epoch else {"max_iters": 11, "val_interval": 3}

    def make(**changes: Any) -> Runner:
        torch.manual_seed(0)
        return Runner(
            model=Net(),
            train_dataloader=loader(),
            val_dataloader=DataLoader(Noisy(), batch_size=5),
            train_cfg={"by_epoch": by_epoch, **limit},
            optim_wrapper={"optimizer": {"type": "Adam"}, "accumulative_counts": accumulated},
            param_scheduler=schedule if schedule not in (SCHEDULES[1], SCHEDULES[4]) else None,
            default_hooks={"logger": None, "timer": None, "checkpoint": None},
            randomness={"seed": 5},
            **changes,
        )

    def saving() -> CheckpointHook:
        return CheckpointHook(interval=interval, by_epoch=False, max_keep_ckpts=2)

    through = make(work_dir=tmp_path_factory.mktemp("through"), custom_hooks=[saving()])
    through.train()
    expected = outcome(through)
    work_dir = tmp_path_factory.mktemp("crashing")
    for at in crashes:
        with contextlib.suppress(KeyboardInterrupt):
            make(work_dir=work_dir, custom_hooks=[saving(), Crash(at)], resume="auto", mode=mode).train()
    resumed = make(work_dir=work_dir, custom_hooks=[saving()], resume="auto", mode=mode)
    resumed.train()

    assert_equal(expected, outcome(resumed))


@pytest.mark.slow
def test_loader_workers_resume(make_runner: MakeRunner, tmp_path: Path) -> None:
    dataset = [(torch.full((4,), float(i)), i % 2) for i in range(20)]  # its samples draw nothing at random

    def loader() -> DataLoader[Any]:
        return DataLoader(dataset, 4, shuffle=True, num_workers=2, multiprocessing_context="forkserver")  # type: ignore[arg-type]

    check_every_interruption(make_runner, [7], tmp_path, train_dataloader=loader)


def test_what_is_skipped_is_not_loaded(make_runner: MakeRunner, tmp_path: Path) -> None:
    hooks = [CheckpointHook(interval=4, by_epoch=False, save_last=False)]
    make_runner(custom_hooks=hooks, train_cfg={"max_epochs": 1}).train()
    loader = shuffled()

    make_runner(train_dataloader=loader, train_cfg={"max_epochs": 1}, resume="auto").train()

    assert len(loader.dataset.loaded) == 4  # type: ignore[attr-defined]


def test_a_validation_that_was_due_runs_after_the_resume(make_runner: MakeRunner) -> None:
    make_runner(custom_hooks=[CheckpointHook(interval=1)]).train()
    recorder = Recorder()

    make_runner(custom_hooks=[recorder], resume="auto", train_cfg={"max_epochs": 2}).train()

    assert recorder.points.count("before_val") == 1
    assert "before_train_epoch" not in recorder.points


class SaveInValidation(Hook):
    """Saves in the middle of each validation, as a best checkpoint does."""

    effects = Effects(writes={"checkpoints"})

    def after_val_epoch(self, runner: Any, metrics: Any = None) -> None:
        runner.save_checkpoint()


@pytest.mark.parametrize(
    "train_cfg", [{"max_epochs": 2}, {"by_epoch": False, "max_iters": 10, "val_interval": 5}]
)
def test_a_checkpoint_taken_in_a_validation_resumes(
    make_runner: MakeRunner, train_cfg: dict[str, Any]
) -> None:
    through = make_runner(custom_hooks=[SaveInValidation()], train_cfg=train_cfg)
    through.train()
    first = "epoch_1.pth" if "max_epochs" in train_cfg else "iter_5.pth"

    resumed = make_runner(resume=f"{through.work_dir}/{first}", train_cfg=train_cfg)
    resumed.train()

    assert_equal(outcome(through), outcome(resumed))


def test_validation_does_not_change_what_training_draws(make_runner: MakeRunner) -> None:
    validating, silent = make_runner(), make_runner(val_dataloader=None)
    validating.train()
    silent.train()

    assert_equal(validating.model.state_dict(), silent.model.state_dict())


def test_a_checkpoint_of_a_validation_resumes_the_training_around_it(make_runner: MakeRunner) -> None:
    class Saver(Hook):
        effects = Effects()

        def after_val_epoch(self, runner: Any, metrics: Any = None) -> None:
            if runner.epoch == 1:
                runner.save_checkpoint(filename="best.pth")

    through = make_runner(custom_hooks=[Saver()])
    through.train()
    expected = outcome(through)

    resumed = make_runner(resume=f"{through.work_dir}/best.pth")
    resumed.train()

    assert_equal(expected, outcome(resumed))
