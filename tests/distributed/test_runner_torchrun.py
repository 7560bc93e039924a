"""``asynchooks train`` under the real torchrun: start, save, resume, leave."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = [pytest.mark.ranks]

CONFIG = """
import torch
from torch import nn

class Net(nn.Linear):
    def forward(self, batch):
        return ((super().forward(batch[0]) - batch[1]) ** 2).mean()

work_dir = {work_dir!r}
model = Net(4, 1)
data = [(torch.full((4,), float(i)).sin(), torch.tensor([float(i % 3)])) for i in range(24)]
train_dataloader = dict(dataset=data, batch_size=3)
val_dataloader = dict(dataset=data[:19], batch_size=3)
train_cfg = dict(by_epoch=True, max_epochs=2)
optim_wrapper = dict(optimizer=dict(type="SGD", lr=0.01))
strategy = dict(type="FSDP2")
randomness = dict(seed=0)
"""


def torchrun(config: Path, *options: str) -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).with_name("torchrun"))
    train = ["-m", "asynchooks", "train", str(config), *options]
    return subprocess.run(
        [program, "--standalone", "--nproc-per-node", "2", *train],
        capture_output=True,
        text=True,
        timeout=100,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": ""},
    )


def test_a_run_under_torchrun_trains_saves_and_resumes(tmp_path: Path) -> None:
    config = tmp_path / "config.py"
    config.write_text(CONFIG.format(work_dir=str(tmp_path / "run")))
    first = torchrun(config, "--launcher", "pytorch")
    again = torchrun(config, "--cfg-options", "train_cfg.max_epochs=3", "--resume")

    assert first.returncode == 0, first.stderr
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("resumed from") == 1  # the first rank alone says it
    assert "destroy_process_group" not in first.stderr + again.stderr
    content = torch.load(tmp_path / "run" / "epoch_3.pth", weights_only=True)
    assert content["meta"]["iter"] == 12
    assert len(content["resume"]["ranks"]) == 2
    assert len([path for path in (tmp_path / "run").iterdir() if path.is_dir()]) == 2  # logs of two runs
