"""A run that is interrupted anywhere and resumed continues bit-identically."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, RandomSampler, WeightedRandomSampler

from asynchooks.checkpoint import Checkpointer
from asynchooks.errors import (
    CheckpointNotFoundError,
    ConfigError,
    CorruptCheckpointError,
    ForeignCheckpointError,
)
from asynchooks.execution import Effects, Hook
from asynchooks.hooks import CheckpointHook
from asynchooks.runner import Runner
from asynchooks.runner._random import rng_state

from .conftest import MakeRunner, Net, Noisy, Recorder


class Lines(Hook):
    """Collects the log lines."""

    effects = Effects()
    priority = "BELOW_NORMAL"

    def __init__(self) -> None:
        self.lines: dict[int, str] = {}

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        tag, line = runner.log_processor.get_log_after_iter(runner, batch_idx, "train")
        self.lines[runner.iter] = f"{tag} {line}"


def outcome(runner: Runner) -> dict[str, Any]:
    """Return everything of a finished run that must not depend on an interruption."""
    return {
        "weights": runner.model.state_dict(),
        "optimizer": runner.optim_wrapper.state_dict(),
        "schedulers": [s.state_dict() for s in runner.param_schedulers],
        "scalars": {k: h.state_dict() for k, h in runner.message_hub.log_scalars.items()},
        "rng": rng_state(),
        "metrics": runner.metrics,
        "counters": (runner.epoch, runner.iter),
    }


def assert_equal(one: Any, other: Any, path: str = "") -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), path
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key, value in one.items():
            assert_equal(value, other[key], f"{path}/{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), path
        for index, value in enumerate(one):
            assert_equal(value, other[index], f"{path}/{index}")
    else:
        assert one == other, path


def check_every_interruption(make: MakeRunner, steps: list[int], tmp_path: Path, **options: Any) -> None:
    """Train once through, with a checkpoint after each iteration; resume from each and compare the ends."""
    out_dir = str(tmp_path / "saved")
    lines = Lines()
    through = make(
        custom_hooks=[lines, CheckpointHook(interval=1, by_epoch=False, out_dir=out_dir)],
        **{name: value() if callable(value) else value for name, value in options.items()},
    )
    through.train()
    expected = outcome(through)
    for step in steps:
        again = Lines()
        torch.manual_seed(step + 100)  # another process has another random state
        resumed = make(
            custom_hooks=[again],
            resume=f"{out_dir}/run/iter_{step}.pth",
            **{name: value() if callable(value) else value for name, value in options.items()},
        )
        resumed.train()

        assert_equal(expected, outcome(resumed), f"from iteration {step}")
        assert again.lines == {i: line for i, line in lines.lines.items() if i >= step}


def shuffled() -> DataLoader[Any]:
    return DataLoader(Noisy(), batch_size=4, shuffle=True)


def with_generator() -> DataLoader[Any]:
    return DataLoader(Noisy(), batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(5))


def with_replacement() -> DataLoader[Any]:
    return DataLoader(Noisy(), batch_size=4, sampler=RandomSampler(Noisy(), replacement=True))


def weighted() -> DataLoader[Any]:
    return DataLoader(Noisy(), batch_size=4, sampler=WeightedRandomSampler([1.0, 2.0] * 10, 20))


def from_dict() -> dict[str, Any]:
    return {"dataset": Noisy(), "batch_size": 4, "sampler": {"type": "DefaultSampler", "shuffle": True}}


def endless() -> dict[str, Any]:
    return {"dataset": Noisy(), "batch_size": 4, "sampler": {"type": "InfiniteSampler"}}


def unbatched() -> DataLoader[Any]:
    batches = [(torch.full((4, 4), float(i)), torch.tensor([0, 1, 0, 1])) for i in range(5)]
    return DataLoader(batches, batch_size=None, shuffle=True)  # type: ignore[arg-type]


def plain_list() -> list[Any]:
    return [(torch.full((4, 4), float(i)), torch.tensor([0, 1, 0, 1])) for i in range(5)]


LOADERS = [shuffled, with_generator, with_replacement, weighted, from_dict, unbatched, plain_list]


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


SCHEDULES: list[Any] = [
    {"type": "MultiStepLR", "milestones": [1], "gamma": 0.5},
    {"type": "OneCycleLR", "max_lr": 0.3, "total_steps": 40, "by_epoch": False},
    {"type": "ReduceLROnPlateau", "monitor": "loss", "patience": 0, "factor": 0.5},
    [
        {"type": "LinearLR", "start_factor": 0.1, "by_epoch": False, "begin": 0, "end": 4},
        {"type": "CosineAnnealingLR", "T_max": 6, "by_epoch": False, "begin": 4, "end": 10},
    ],
    {"type": "CyclicLR", "base_lr": 0.01, "max_lr": 0.1, "step_size_up": 3, "by_epoch": False},
]


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
    Checkpointer(tmp_path / "last").save_sync(snapshot, name="iter_5.pth", step=5, pointer="last")

    with pytest.raises(ForeignCheckpointError, match="holds no optimizer state"):
        make_runner(work_dir=tmp_path / "last", resume="auto", train_cfg={"max_epochs": 1}).train()
