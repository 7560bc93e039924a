"""The demo under the real torchrun."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ranks, pytest.mark.s3]


@pytest.mark.parametrize("strategy", ["FSDP2", "DDP"])
def test_ranks_train_save_and_go_on_like_one_process(tmp_path: Path, strategy: str) -> None:
    report = tmp_path / "report.json"
    program = str(Path(sys.executable).with_name("torchrun"))
    demo = ["-m", "asynchooks", "demo", "--model", "tiny", "--steps", "12", "--strategy", strategy]
    done = subprocess.run(
        [program, "--standalone", "--nproc-per-node", "2", *demo, "--json", str(report)],
        capture_output=True,
        text=True,
        timeout=200,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("every bit equal") == 2  # the first rank alone says it
    assert "are left after pruning, with iter_9, iter_12" in done.stdout
    assert f"2 ranks, {strategy};" in done.stdout
    numbers = json.loads(report.read_text())
    assert [claim["holds"] for claim in numbers["proof"]] == [True] * 5
    assert numbers["runs"]["async"]["committed"] == numbers["runs"]["sync"]["committed"] >= 8
