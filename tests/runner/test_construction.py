from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils.data import DataLoader, TensorDataset

from asynchooks.errors import (
    ConfigError,
    HookDefinitionError,
    StorageError,
    UnknownNameError,
    UnknownOptionError,
)
from asynchooks.execution import Effects, Hook, HookExecutor
from asynchooks.hooks import CheckpointHook, IterTimerHook, LoggerHook
from asynchooks.registry import DATASETS, HOOKS, MODELS, Registry
from asynchooks.runner import Runner

from .conftest import MakeRunner, Net, Noisy


class Named(Hook):
    effects = Effects()
    priority = "ABOVE_NORMAL"

    def before_train(self, runner: Any) -> None:
        """Nothing to do: only its place in the order matters."""


DEFAULTS = [
    *["RuntimeInfoHook", "IterTimerHook", "DistSamplerSeedHook"],
    *["LoggerHook", "ParamSchedulerHook", "CheckpointHook"],
]


def names(runner: Runner) -> list[str]:
    return [type(hook).__name__ for hook in runner.hooks]


def test_the_six_default_hooks_stand_in_their_order(make_runner: MakeRunner) -> None:
    assert names(make_runner(default_hooks=None)) == DEFAULTS


def test_default_hooks_are_removed_changed_and_extended_by_name(make_runner: MakeRunner) -> None:
    runner = make_runner(
        default_hooks={
            "timer": None,
            "logger": {"type": "LoggerHook", "interval": 20},
            "checkpoint": {"interval": 5},
            "visualization": Named(),
        }
    )

    logger = next(hook for hook in runner.hooks if isinstance(hook, LoggerHook))
    checkpoint = next(hook for hook in runner.hooks if isinstance(hook, CheckpointHook))
    assert "IterTimerHook" not in names(runner)
    assert (logger.interval, checkpoint.interval) == (20, 5)
    assert names(runner)[1] == "Named"


def test_priorities_come_from_the_argument_then_the_dict_then_the_class(make_runner: MakeRunner) -> None:
    HOOKS.register_module("PlacedHook", module=Named, force=True)
    runner = make_runner(default_hooks=None)
    runner.register_hook({"type": "PlacedHook", "priority": "LOWEST"}, priority=48)
    runner.register_hook({"type": "PlacedHook", "priority": "LOWEST"})
    runner.register_hook({"type": "PlacedHook"})
    runner.register_hook(Named(), priority="VERY_HIGH")

    placed = [r.priority for r in runner.executor.registered if r.name == "Named"]
    assert placed == [10, 40, 48, 100]


def test_configs_are_not_changed(make_runner: MakeRunner) -> None:
    hook = {"type": "IterTimerHook", "priority": "LOW"}
    wrapper = {"type": "OptimWrapper", "optimizer": {"type": "SGD", "lr": 0.1}, "clip_grad": {"max_norm": 1}}
    schedule = {"type": "StepLR", "step_size": 1, "by_epoch": True, "begin": 1}
    train_cfg = {"by_epoch": True, "max_epochs": 1}
    before = [dict(hook), dict(wrapper), dict(schedule), dict(train_cfg)]

    make_runner(
        custom_hooks=[hook], optim_wrapper=wrapper, param_scheduler=schedule, train_cfg=train_cfg
    ).train()

    assert [hook, wrapper, schedule, train_cfg] == before


