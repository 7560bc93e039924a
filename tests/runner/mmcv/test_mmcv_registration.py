"""How hooks come to MMCV's runners: priorities, configurations, defaults."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from asynchooks.errors import ConfigError, UnknownNameError, UnknownOptionError
from asynchooks.execution import Effects, RunnerHook
from asynchooks.hooks.mmcv import CheckpointHook, EvalHook, OptimizerHook
from asynchooks.registry import MMCV_HOOKS

from .conftest import MakeRun, Recorder, loader


class Noting(RunnerHook):
    """Remembers its arguments."""

    effects = Effects()

    def __init__(self, by_epoch: bool = True, interval: int = 1, **options: Any) -> None:
        self.arguments = {"by_epoch": by_epoch, "interval": interval, **options}

    def before_run(self, runner: Any) -> None:
        """Be listed."""


@pytest.fixture
def names() -> Iterator[tuple[str, ...]]:
    """Register hooks as MMCV's users name theirs."""
    kinds = ("TidyLrUpdaterHook", "TidyUpLrUpdaterHook", "TidyMomentumUpdaterHook", "TidyLogger")
    for kind in kinds:
        MMCV_HOOKS.register_module(kind, module=type(kind, (Noting,), {}))
    yield kinds
    for kind in kinds:
        del MMCV_HOOKS._entries[kind]


def listed(runner: Any) -> list[tuple[int, str]]:
    return [(r.priority, r.name) for r in runner.executor.registered]


def find(runner: Any, kind: str) -> Any:
    return next(hook for hook in runner.hooks if type(hook).__name__ == kind)


@pytest.mark.usefixtures("names")
def test_training_hooks_have_mmcvs_priorities(make_run: MakeRun) -> None:
    runner = make_run(trains=False)
    runner.register_training_hooks(
        lr_config={"policy": "tidy"},
        optimizer_config={"grad_clip": {"max_norm": 35, "norm_type": 2}},
        checkpoint_config={"interval": 5, "max_keep_ckpts": 5},
        log_config={
            "interval": 100,
            "hooks": [{"type": "TidyLogger"}, {"type": "TidyLogger", "interval": 7}],
        },
        momentum_config={"policy": "tidy"},
        custom_hooks_config=[Recorder(), {"type": "TidyLogger", "priority": "LOWEST"}],
    )

    assert listed(runner) == [
        (10, "TidyLrUpdaterHook"),
        (30, "TidyMomentumUpdaterHook"),
        (40, "OptimizerHook"),
        (50, "CheckpointHook"),
        (50, "Recorder"),
        (70, "IterTimerHook"),
        (90, "TidyLogger"),
        (90, "TidyLogger"),
        (100, "TidyLogger"),
    ]
    loggers = [hook.arguments["interval"] for hook in runner.hooks if type(hook).__name__ == "TidyLogger"]
    assert loggers == [100, 7, 1]


@pytest.mark.usefixtures("names")
@pytest.mark.parametrize(("limit", "by_epoch"), [({"max_epochs": 1}, True), ({"max_iters": 1}, False)])
def test_an_iteration_based_run_counts_iterations(make_run: MakeRun, limit: Any, by_epoch: Any) -> None:
    configs: dict[str, Any] = {
        "lr_config": {"policy": "tidy"},
        "checkpoint_config": {"interval": 1},
        "log_config": {"interval": 1, "hooks": [{"type": "TidyLogger"}]},
        "timer_config": None,
    }
    given = copy.deepcopy(configs)
    runner = make_run(trains=False, **limit)
    runner.register_training_hooks(**configs)

    counted = [find(runner, kind).arguments["by_epoch"] for kind in ("TidyLrUpdaterHook", "TidyLogger")]
    assert [*counted, find(runner, "CheckpointHook").by_epoch] == [by_epoch] * 3
    assert configs == given


@pytest.mark.usefixtures("names")
def test_a_policy_in_lower_case_gets_a_capital_alone(make_run: MakeRun) -> None:
    runner = make_run(trains=False)
    for policy in ("tidy", "Tidy", "TidyUp"):
        runner.register_lr_hook({"policy": policy})

    kinds = [name for _, name in listed(runner)]
    assert kinds == ["TidyLrUpdaterHook", "TidyLrUpdaterHook", "TidyUpLrUpdaterHook"]


@pytest.mark.parametrize(
    ("register", "config", "error", "match"),
    [
        ("register_lr_hook", {"step": [1]}, ConfigError, r"lr_config names its policy"),
        ("register_lr_hook", {"policy": "nothing"}, UnknownNameError, r"NothingLrUpdaterHook"),
        ("register_optimizer_hook", {"gradclip": None}, UnknownOptionError, r"Did you mean 'grad_clip'"),
        ("register_checkpoint_hook", {"intervall": 1}, UnknownOptionError, r"Did you mean 'interval'"),
        ("register_logger_hooks", [{"type": "TidyLogger"}], ConfigError, r"log_config is a dict such as"),
        ("register_hook_from_cfg", {"priority": 3}, ConfigError, r"'type' is missing"),
    ],
)
def test_a_wrong_config_is_refused_at_once(
    make_run: MakeRun, register: str, config: Any, error: Any, match: str
) -> None:
    with pytest.raises(error, match=match):
        getattr(make_run(), register)(config)


def test_hooks_may_be_objects_everywhere(make_run: MakeRun) -> None:
    runner = make_run(trains=False)
    runner.register_training_hooks(Noting(), OptimizerHook(), CheckpointHook(interval=1), timer_config=None)

    assert [priority for priority, _ in listed(runner)] == [10, 40, 50]


def test_a_priority_given_wins_over_the_classes(make_run: MakeRun) -> None:
    runner = make_run(trains=False)
    runner.register_hook(OptimizerHook())
    runner.register_hook(OptimizerHook(), priority=48)
    runner.register_hook({"type": "OptimizerHook", "priority": "LOW"})
    runner.register_hook(EvalHook(loader()), priority="LOW")

    assert [priority for priority, _ in listed(runner)] == [40, 48, 70, 70]


def test_a_name_means_mmcvs_hook_and_else_the_general_one(make_run: MakeRun) -> None:
    runner = make_run(trains=False)
    for kind in ("CheckpointHook", "asynchooks.CheckpointHook", "ProgressHook"):
        runner.register_hook({"type": kind})

    modules = {
        type(hook).__module__.removeprefix("asynchooks.hooks.").split("._")[0] for hook in runner.hooks
    }
    assert modules == {"mmcv.checkpoint", "checkpoint", "progress"}


def test_the_hooks_are_listed_by_point(make_run: MakeRun) -> None:
    info = make_run(Recorder()).get_hook_info()

    assert info.startswith("before_run:\n(NORMAL      ) Recorder")
    lines = info.split("after_train_iter:\n")[1].split("\n")
    assert [line.split(") ")[1].strip() for line in lines[:2]] == ["Step", "Recorder"]
