"""``asynchooks train``: what it takes, what it leaves, and how it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from asynchooks._cli._app import app
from asynchooks._cli.train._arguments import with_values
from asynchooks.checkpoint import list_checkpoints
from asynchooks.config import Config

PARTS = """
import time
import torch
from asynchooks import Hook
from asynchooks.registry import DATASETS, HOOKS, MODELS

@MODELS.register_module(force=True)
class TrainNet(torch.nn.Linear):
    def __init__(self, width=4):
        super().__init__(width, 1)
    def forward(self, batch):
        return super().forward(batch).square().mean()

@DATASETS.register_module(force=True)
class TrainData(torch.utils.data.Dataset):
    def __init__(self, size=8):
        self.size = size
    def __len__(self):
        return self.size
    def __getitem__(self, index):
        return torch.full((4,), float(index))

@HOOKS.register_module(force=True)
class TrainFailure(Hook):
    def __init__(self, kind="RuntimeError"):
        self.kind = kind
    def after_train_epoch(self, runner):
        raise {"RuntimeError": RuntimeError, "KeyboardInterrupt": KeyboardInterrupt}[self.kind]("it broke")
"""
RUN = """
custom_imports = dict(imports=['cli_train_parts'])
model = dict(type='TrainNet')
train_dataloader = dict(batch_size=4, dataset=dict(type='TrainData'))
train_cfg = dict(by_epoch=True, max_epochs=2)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01))
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "cli_train_parts.py").write_text(PARTS)
    (tmp_path / "small.py").write_text(RUN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("cli_train_parts", None)


def train(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["train", *arguments], env={"COLUMNS": "200", "NO_COLOR": "1"})


def saved(folder: Path) -> list[str]:
    return sorted(info.name for info in list_checkpoints(folder))


def test_a_configuration_is_trained_in_a_folder_of_its_name(folder: Path) -> None:
    result = train("small.py")

    assert (result.exit_code, result.exception) == (0, None)
    assert saved(folder / "work_dirs/small") == ["epoch_1.pth", "epoch_2.pth"]


def test_options_change_the_configuration_and_it_is_kept_as_it_ran(folder: Path) -> None:
    result = train(
        "small.py",
        "--cfg-options",
        "train_cfg.max_epochs=1",
        "model.width=4",
        "--work-dir",
        "w",
        "--mode",
        "sync",
    )
    (kept,) = (folder / "w").glob("*/small.py")
    cfg = Config.fromfile(kept)

    assert result.exit_code == 0
    assert saved(folder / "w") == ["epoch_1.pth"]
    assert (cfg.train_cfg.max_epochs, cfg.work_dir, cfg.mode) == (1, "w", "sync")


@pytest.mark.parametrize(
    "resume", [["--resume"], ["--resume", "auto"], ["--resume", "work_dirs/small/epoch_2.pth"]]
)
def test_a_run_is_resumed_from_the_newest_or_from_what_is_named(
    folder: Path, resume: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    train("small.py")
    with caplog.at_level("INFO"):
        result = train(*resume, "small.py", "--cfg-options", "train_cfg.max_epochs=3")

    assert result.exit_code == 0
    assert "epoch_2.pth: epoch 2, iteration 4" in caplog.text
    assert saved(folder / "work_dirs/small")[-1] == "epoch_3.pth"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none.py"], ["none.py does not exist"]),
        (
            ["--cfg-options", "default_hooks.checkpoint.internal=5"],
            ["CheckpointHook", "'internal'", "'interval'"],
        ),
        (["--cfg-options", "optim_wrapper.type=OptimizerWrapper"], ["OptimizerWrapper", "'OptimWrapper'"]),
        (["--cfg-options", "train_dataloder.x=1"], ["'train_dataloader'", "in the configuration small.py"]),
        (
            ["--cfg-options", "custom_imports.imports=[not_there]"],
            ["custom_imports", "'not_there'", "PYTHONPATH"],
        ),
        (["--cfg-options", "model.width=many"], ["while building TrainNet", "--debug shows where"]),
        (["--cfg-options", "justaword"], ["KEY=VALUE", "'justaword'"]),
        (["--cfg-options", "--work-dir", "x"], ["KEY=VALUE"]),
        (["--mode", "asnyc"], ["'async' or 'sync'"]),
        (["--amp", "--cfg-options", "optim_wrapper.type=Mine"], ["--amp", "AmpOptimWrapper"]),
    ],
)
def test_a_wrong_configuration_is_told_without_a_traceback(arguments: list[str], words: list[str]) -> None:
    config = [] if arguments[0].endswith(".py") else ["small.py"]
    result = train(*config, *arguments)

    assert result.exit_code == 2
    assert all(word in result.output for word in words), result.output
    assert "Traceback" not in result.output