def test_hooks_info_lists_points_priorities_and_names(make_runner: MakeRunner) -> None:
    runner = make_runner(default_hooks=None)
    runner.register_hook(Named(), priority=48)

    info = runner.get_hooks_info()

    assert "before_train:\n(VERY_HIGH   ) RuntimeInfoHook\n(48          ) Named\n" in info
    assert "after_run:" in info


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"trian_cfg": {}}, UnknownOptionError, "Runner takes no argument 'trian_cfg'.*'train_cfg'"),
    ({"scheduler": {}}, UnknownOptionError, "called param_scheduler"),
    ({"optimizer": {}}, UnknownOptionError, r"optim_wrapper=dict\(optimizer"),
    ({"custom_hooks": {"type": "EmptyCacheHook"}}, ConfigError, r"custom_hooks=\[dict"),
    ({"custom_hooks": [{"type": "IterTimeHook"}]}, UnknownNameError, "Did you mean 'IterTimerHook'"),
    ({"custom_hooks": [{"type": "SyncBufferHook"}]}, UnknownNameError, "'SyncBuffersHook'"),
    ({"custom_hooks": [{"type": "CheckpointHook", "internal": 5}]}, UnknownOptionError, "'interval'"),
    ({"default_hooks": {"logger": {"type": "LoggerHook", "internal": 5}}}, UnknownOptionError, "'interval'"),
    ({"custom_hooks": [object()]}, HookDefinitionError, "object"),
    ({"custom_hooks": [{"type": "IterTimerHook", "priority": "HIGEST"}]}, UnknownNameError, "HIGHEST"),
    ({"custom_hooks": [{"type": "IterTimerHook", "priority": 101}]}, ValueError, "100"),
    ({"default_hooks": {"timers": None}}, UnknownNameError, "Did you mean 'timer'"),
    ({"default_hooks": [IterTimerHook()]}, ConfigError, "default_hooks is a dict"),
    ({"optim_wrapper": {"type": "OptimizerWrapper", "optimizer": {}}}, UnknownNameError, "'OptimWrapper'"),
    ({"optim_wrapper": None}, ConfigError, "without optim_wrapper"),
    ({"train_cfg": None}, ConfigError, "without train_cfg"),
    ({"val_dataloader": None, "val_cfg": {}}, ConfigError, "without val_dataloader"),
    ({"train_cfg": {"by_epoch": True, "max_epoch": 3}}, UnknownOptionError, "Did you mean 'max_epochs'"),
    ({"train_cfg": {"max_epochs": 3, "val_intervall": 3}}, UnknownOptionError, "'val_interval'"),
    ({"train_cfg": {"by_epoch": True, "max_iters": 3}}, ConfigError, "goes with max_epochs"),
    ({"train_cfg": {"by_epoch": True}}, ConfigError, "needs max_epochs"),
    ({"train_cfg": {"type": "EpochBasedTrainLoop", "by_epoch": True}}, ConfigError, "not by both"),
    ({"train_cfg": {"type": "EpochTrainLoop", "max_epochs": 1}}, UnknownNameError, "EpochBasedTrainLoop"),
    ({"train_cfg": {"max_epochs": 0}}, ConfigError, "max_epochs is an int of at least 1, not 0"),
    ({"train_cfg": {"max_epochs": "3"}}, ConfigError, "not '3'"),
    ({"train_cfg": {"max_epochs": 3, "val_interval": 0}}, ConfigError, "val_interval"),
    ({"train_cfg": {"max_epochs": 3, "dynamic_intervals": [3]}}, ConfigError, "list of"),
    ({"resume": 3}, ConfigError, "resume is True, 'auto'"),
    ({"val_cfg": {"interval": 1}}, UnknownOptionError, "ValLoop takes no argument 'interval'"),
    ({"param_scheduler": {"type": "MultiStepLr", "milestones": [1]}}, UnknownNameError, "'MultiStepLR'"),
    ({"randomness": {"sed": 1}}, UnknownOptionError, "'seed'"),
    ({"randomness": {"seed": -1}}, ConfigError, "seed is an int"),
    ({"mode": "asynk"}, UnknownOptionError, "async"),
    ({"log_processor": {"window": 3}}, UnknownOptionError, "'window_size'"),
    ({"model": "net"}, ConfigError, "torch.nn.Module"),
    ({"model": {"type": "ResNett"}}, UnknownNameError, "ResNett"),
    ({"work_dir": 3}, ConfigError, "work_dir"),
    ({"val_evaluator": {"type": "Accurracy"}}, UnknownNameError, "Accurracy"),
    ({"val_evaluator": 3}, ConfigError, "An evaluator has"),
    ({"train_dataloader": {"batch_size": 4}}, ConfigError, "needs the key 'dataset'"),
    ({"train_dataloader": {"dataset": [1], "batchsize": 4}}, UnknownOptionError, "'batch_size'"),
    ({"train_dataloader": {"dataset": {"type": "Cocoo"}}}, UnknownNameError, "Cocoo"),
    ({"train_dataloader": 3}, ConfigError, "A dataloader is"),
]


