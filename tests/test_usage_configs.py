"""Configuration files as users of MMEngine write them, with their known slips: each works, or says the right form."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from asynchooks.config import Config
from asynchooks.errors import AsyncHooksError, UnknownNameError
from asynchooks.hooks import CheckpointHook
from asynchooks.registry import DATASETS, HOOKS, MODELS, Registry
from asynchooks.runner import Runner

BASE = """
model = dict(type='UsageConfigNet')
train_dataloader = dict(batch_size=2, num_workers=0, dataset=dict(type='UsageConfigData'))
train_cfg = dict(by_epoch=True, max_epochs=1)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.001, momentum=0.9))
param_scheduler = dict(type='MultiStepLR', milestones=[2, 3])
default_hooks = dict(
    runtime_info=dict(type='RuntimeInfoHook'),
    timer=dict(type='IterTimerHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    logger=dict(type='LoggerHook', interval=20),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', interval=5),
)
work_dir = '{{ fileDirname }}/work_dirs'
"""
PACKAGE = """
from asynchooks import Effects, Hook
from asynchooks.registry import HOOKS as BASE, Registry

HOOKS = Registry('hook', parent=BASE, scope='usage_config_pkg')

@HOOKS.register_module()
class OwnHook(Hook):
    effects = Effects()
    priority = 'ABOVE_NORMAL'

    def __init__(self, interval=1):
        self.interval = interval
        self.heard = 0

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if self.every_n_train_iters(runner, self.interval):
            self.heard += 1
"""


class UsageConfigNet(nn.Linear):
    """A model whose forward returns its loss."""

    def __init__(self) -> None:
        super().__init__(4, 1)

    def forward(self, batch: Tensor) -> Tensor:
        return super().forward(batch).square().mean()


class UsageConfigData(list[Tensor]):
    """Four samples."""

    def __init__(self) -> None:
        super().__init__(torch.full((4,), float(index)) for index in range(4))


MODELS.register_module(module=UsageConfigNet, force=True)
DATASETS.register_module(module=UsageConfigData, force=True)

Make = Callable[[str], Runner]


@pytest.fixture
def run_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Return a function that builds the runner of a child configuration."""
    (tmp_path / "usage_config_pkg.py").write_text(PACKAGE)
    (tmp_path / "base.py").write_text(BASE)
    monkeypatch.syspath_prepend(tmp_path)

    def make(child: str) -> Runner:
        path = tmp_path / "child.py"
        path.write_text("_base_ = ['./base.py']\n" + textwrap.dedent(child))
        return Runner.from_cfg(Config.fromfile(path))

    yield make
    HOOKS.children.pop("usage_config_pkg", None)
    sys.modules.pop("usage_config_pkg", None)


def hook_of(runner: Runner, name: str) -> Any:
    return next(hook for hook in runner.hooks if type(hook).__name__ == name)


def test_a_child_changes_its_base_and_brings_hooks_of_its_package(run_of: Make) -> None:
    runner = run_of("""
        custom_imports = dict(imports=['usage_config_pkg'], allow_failed_imports=False)
        default_scope = 'usage_config_pkg'
        custom_hooks = [
            dict(type='OwnHook', priority='VERY_LOW'),
            dict(type='usage_config_pkg.OwnHook', interval=2, priority=48),
        ]
        optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=1e-3))
        default_hooks = dict(timer=None, checkpoint=dict(interval=1, max_keep_ckpts=2))
    """)
    runner.train()
    heard = sorted(hook.heard for hook in runner.hooks if type(hook).__name__ == "OwnHook")
    executor = runner.executor

    assert heard == [1, 2]
    assert type(runner.optimizer).__name__ == "AdamW"
    assert "IterTimerHook" not in {type(hook).__name__ for hook in runner.hooks}
    assert (hook_of(runner, "CheckpointHook").interval, hook_of(runner, "LoggerHook").interval) == (1, 20)
    assert [r.priority for r in executor.registered if r.name == "OwnHook"] == [48, 90]


def test_a_tuple_of_one_scheduler_is_accepted(run_of: Make) -> None:
    runner = run_of("param_scheduler = dict(_delete_=True, type='MultiStepLR', milestones=[1]),")

    assert len(runner.param_schedulers) == 1


@pytest.mark.parametrize(
    ("child", "right_form"),
    [
        (
            "default_hooks = dict(checkpoint=dict(type='CheckpointHook', internal=5))",
            "CheckpointHook.*'interval'",
        ),
        ("optim_wrapper = dict(type='OptimizerWrapper')", "'OptimWrapper'"),
        ("custom_hooks = [dict(type='SyncBufferHook')]", "'SyncBuffersHook'"),
        (
            "custom_hooks = dict(dict(type='ProgressHook'))",
            r"custom_hooks is a list.*\[dict\(type=\.\.\.\)\]",
        ),
        (
            "default_hooks = dict(timer=dict(type='IterTimerHook', logger=dict(interval=5)))",
            "IterTimerHook.*'logger'",
        ),
        ("default_hooks = dict(loggger=dict(interval=5))", "'logger'"),
        ("default_hooks = dict(timmer=None)", "'timer'"),
        ("train_cfg = dict(max_epoch=3)", "'max_epochs'"),
        ("optim_wrapper = dict(optimizer=dict(type='SDG'))", "'SGD'"),
        ("param_scheduler = dict(milestone=[1])", "'milestones'"),
        ("custom_hook = []", "'custom_hooks'"),
        ("optim_wraper = dict()", "'optim_wrapper'"),
        ("custom_hooks = [dict(type='ProgressHook', priority='NORMALL')]", "'NORMAL'"),
        ("custom_hooks = [dict(interval=5)]", r"dict\(type=\.\.\.\).*'type' is missing"),
    ],
)
def test_a_slip_is_refused_at_construction_with_the_right_form(
    run_of: Make, child: str, right_form: str
) -> None:
    with pytest.raises((AsyncHooksError, TypeError), match=f"(?s){right_form}"):
        run_of(child)


def test_the_new_runner_has_no_run(run_of: Make) -> None:
    with pytest.raises(AsyncHooksError, match=r"train\(\), val\(\) or test\(\)"):
        run_of("").run()


def test_the_scope_that_an_entry_names_wins(run_of: Make) -> None:
    runner = run_of("""
        custom_imports = dict(imports='usage_config_pkg')
        custom_hooks = [dict(type='OwnHook', _scope_='usage_config_pkg')]
    """)

    assert hook_of(runner, "OwnHook").interval == 1
    with pytest.raises(UnknownNameError):
        HOOKS.build({"type": "OwnHook"})


def test_a_base_type_is_found_from_a_child_scope() -> None:
    child = Registry("hook", parent=HOOKS, scope="usage_config_child")
    try:
        assert isinstance(child.build({"type": "CheckpointHook", "interval": 1}), CheckpointHook)
    finally:
        del HOOKS.children["usage_config_child"]
