"""``asynchooks train`` under the real torchrun: start, save, resume, leave."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from asynchooks._cli._configured import runner_of, tell
from asynchooks.checkpoint import restore
from asynchooks.config import Config
from asynchooks.errors import ConfigError
from asynchooks.runner import Runner
from asynchooks.testing import run_ranks

pytestmark = pytest.mark.ranks

HEAD = """
import torch
from torch import nn

class Net(nn.Linear):
    def forward(self, batch):
        return ((super().forward(batch[0]) - batch[1]) ** 2).mean()

work_dir = {work_dir!r}
model = Net(4, 1)
samples = [(torch.full((4,), float(i)).sin(), torch.tensor([float(i % 3)])) for i in range(24)]
"""
CONFIG = (
    HEAD
    + """
train_dataloader = dict(dataset=samples, batch_size=3)
val_dataloader = dict(dataset=samples[:19], batch_size=3)
train_cfg = dict(by_epoch=True, max_epochs=2)
optim_wrapper = dict(optimizer=dict(type="SGD", lr=0.01))
strategy = dict(type="FSDP2")
randomness = dict(seed=0)
"""
)
MMCV_CONFIG = (
    HEAD
    + """
data = dict(samples_per_gpu=3, train=samples)
optimizer = dict(type="SGD", lr=0.01)
optimizer_config = dict(grad_clip=dict(max_norm=0.5, norm_type=float("inf")))
lr_config = dict(policy="step", step=[2])
runner = dict(type="EpochBasedRunner", max_epochs=2)
checkpoint_config = dict(interval=1)
log_config = dict(interval=2, hooks=[dict(type="TextLoggerHook")])
strategy = dict(type="FSDP2")
seed = 0
"""
)


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


def trains(rank: int, config: str) -> None:
    runner_of(Config.fromfile(config)).train()


@pytest.mark.parametrize(
    ("text", "max_epochs"),
    [(CONFIG, "train_cfg.max_epochs"), (MMCV_CONFIG, "runner.max_epochs")],
    ids=["MMEngine", "MMCV"],
)
def test_a_run_under_torchrun_resumes_trains_and_saves(tmp_path: Path, text: str, max_epochs: str) -> None:
    config = tmp_path / "config.py"
    config.write_text(text.format(work_dir=str(tmp_path / "run")))
    run_ranks(2, trains, str(config), with_group=False)

    done = torchrun(config, "--launcher", "pytorch", "--cfg-options", f"{max_epochs}=3", "--resume")

    assert done.returncode == 0, done.stderr
    assert done.stderr.count("resumed from") == 1  # the first rank alone says it
    assert "destroy_process_group" not in done.stderr
    content = restore(tmp_path / "run" / "epoch_3")  # sharded, as the model is
    assert content["meta"]["iter"] == 12
    assert len(content["resume"]["ranks"]) == 2


def test_an_error_under_torchrun_names_the_rank(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    tell(ConfigError("a wrong value"))

    assert capsys.readouterr().err == "rank 1: error: a wrong value\n"


@pytest.mark.skipif(torch.cuda.is_available(), reason="it is there with CUDA")
def test_a_backend_that_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    for name, value in alone.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(ConfigError, match=r"backend='nccl' needs CUDA devices.*'gloo'"):
        Runner(torch.nn.Linear(1, 1), tmp_path, env_cfg={"dist_cfg": {"backend": "nccl"}})
