"""Two ranks train, evaluate together, and one of them saves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import names


def test_ranks_evaluate_together_and_one_saves(tmp_path: Path) -> None:
    program = Path(__file__).with_name("ranks.py")
    files = [str(tmp_path / "store"), str(tmp_path)]
    ranks = [subprocess.Popen([sys.executable, str(program), rank, *files]) for rank in "01"]
    assert [process.wait(100) for process in ranks] == [0, 0]
    first, second = (json.loads((tmp_path / f"answer.{rank}").read_text()) for rank in (0, 1))

    assert (first["rank"], second["rank"]) == ([0, 2], [1, 2])
    assert first["evaluated"] == [[0.0, 1.0, 2.0, 3.0, 4.0]]  # in the data set's order, once each
    assert second["evaluated"] == []
    assert first["mean"] == second["mean"] == pytest.approx([0.2, 0.2])  # 0.1 * mean of 1.5 and 2.5
    assert names(tmp_path / "run") == ["best_acc_epoch_1.pth", "epoch_1.pth"]
