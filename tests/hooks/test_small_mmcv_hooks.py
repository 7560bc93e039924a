"""MMCV's hooks of one idea, and the cache's, in both conventions."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, TensorDataset

from asynchooks.errors import ConfigError
from asynchooks.execution import HookExecutor
from asynchooks.registry import HOOKS
from asynchooks.runner import EpochBasedRunner, IterBasedRunner

EPOCHS = ["before_{}_epoch", "before_{}_iter", "after_{}_iter", "after_{}_epoch"]


class LogBuffer:
    def __init__(self) -> None:
        self.values: list[tuple[str, float]] = []

    def update(self, values: dict[str, float]) -> None:
        self.values += values.items()


def fire(hook: Any, runner: Any, *points: str) -> None:
    with HookExecutor(
        [hook], points=("before_epoch", "after_epoch", "before_iter", "after_iter")
    ) as executor:
        for point in points:
            executor.fire(point, runner, **({"batch_idx": 0} if "_iter" in point[7:] else {}))


@pytest.mark.parametrize("mode", ["train", "val"])
def test_mmcvs_timer_notes_loading_and_the_whole_iteration(mode: str) -> None:
    runner = SimpleNamespace(log_buffer=LogBuffer())

    fire(HOOKS.build({"type": "mmcv.IterTimerHook"}), runner, *(point.format(mode) for point in EPOCHS))

    (first, waited), (second, whole) = runner.log_buffer.values
    assert (first, second) == ("data_time", "time")
    assert 0 <= waited <= whole


@pytest.mark.parametrize("in_batch_sampler", [False, True])
@pytest.mark.parametrize("point", ["before_train_epoch", "before_val_epoch", "before_epoch"])
def test_mmcvs_samplers_get_the_epoch_of_the_runners_loader(point: str, *, in_batch_sampler: bool) -> None:
    data: Any = list(range(4))
    sampler: DistributedSampler[Any] = DistributedSampler(data, num_replicas=1, rank=0)
    batches = BatchSampler(sampler, 2, drop_last=False)
    loader: Any = (
        DataLoader(data, batch_sampler=batches) if in_batch_sampler else DataLoader(data, sampler=sampler)
    )

    fire(
        HOOKS.build({"type": "mmcv.DistSamplerSeedHook"}), SimpleNamespace(data_loader=loader, epoch=5), point
    )

    assert sampler.epoch == 5


def test_a_loader_whose_sampler_takes_no_epoch_is_left_alone() -> None:
    data: Any = list(range(4))
    runner = SimpleNamespace(data_loader=DataLoader(data), epoch=5)

    fire(HOOKS.build({"type": "mmcv.DistSamplerSeedHook"}), runner, "before_train_epoch")


@pytest.mark.parametrize("kind", ["EmptyCacheHook", "mmcv.EmptyCacheHook"])
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["after_train_epoch", "after_val_epoch"]),
        ({"before_epoch": True, "after_epoch": False}, ["before_train_epoch", "before_val_epoch"]),
        ({"after_epoch": False, "after_iter": True}, ["after_train_iter", "after_val_iter"]),
        ({"after_epoch": False}, []),
    ],
)
def test_the_cache_is_emptied_at_the_points_that_are_asked_for(
    kind: str, options: dict[str, bool], expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    emptied: list[str] = []
    at = ""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # no GPU stands here
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(at))
    hook = HOOKS.build({"type": kind, **options})

    for mode in ("train", "val"):
        for template in EPOCHS:
            at = template.format(mode)
            fire(hook, None, at)

    assert emptied == expected


@pytest.mark.parametrize("kind", ["EmptyCacheHook", "mmcv.EmptyCacheHook"])
def test_without_a_gpu_there_is_no_cache(kind: str) -> None:
    hook = HOOKS.build({"type": kind, "after_iter": True})

    fire(hook, None, "after_train_iter", "after_train_epoch")

    with pytest.raises(ConfigError, match="after_iter is True or False"):
        HOOKS.build({"type": kind, "after_iter": 1})


class Lossy(torch.nn.Linear):
    """A model in MMCV's manner."""

    def train_step(self, data: Any, optimizer: Any, **options: Any) -> dict[str, Any]:
        loss = self(data[0]).square().mean()
        return {"loss": loss, "log_vars": {"loss": loss.detach()}, "num_samples": 2}


@pytest.mark.parametrize("kind", [EpochBasedRunner, IterBasedRunner])
def test_mmcvs_runners_take_them_as_custom_hooks(kind: Any, tmp_path: Path) -> None:
    data = TensorDataset(torch.randn(6, 2))
    sampler: DistributedSampler[Any] = DistributedSampler(data, num_replicas=1, rank=0)
    model = Lossy(2, 1)
    length = {"max_epochs": 2} if kind is EpochBasedRunner else {"max_iters": 6}
    runner = kind(
        model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1), work_dir=tmp_path, **length
    )
    names = ("DistSamplerSeedHook", "EmptyCacheHook", "SyncBuffersHook", "EMAHook")
    runner.register_training_hooks(
        {"policy": "fixed"}, {}, custom_hooks_config=[{"type": f"mmcv.{name}"} for name in names]
    )

    runner.run([DataLoader(data, batch_size=2, sampler=sampler)], [("train", 1)])

    assert {"data_time", "time"} <= set(runner.log_buffer.val_history)
    assert sampler.epoch == 1
    assert "ema_weight" in dict(model.named_buffers())
