"""Small runs on the CPU, and a hook that writes down what is fired."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from asynchooks.execution import POINTS, Effects, Hook
from asynchooks.runner import Runner

MakeRunner = Callable[..., Runner]


class Net(nn.Module):
    """A plain module: its forward returns a loss. Draws random numbers while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 2)
        )

    def forward(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        inputs, targets = batch
        return nn.functional.cross_entropy(self.layers(inputs), targets)


class Noisy(Dataset[tuple[Tensor, int]]):
    """Samples whose transforms draw from all three global generators."""

    def __init__(self, size: int = 20) -> None:
        generator = torch.Generator().manual_seed(1)
        self.inputs = torch.randn(size, 4, generator=generator)
        self.loaded: list[int] = []

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        self.loaded.append(index)
        noise = random.random() + np.random.rand() + torch.rand(()).item()  # noqa: NPY002
        return self.inputs[index] + noise, index % 2


class Recorder(Hook):
    """Writes down every point and the counters at its firing."""

    effects = Effects()
    priority = "LOWEST"

    def __init__(self) -> None:
        self.points: list[str] = []
        self.counters: list[tuple[str, int, int]] = []
        for point in POINTS:
            setattr(self, point, self._noting(point))

    def _noting(self, point: str) -> Callable[..., None]:
        def note(runner: Any, **_: Any) -> None:
            self.points.append(point)
            self.counters.append((point, runner.epoch, runner.iter))

        return note


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def make_runner(tmp_path: Path) -> MakeRunner:
    """Return a function that makes a runner of a small training; arguments replace the defaults, None removes."""

    def make(**changes: Any) -> Runner:
        torch.manual_seed(0)
        options: dict[str, Any] = {
            "model": Net(),
            "work_dir": tmp_path / "run",
            "train_dataloader": DataLoader(Noisy(), batch_size=4, shuffle=True),
            "val_dataloader": DataLoader(Noisy(), batch_size=5),
            "train_cfg": {"by_epoch": True, "max_epochs": 2},
            "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9}},
            "default_hooks": {"checkpoint": None, "logger": None, "timer": None},
            "randomness": {"seed": 7},
        }
        options.update(changes)
        return Runner(**{name: value for name, value in options.items() if value is not None})

    return make
