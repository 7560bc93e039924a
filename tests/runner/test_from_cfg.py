"""A run from a configuration: what is read, what is refused, what is kept of it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

from asynchooks.checkpoint import restore
from asynchooks.config import Config
from asynchooks.errors import ConfigError, CustomImportError, UnknownOptionError
from asynchooks.registry import DATASETS, MODELS
from asynchooks.runner import Runner

from .conftest import Net, Noisy

MODELS.register_module("FromCfgNet", force=True, module=Net)
DATASETS.register_module("FromCfgNoisy", force=True, module=Noisy)

TEXT = """
_base_ = 'base.yaml'
model = dict(type='FromCfgNet')
train_dataloader = dict(batch_size=4, dataset=dict(type='FromCfgNoisy', size=8))
work_dir = '{{ fileDirname }}/run'
custom_hooks = [dict(type='ProgressHook', priority=99)]
my_own_variable = 5
"""
BASE = """
train_cfg: {by_epoch: true, max_epochs: 1}
optim_wrapper: {type: OptimWrapper, optimizer: {type: SGD, lr: 1e-2}}
randomness: {seed: 3}
default_hooks: {logger: null, timer: null}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "small.py").write_text(TEXT)
    return tmp_path / "small.py"


def test_a_file_describes_a_run_and_is_kept_beside_its_logs(path: Path) -> None:
    cfg = Config.fromfile(path)
    runner = Runner.from_cfg(cfg)
    runner.train()
    (kept,) = Path(runner.log_dir or "").glob("*.py")

    assert (runner.iter, runner.seed) == (2, 3)
    assert kept.name == "small.py"
    assert Config.fromfile(kept) == cfg
    assert restore(path.parent / "run/epoch_1.pth")["meta"]["cfg"] == cfg.pretty_text


def test_a_plain_mapping_does_too_and_objects_may_stand_in_it(tmp_path: Path) -> None:
    loader = DataLoader(Noisy(8), batch_size=4)
    cfg = {
        "model": Net(),
        "work_dir": str(tmp_path),
        "train_dataloader": loader,
        "train_cfg": {"max_epochs": 1},
        "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.1}},
        "default_hooks": {"logger": None, "checkpoint": None},
    }
    runner = Runner.from_cfg(cfg)
    runner.train()
    (kept,) = Path(runner.log_dir or "").glob("*.py")

    assert runner.train_dataloader is loader
    assert Config.fromfile(kept).train_cfg == {"max_epochs": 1}


def test_a_run_on_a_remote_store_keeps_its_configuration_in_checkpoints_alone(path: Path) -> None:
    cfg = Config.fromfile(path)
    cfg.work_dir = "memory://from_cfg/run"
    Runner.from_cfg(cfg).train()

    assert "FromCfgNet" in restore("memory://from_cfg/run/epoch_1.pth")["meta"]["cfg"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train_dataloder": {}}, "no argument 'train_dataloder'. Did you mean 'train_dataloader'"),
        ({"custom_hook": []}, "Did you mean 'custom_hooks'"),
        ({"work_dir": None}, "no 'work_dir'"),
        ({"model": None}, "no 'model'"),
    ],
)
def test_a_wrong_entry_is_named_with_the_file(path: Path, changes: dict[str, Any], words: str) -> None:
    cfg = Config.fromfile(path)
    cfg.merge_from_dict(changes)

    with pytest.raises((ConfigError, UnknownOptionError), match=words) as caught:
        Runner.from_cfg(cfg)
    assert caught.value.__notes__ == [f"in the configuration {path}"]


def test_a_configuration_for_mmcv_is_told_where_everything_stands_now(tmp_path: Path) -> None:
    cfg = Config(
        {
            "model": {"type": "FromCfgNet"},
            "data": {"train": {}},
            "optimizer": {"type": "SGD"},
            "lr_config": {"policy": "step"},
            "runner": {"type": "EpochBasedRunner", "max_epochs": 3},
        }
    )

    with pytest.raises(
        ConfigError, match=r"MMCV 1\.x(.|\n)*data: write train_dataloader(.|\n)*lr_config: write param"
    ):
        Runner.from_cfg(cfg)


def test_entries_without_effect_are_named_in_one_warning(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = Config.fromfile(path)
    cfg.update(
        {"data_preprocessor": {}, "lr_config": {"policy": "step"}, "data": {}, "optimizer": {"type": "SGD"}}
    )
    with caplog.at_level(logging.WARNING):
        Runner.from_cfg(cfg)

    assert [r.message for r in caplog.records if "no effect" in r.message] == [
        "entries of the configuration that have no effect here: data_preprocessor, lr_config"
    ]


def test_what_custom_imports_names_is_imported_for_a_mapping_too() -> None:
    with pytest.raises(CustomImportError, match="no_such_module_here"):
        Runner.from_cfg(
            {"model": Net(), "work_dir": "x", "custom_imports": {"imports": "no_such_module_here"}}
        )


def test_only_a_mapping_is_a_configuration() -> None:
    with pytest.raises(ConfigError, match=r"takes a Config or a dict of a Runner's arguments, not 'run\.py'"):
        Runner.from_cfg("run.py")  # type: ignore[arg-type]  # the mistake
