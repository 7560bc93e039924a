"""Hooks that are written for the one Runner serve MMCV's runners too."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from asynchooks.execution import Effects, Hook
from asynchooks.hooks import CheckInvalidLossHook, NumClassCheckHook, PipelineSwitchHook, SetEpochInfoHook


class Piped(Dataset[Tensor]):
    """Samples that go through a pipeline, of two classes."""

    metainfo = {"classes": ("cat", "dog")}  # noqa: RUF012 - as data sets have it

    def __init__(self) -> None:
        self.pipeline: Any = torch.zeros_like

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Tensor:
        data: Tensor = self.pipeline(torch.full((2,), float(index)))
        return data


class Told(nn.Linear):
    """A model that is told its epoch."""

    def __init__(self, num_classes: int = 2, factor: float = 1.0) -> None:
        super().__init__(2, 1)
        self.num_classes = num_classes
        self.factor = factor
        self.epochs: list[int] = []

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)

    def train_step(self, data: Tensor, optimizer: Any, **_: Any) -> dict[str, Any]:
        loss = self(data).square().mean() * self.factor
        return {"loss": loss, "log_vars": {"loss": loss.detach()}, "num_samples": len(data)}


class Seen(Hook):
    """Notes which data each epoch had."""

    effects = Effects()

    def __init__(self) -> None:
        self.sums: dict[int, float] = {}

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self.sums[runner.epoch] = self.sums.get(runner.epoch, 0.0) + float(data_batch.sum())


def ones(data: Tensor) -> Tensor:
    return torch.ones_like(data)


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_pipeline_is_switched(make_run: Any, workers: int) -> None:
    options: dict[str, Any] = (
        {"persistent_workers": True, "multiprocessing_context": "spawn"} if workers else {}
    )
    loader: DataLoader[Tensor] = DataLoader(Piped(), batch_size=2, num_workers=workers, **options)
    seen, model = Seen(), Told()
    hooks = [PipelineSwitchHook(1, [ones]), SetEpochInfoHook(), NumClassCheckHook(), seen]
    make_run(*hooks, model=model).run([loader], [("train", 1)])

    assert seen.sums == {0: 0.0, 1: 8.0}
    assert model.epochs == [0, 1]


def test_a_loss_that_is_no_number_ends_the_run(make_run: Any) -> None:
    run = make_run(CheckInvalidLossHook(interval=2), model=Told(factor=float("nan")))
    with pytest.raises(AssertionError, match="at iteration 2"):
        run.run([DataLoader(Piped(), batch_size=2)], [("train", 1)])


def test_classes_that_do_not_fit_are_an_error(make_run: Any) -> None:
    run = make_run(NumClassCheckHook(), model=Told(num_classes=3))
    with pytest.raises(AssertionError, match="num_classes=3"):
        run.run([DataLoader(Piped(), batch_size=2)], [("train", 1)])