def test_debug_shows_where_a_configuration_is_wrong() -> None:
    assert "Traceback" in train("small.py", "--debug", "--cfg-options", "model.width=many").output


def test_the_syntax_error_of_a_file_is_told_with_its_line(folder: Path) -> None:
    (folder / "small.py").write_text("a = 1\nb = (\n")

    assert "small.py, line 2" in train("small.py").output


def failing(kind: str, folder: Path) -> str:
    child = folder / "child.py"
    child.write_text(f"_base_ = 'small.py'\ncustom_hooks = [dict(type='TrainFailure', kind='{kind}')]\n")
    return child.name


def test_a_run_that_fails_ends_with_one(folder: Path) -> None:
    result = train(failing("RuntimeError", folder))

    assert result.exit_code == 1
    assert "Traceback" in result.output
    assert "error: RuntimeError: it broke" in result.output
    assert "Raised by TrainFailure.after_train_epoch" in result.output


@pytest.mark.parametrize(
    ("resume", "code", "words"),
    [
        ("none/iter_3.pth", 2, "none/iter_3.pth does not exist"),
        ("small.pth", 1, "small.pth"),
        ("no-such-protocol://x/iter_3.pth", 2, "no-such-protocol"),
    ],
)
def test_a_checkpoint_that_cannot_be_resumed_is_told_without_a_traceback(
    folder: Path, resume: str, code: int, words: str
) -> None:
    (folder / "small.pth").write_bytes(b"no checkpoint")
    result = train("small.py", "--resume", resume)

    assert result.exit_code == code, result.output
    assert words in result.output
    assert "Traceback" not in result.output


def test_an_interrupted_run_finishes_what_is_in_flight_and_ends_with_130(folder: Path) -> None:
    result = train(
        failing("KeyboardInterrupt", folder),
        "--cfg-options",
        "default_hooks.checkpoint={'type':'CheckpointHook','interval':1,'by_epoch':False}",
    )

    assert result.exit_code == 130
    assert saved(folder / "work_dirs/child") == ["iter_1.pth", "iter_2.pth"]


def test_a_configuration_of_mmcvs_form_is_trained_and_explained_as_it_is(folder: Path) -> None:
    (folder / "old.py").write_text("""
custom_imports = dict(imports=['cli_train_parts'])
model = dict(type='TrainNet')
data = dict(samples_per_gpu=4, train=dict(type='TrainData'))
optimizer = dict(type='SGD', lr=0.01)
optimizer_config = dict(grad_clip=None)
lr_config = dict(policy='step', step=[1])
runner = dict(type='EpochBasedRunner', max_epochs=2)
checkpoint_config = dict(interval=1)
""")
    plan = CliRunner().invoke(app, ["hooks", "old.py"], env={"NO_COLOR": "1"})
    result = train("old.py", "--cfg-options", "runner.max_epochs=1")

    assert "40 ABOVE_NORMAL  OptimizerHook: blocking" in plan.output
    assert result.exit_code == 0, result.output
    assert saved(folder / "work_dirs/old") == ["epoch_1.pth"]


@pytest.mark.slow
def test_ctrl_c_ends_a_process_with_130(folder: Path) -> None:
    (folder / "long.py").write_text(
        "_base_ = 'small.py'\ntrain_cfg = dict(max_epochs=100000)\nlog_level = 'INFO'\n"
    )
    command = [sys.executable, "-m", "asynchooks", "train", "long.py"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "Epoch(train)" in line:
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()

    assert process.returncode == 130, rest
    assert "Interrupted" in rest
    assert "Traceback" not in rest


@pytest.mark.parametrize(
    ("typed", "understood"),
    [
        (["c.py", "--resume"], ["c.py", "--resume", "auto"]),
        (["--resume", "c.py"], ["--resume", "auto", "c.py"]),
        (["--resume", "s3://b/run/iter_3.pth", "c.py"], ["--resume", "s3://b/run/iter_3.pth", "c.py"]),
        (["--resume", "--mode", "sync"], ["--resume", "auto", "--mode", "sync"]),
        (
            ["--cfg-options", "a=1", "b=x.py", "c.py"],
            ["--cfg-options", "a=1", "--cfg-options", "b=x.py", "c.py"],
        ),
        (["--cfg-options", "--debug"], ["--cfg-options=", "--debug"]),
        (["--cfg-options=a=1"], ["--cfg-options=a=1"]),
    ],
)
def test_options_are_read_as_argparse_would(typed: list[str], understood: list[str]) -> None:
    assert with_values(typed) == understood


def test_the_command_loads_no_torch_before_it_is_needed() -> None:
    program = textwrap.dedent("""
        import sys
        from typer.testing import CliRunner
        from asynchooks._cli._app import app
        result = CliRunner().invoke(app, ["train", "none.py"])
        sys.exit(result.exit_code != 2 or "torch" in sys.modules)
    """)

    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