@pytest.mark.parametrize(("changes", "error", "words"), WRONG)
def test_every_mistake_is_an_error_at_construction(
    changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    options: dict[str, Any] = {
        "model": Net(),
        "work_dir": "unused",
        "train_dataloader": [1],
        "val_dataloader": [1],
        "train_cfg": {"max_epochs": 1},
        "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.1}},
    }

    with pytest.raises(error, match=words):
        Runner(**{**options, **changes})


@pytest.mark.parametrize("mode", ["train", "val", "test"])
def test_what_was_not_configured_cannot_run(tmp_path: Path, mode: str) -> None:
    with pytest.raises(ConfigError, match=f"cannot {mode}"):
        getattr(Runner(model=Net(), work_dir=tmp_path), mode)()


def test_a_folder_that_cannot_be_made_is_an_error(make_runner: MakeRunner, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(StorageError, match="cannot be made"):
        make_runner(work_dir=tmp_path / "file" / "run").train()


def test_everything_from_dicts_and_names(tmp_path: Path) -> None:
    MODELS.register_module("TestNet", module=Net, force=True)
    DATASETS.register_module("TestData", module=Noisy, force=True)
    loader = {"dataset": {"type": "TestData", "size": 8}, "batch_size": 4}
    cfg = {
        "model": {"type": "TestNet"},
        "work_dir": str(tmp_path),
        "train_dataloader": {**loader, "sampler": {"type": "DefaultSampler"}},
        "val_dataloader": loader,
        "val_cfg": {},
        "train_cfg": {"by_epoch": True, "max_epochs": 2},
        "optim_wrapper": {"optimizer": {"type": "Adam"}},
        "param_scheduler": ({"type": "MultiStepLR", "milestones": [1]},),
        "default_hooks": {"logger": {"interval": 20}, "timer": None},
        "data_root": "a variable of the configuration itself",
    }

    runner = Runner.from_cfg(cfg)
    runner.train()

    assert (runner.epoch, runner.iter, runner.max_iters) == (2, 4, 4)
    assert runner.train_dataloader.sampler.epoch == 1
    with pytest.raises(UnknownOptionError, match="'train_dataloader'"):
        Runner.from_cfg({**cfg, "train_dataloder": {}})


def test_entries_of_a_config_that_do_nothing_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Runner.from_cfg({"model": Net(), "work_dir": tmp_path, "data_preprocessor": {}})

    assert "no effect here: data_preprocessor" in caplog.text


def test_a_default_scope_finds_what_another_project_registered(tmp_path: Path) -> None:
    child = Registry("hook", parent=HOOKS, scope="scoped_project")
    child.register_module("OnlyThereHook", module=Named)

    runner = Runner(
        model=Net(),
        work_dir=tmp_path,
        default_scope="scoped_project",
        custom_hooks=[{"type": "OnlyThereHook"}, {"type": "scoped_project.OnlyThereHook"}],
    )

    assert names(runner).count("Named") == 2


def test_usage_objects_everywhere(tmp_path: Path) -> None:
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    runner = Runner(
        model=net,
        work_dir=tmp_path,
        train_dataloader=DataLoader(Noisy(8), 4),
        train_cfg={"by_epoch": True, "max_epochs": 1},
        optim_wrapper=optimizer,
        param_scheduler=torch.optim.lr_scheduler.StepLR(optimizer, 1),
        default_hooks={"checkpoint": CheckpointHook(interval=1)},
        custom_hooks=[Named()],
    )

    assert runner.train() is net
    assert (tmp_path / "epoch_1.pth").exists()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)


def test_a_seed_makes_two_runs_equal_whatever_was_drawn_between(make_runner: MakeRunner) -> None:
    one, other = make_runner(), make_runner()
    one.train()
    torch.rand(5)
    other.train()

    for mine, theirs in zip(one.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_without_a_seed_nothing_is_seeded(tmp_path: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)

    Runner(model=nn.Linear(1, 1, device="meta"), work_dir=tmp_path)

    assert torch.equal(torch.rand(1), expected)


def test_the_executors_options_reach_it(tmp_path: Path) -> None:
    runner = Runner(model=Net(), work_dir=tmp_path, mode="sync", ordering="strict", grace_period=3.0)

    executor = runner.executor
    assert isinstance(executor, HookExecutor)
    assert (executor.mode, executor.ordering, executor.grace_period) == ("sync", "strict", 3.0)


def test_a_tensor_dataset_and_a_device_are_enough(tmp_path: Path) -> None:
    data = TensorDataset(torch.randn(8, 4), torch.zeros(8, dtype=torch.long))
    runner = Runner(
        model=Net(),
        device="cpu",
        work_dir=tmp_path,
        train_dataloader=DataLoader(data, 4),
        train_cfg={"max_iters": 3},
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.1}},
    )

    runner.train()

    assert not runner.by_epoch
    assert runner.iter == 3


def test_a_checkpoint_knows_the_classes_of_its_data(make_runner: MakeRunner) -> None:
    data = Noisy()
    data.metainfo = {"classes": ("no", "yes")}  # type: ignore[attr-defined]
    runner = make_runner(
        train_dataloader=DataLoader(data, batch_size=4), default_hooks={"checkpoint": {"interval": 2}}
    )
    runner.train()

    saved = torch.load(f"{runner.work_dir}/epoch_2.pth", weights_only=True)
    assert saved["meta"]["dataset_meta"] == {"classes": ("no", "yes")}


def test_a_rank_may_have_random_numbers_of_its_own(make_runner: MakeRunner) -> None:
    torch.distributed.init_process_group("fake", rank=1, world_size=2, store=FakeStore())
    try:
        runner = make_runner(randomness={"seed": 7, "diff_rank_seed": True})
        drawn = torch.rand(3)
    finally:
        torch.distributed.destroy_process_group()

    assert runner.seed == 7, "what is shuffled alike on all ranks takes it"
    assert torch.equal(drawn, torch.rand(3, generator=torch.Generator().manual_seed(8)))
