"""The built-in hooks in a whole run: MMEngine's defaults, interrupted and resumed, on a folder and on a bucket."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from asynchooks.checkpoint import list_checkpoints, restore
from asynchooks.execution import Effects, Hook
from asynchooks.runner import Runner
from asynchooks.testing import S3Server


class Net(nn.Module):
    """A model whose validation loss is its training loss."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)
        self.dropout = nn.Dropout(0.5)

    def forward(self, batch: Any) -> torch.Tensor:
        outputs: torch.Tensor = self.dropout(self.layer(batch))
        return outputs.square().mean()


def make_runner(work_dir: Path, epochs: int = 4, **options: Any) -> Runner:
    torch.manual_seed(0)
    data = torch.randn(8, 4)
    options.setdefault("default_hooks", {"checkpoint": {"type": "CheckpointHook", "save_best": "loss"}})
    return Runner(
        model=Net(),
        work_dir=str(work_dir),
        train_dataloader={
            "batch_size": 2,
            "dataset": list(data),
            "sampler": {"type": "DefaultSampler", "shuffle": True},
        },
        val_dataloader={"batch_size": 4, "dataset": list(data)},
        optim_wrapper={"optimizer": {"type": "Adam", "lr": 0.1}},
        param_scheduler={"type": "MultiStepLR", "milestones": [2]},
        train_cfg={"by_epoch": True, "max_epochs": epochs},
        val_cfg={},
        randomness={"seed": 1},
        **options,
    )


def checkpoint_hooks(**options: Any) -> dict[str, Any]:
    return {"checkpoint": {"type": "CheckpointHook", "interval": 1, **options}}


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


class Interrupting(Hook):
    """Stops a run, as a power cut would, after an epoch."""

    effects = Effects()
    priority = "LOWEST"

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def before_train_epoch(self, runner: Any) -> None:
        if runner.epoch == self.epoch:
            raise InterruptedError


def test_sync_and_async_runs_leave_the_same(tmp_path: Path) -> None:
    hooks = checkpoint_hooks(interval=2, max_keep_ckpts=1, save_best="auto", rule="less")
    for mode in ("sync", "async"):
        make_runner(tmp_path / mode, epochs=5, default_hooks=hooks, mode=mode).train()

    saved = {
        mode: {i.name: restore(i.url) for i in list_checkpoints(tmp_path / mode)}
        for mode in ("sync", "async")
    }
    assert saved["sync"].keys() == saved["async"].keys()
    assert any(name.startswith("best_loss") for name in saved["sync"])
    for name, state in saved["sync"].items():
        for part in ("state_dict", "optimizer", "param_schedulers"):
            assert same(state.get(part), saved["async"][name].get(part)), (name, part)


@pytest.mark.parametrize("stop_before", [1, 2, 3])
def test_an_interrupted_run_ends_as_an_uninterrupted_one(tmp_path: Path, stop_before: int) -> None:
    hooks = checkpoint_hooks(max_keep_ckpts=2, save_best="loss")
    make_runner(tmp_path / "whole", default_hooks=hooks).train()
    with pytest.raises(InterruptedError):
        make_runner(tmp_path / "cut", default_hooks=hooks, custom_hooks=[Interrupting(stop_before)]).train()
    make_runner(tmp_path / "cut", default_hooks=hooks, resume="auto").train()

    whole, cut = (list_checkpoints(tmp_path / name) for name in ("whole", "cut"))
    assert sorted(info.name for info in whole) == sorted(info.name for info in cut)
    for info in whole:
        one, other = restore(info.url), restore(tmp_path / "cut" / info.name)
        assert same(one["state_dict"], other["state_dict"])
        assert same(one.get("optimizer"), other.get("optimizer"))


@pytest.mark.s3
def test_a_run_on_a_bucket_resumes_from_it(tmp_path: Path, s3_server: S3Server) -> None:
    bucket = s3_server.make_bucket("runner")
    options = dict(s3_server.storage_options)
    hooks = checkpoint_hooks(out_dir=bucket, backend_args=options, max_keep_ckpts=1)
    make_runner(tmp_path / "run", epochs=2, default_hooks=hooks).train()
    runner = make_runner(tmp_path / "run", epochs=3, default_hooks=hooks, resume="auto")
    runner.train()

    assert [info.name for info in list_checkpoints(f"{bucket}/run", storage_options=options)] == [
        "epoch_3.pth"
    ]
    assert (runner.epoch, runner.iter) == (3, 12)


def test_a_validation_alone_changes_no_checkpoint(tmp_path: Path) -> None:
    hooks = checkpoint_hooks(save_best="loss")
    runner = make_runner(tmp_path, epochs=1, default_hooks=hooks)
    runner.train()
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.pth")}
    runner.val()

    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.pth")} == before


def test_a_default_hook_can_be_removed_and_changed(tmp_path: Path) -> None:
    runner = make_runner(
        tmp_path,
        epochs=1,
        default_hooks={"timer": None, "logger": {"type": "LoggerHook", "interval": 1}, "checkpoint": None},
    )
    runner.train()

    assert list_checkpoints(tmp_path) == []
    assert "train/time" not in runner.message_hub.log_scalars
