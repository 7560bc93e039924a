"""The house stays small enough to read, and a newcomer adds a hook by writing one file."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("asynchooks", "tests", "benchmarks")
LONGEST_FILE = 400
LONGEST_HOOK = 200

NEW_HOOK = '''
"""Counts iterations."""

from typing import Any

from asynchooks.execution import Effects, Hook
from asynchooks.registry import {registry}

__all__ = ["NewcomersHook"]


@{registry}.register_module()
class NewcomersHook(Hook):
    """Counts."""

    effects = Effects()

    def __init__(self, start: int = 0) -> None:
        self.count = start

    def after_train_iter(self, runner: Any, **_: Any) -> None:
        self.count += 1
'''

TRAINING = """
import torch
from asynchooks import hooks
from asynchooks.runner import Runner

class Net(torch.nn.Linear):
    def forward(self, batch):
        return super().forward(batch).square().mean()

runner = Runner(
    model=Net(2, 1),
    work_dir="run",
    train_dataloader=[torch.ones(4, 2)] * 3,
    train_cfg=dict(max_epochs=2),
    optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.1)),
    default_hooks=dict(logger=None, checkpoint=None),
    custom_hooks=[dict(type="NewcomersHook", start=10)],
)
runner.train()
(hook,) = [hook for hook in runner.hooks if type(hook).__name__ == "NewcomersHook"]
assert hook.count == 16, hook.count
assert "NewcomersHook" in hooks.__all__ and hooks.NewcomersHook is type(hook)
assert "NewcomersHook" in runner.get_hooks_info()
"""


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def sources(folder: str) -> list[Path]:
    return [path for path in (ROOT / folder).rglob("*.py") if "__pycache__" not in path.parts]


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_file_is_longer_than_a_reader_keeps_in_mind(folder: str) -> None:
    long = {str(path.relative_to(ROOT)): lines(path) for path in sources(folder)}

    assert len(long) > 3
    assert {name: count for name, count in long.items() if count > LONGEST_FILE} == {}


def test_no_module_of_a_hook_is_longer_than_its_idea() -> None:
    long = {str(path.relative_to(ROOT)): lines(path) for path in sources("asynchooks/hooks")}

    assert len(long) > 6
    assert {name: count for name, count in long.items() if count > LONGEST_HOOK} == {}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Return a copy of the package that a test may write into."""
    return Path(
        shutil.copytree(
            ROOT / "asynchooks",
            tmp_path / "copy" / "asynchooks",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    )


def run_in(package: Path, program: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )


def test_a_newcomer_adds_a_hook_by_writing_one_file(package: Path, tmp_path: Path) -> None:
    before = run_in(package, TRAINING, tmp_path)
    (package / "hooks" / "newcomers.py").write_text(NEW_HOOK.format(registry="HOOKS"))
    after = run_in(package, TRAINING, tmp_path)

    assert "NewcomersHook" in before.stderr  # unknown, and said so
    assert (before.returncode, after.returncode) == (1, 0), after.stderr


def test_so_does_one_who_adds_a_hook_of_mmcv(package: Path, tmp_path: Path) -> None:
    (package / "hooks" / "mmcv" / "newcomers.py").write_text(NEW_HOOK.format(registry="MMCV_HOOKS"))
    program = (
        "from asynchooks.hooks import mmcv\n"
        "from asynchooks.registry import MMCV_HOOKS\n"
        "assert type(MMCV_HOOKS.build(dict(type='NewcomersHook'))) is mmcv.NewcomersHook\n"
        "assert 'NewcomersHook' in mmcv.__all__"
    )
    run = run_in(package, program, tmp_path)

    assert run.returncode == 0, run.stderr
