"""The README's code blocks run as written, and its links lead somewhere."""

import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from asynchooks.checkpoint import list_checkpoints

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    path
    for path in [
        ROOT / "README.md",
        *ROOT.glob("asynchooks/**/README.md"),
        *ROOT.glob("benchmarks/README.md"),
    ]
)


def blocks(path: Any) -> Any:
    return re.findall(r"^```python\n(.*?)^```", path.read_text(), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")  # DCP's, in one process
@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_code_blocks_run(path: Any, tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)  # the blocks use relative paths, as a reader would
    namespace = {"STORE": str(tmp_path / "store"), "__name__": "readme"}
    for number, block in enumerate(blocks(path)):
        exec(compile(block, f"{path.name}, block {number + 1}", "exec"), namespace)
    logging.getLogger("asynchooks").handlers.clear()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_links_lead_somewhere(path: Any) -> None:
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", path.read_text()):
        assert (path.parent / target).exists(), target


def test_the_readme_leaves_what_it_says(tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    namespace = {"STORE": str(tmp_path / "store"), "__name__": "readme"}
    first, hook, loop = blocks(ROOT / "README.md")[:3]
    for block in (first, hook, loop):
        exec(block, namespace)

    left = [checkpoint.name for checkpoint in list_checkpoints(str(tmp_path / "store" / "work_dir"))]
    assert left == ["epoch_2.pth", "epoch_3.pth", "iter_20.pth", "iter_40.pth"], (
        "each run keeps two of its own"
    )
    assert len((tmp_path / "norms.txt").read_text().splitlines()) == 4


def test_the_readmes_configuration_is_trained_resumed_and_explained(tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)  # as a reader would
    for block in blocks(ROOT / "README.md"):
        if (name := re.match(r"# (\w+\.py)\n", block)) is not None:
            (tmp_path / name[1]).write_text(block)
    text = (ROOT / "README.md").read_text()
    commands = re.findall(r"^\$ asynchooks ((?:train|hooks).*?) *(?:#.*)?$", text, re.MULTILINE)
    for command in commands:
        program = [sys.executable, "-W", "error", "-m", "asynchooks", *command.split()]
        done = subprocess.run(
            program, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"

    assert len(commands) == 5  # those under torchrun are tests/distributed/test_readme.py's
    assert {"epoch_4.pth", "epoch_5.pth"} <= {
        checkpoint.name for checkpoint in list_checkpoints("work_dirs/17")
    }
