"""The README's commands for many ranks, as a reader would type them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from asynchooks.checkpoint import list_checkpoints

pytestmark = pytest.mark.ranks

ROOT = Path(__file__).parents[2]


def test_the_readmes_commands_train_on_two_ranks_and_go_on_on_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "README.md").read_text()
    for block in re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        if (name := re.match(r"# (\w+\.py)\n", block)) is not None:
            (tmp_path / name[1]).write_text(block)
    commands = re.findall(r"^\$ torchrun (.*train .*?) *$", text, re.MULTILINE)
    program = [str(Path(sys.executable).with_name("torchrun")), "--standalone"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for command in commands:
        done = subprocess.run([*program, *command.split()], capture_output=True, text=True, env=environ)
        assert done.returncode == 0, f"{command}: {done.stderr}"

    assert len(commands) == 2
    left = {info.name: info for info in list_checkpoints("work_dirs/18")}
    assert {name: info.world_size for name, info in left.items() if name in ("epoch_3", "epoch_4")} == {
        "epoch_3": 2,
        "epoch_4": 1,
    }
    assert {info.layout for info in left.values()} == {"sharded"}
