"""A run from a configuration of MMCV 1.x's form."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from asynchooks.config import Config
from asynchooks.errors import ConfigError, UnknownOptionError
from asynchooks.registry import DATASETS, MODELS
from asynchooks.runner import Runner
from asynchooks.runner.mmcv import ConfiguredRun

from .conftest import Net, Numbers

MODELS.register_module("ConfiguredNet", force=True, module=Net)
DATASETS.register_module("ConfiguredNumbers", force=True, module=Numbers)

TEXT = """
model = dict(type='ConfiguredNet')
data = dict(
    samples_per_gpu=4,
    workers_per_gpu=0,
    train=dict(type='ConfiguredNumbers', size=8),
    val=dict(type='ConfiguredNumbers', size=2, metrics=({'acc': 0.1}, {'acc': 0.5}, {'acc': 0.3})))
optimizer = dict(type='SGD', lr=0.01, momentum=0.9)
optimizer_config = dict(grad_clip=dict(max_norm=35, norm_type=2))
lr_config = dict(policy='step', step=[2])
runner = dict(type='EpochBasedRunner', max_epochs=3)
checkpoint_config = dict(interval=1, max_keep_ckpts=2)
log_config = dict(interval=1, hooks=[])
evaluation = dict(interval=1, save_best='acc')
custom_hooks = [dict(type='SyncNormHook', priority=48)]
workflow = [('train', 1)]
dist_params = dict(backend='nccl')
opencv_num_threads = 0
img_norm_cfg = dict(mean=[0.0])
seed = 3
work_dir = '{{ fileDirname }}/run'
"""


@pytest.fixture
def cfg(tmp_path: Path) -> Config:
    path = tmp_path / "old.py"
    path.write_text(TEXT)
    return Config.fromfile(path)


def test_a_configuration_of_mmcvs_form_is_trained(cfg: Config, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        run = ConfiguredRun.from_cfg(cfg)
    run.train()
    saved = {path.name for path in Path(cfg.work_dir).glob("*.pth")}

    assert (run.runner.epoch, run.runner.iter) == (3, 6)
    assert {"epoch_2.pth", "epoch_3.pth", "best_acc_epoch_2.pth"} <= saved
    assert "epoch_1.pth" not in saved
    assert run.runner.current_lr() == [pytest.approx(0.001)]
    assert "no effect here: opencv_num_threads" in caplog.text
    assert [path.name for path in Path(run.runner.log_dir).glob("*.py")] == ["old.py"]


def test_the_hooks_stand_in_mmcvs_order(cfg: Config) -> None:
    run = ConfiguredRun.from_cfg(cfg)

    assert [(r.name, r.priority) for r in run.executor.registered] == [
        ("StepLrUpdaterHook", 10),
        ("OptimizerHook", 40),
        ("SyncNormHook", 48),
        ("CheckpointHook", 50),
        ("IterTimerHook", 70),
        ("EvalHook", 70),
    ]


@pytest.mark.parametrize("resume", [{"resume_from": "epoch_3.pth"}, {"resume": "auto"}])
def test_a_run_is_resumed(cfg: Config, resume: dict[str, str]) -> None:
    ConfiguredRun.from_cfg(cfg).train()
    for name, value in resume.items():
        cfg[name] = str(Path(cfg.work_dir) / value) if value.endswith(".pth") else value
    cfg.runner.max_epochs = 4
    run = ConfiguredRun.from_cfg(cfg)
    heard: list[int] = []
    run.runner.model.register_forward_pre_hook(lambda *_: heard.append(run.runner.iter))
    run.train()

    assert run.runner.epoch == 4
    assert min(heard) == 6


def test_total_epochs_and_iterations_are_read_too(cfg: Config) -> None:
    del cfg.runner
    cfg.total_epochs = 1
    assert ConfiguredRun.from_cfg(cfg).runner.max_epochs == 1

    cfg.runner = {"type": "IterBasedRunner", "max_iters": 5}
    cfg.evaluation = None
    run = ConfiguredRun.from_cfg(cfg)
    assert (run.runner.max_iters, run.runner.by_epoch) == (5, False)


def test_a_validation_in_the_workflow_has_its_loader(cfg: Config) -> None:
    cfg.merge_from_dict({"evaluation": None, "workflow": [("train", 1), ("val", 1)]})
    run = ConfiguredRun.from_cfg(cfg)
    run.train()

    assert len(run.runner.val_dataloader.dataset) == 2


def test_mixed_precision_is_a_hook(cfg: Config) -> None:
    cfg.fp16 = {"loss_scale": 512.0}

    assert "Fp16OptimizerHook" in [r.name for r in ConfiguredRun.from_cfg(cfg).executor.registered]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lr_confg": {}}, "'lr_confg'. Did you mean 'lr_config'"),
        ({"checkpoint_config.internal": 5}, "'internal'.*'interval'"),
        ({"data.train.sizes": 5}, "'sizes'.*'size'"),
        ({"data.train_dataloader": {"sample_per_gpu": 5}}, "sample_per_gpu"),
        ({"data": {"_delete_": True, "val": {}}}, "'train' is missing"),
        ({"optimizer.type": "SDG"}, "'SGD'"),
        ({"evaluation.intervall": 5}, "'intervall'.*'interval'"),
        ({"runner.max_epoch": 5}, "'max_epoch'.*'max_epochs'"),
        ({"runner": None}, r"no runner=dict\(type='EpochBasedRunner'"),
        ({"model": None}, "no 'model'"),
        ({"strategy": {"type": "DPD"}}, "'DPD'.*'DDP'"),
        ({"launcher": "slurm"}, "srun torchrun"),
    ],
)
def test_a_slip_is_refused_at_construction(cfg: Config, changes: dict[str, Any], words: str) -> None:
    cfg.merge_from_dict(changes)

    with pytest.raises((ConfigError, UnknownOptionError), match=words):
        ConfiguredRun.from_cfg(cfg)


def test_the_other_runner_says_who_runs_it(cfg: Config) -> None:
    with pytest.raises(
        ConfigError, match=r"MMCV 1\.x(.|\n)*ConfiguredRun(.|\n)*lr_config: write param_scheduler"
    ):
        Runner.from_cfg(cfg)
