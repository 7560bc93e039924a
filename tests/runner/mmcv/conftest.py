"""Small runs in MMCV's manner, on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from asynchooks.execution import Effects, RunnerHook
from asynchooks.runner import EpochBasedRunner, IterBasedRunner
from asynchooks.runner.mmcv import BaseRunner

MakeRun = Callable[..., BaseRunner]


class Net(nn.Module):
    """A model in MMCV's manner. Draws random numbers while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 4), nn.Dropout(0.5), nn.Linear(4, 1))

    def forward(self, batch: Tensor) -> Tensor:
        return self.layers(batch)  # type: ignore[no-any-return]

    def train_step(self, data: Tensor, optimizer: Any, **options: Any) -> dict[str, Any]:
        loss = self(data).square().mean()
        return {"loss": loss, "log_vars": {"loss": loss.detach()}, "num_samples": len(data)}

    def val_step(self, data: Tensor, optimizer: Any = None) -> dict[str, Any]:
        return {"log_vars": {"acc": self(data).mean()}, "num_samples": len(data)}


class Numbers(Dataset[Tensor]):
    """Samples, and their evaluation: whatever results came, the next of the given metrics."""

    def __init__(self, size: int = 8, metrics: tuple[dict[str, Any], ...] = ()) -> None:
        self.samples = torch.randn(size, 2, generator=torch.Generator().manual_seed(1))
        self.metrics = list(metrics)
        self.results: list[Any] = []

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Tensor:
        return self.samples[index] + torch.rand(())

    def evaluate(self, results: Any, logger: Any = None, **options: Any) -> dict[str, Any]:
        self.results.append((len(results), options))
        return self.metrics.pop(0)


class Step(RunnerHook):
    """The least that trains."""

    priority = "ABOVE_NORMAL"
    effects = Effects()

    def after_train_iter(self, runner: Any) -> None:  # type: ignore[override]
        runner.optimizer.zero_grad()
        runner.outputs["loss"].backward()
        runner.optimizer.step()


class Recorder(RunnerHook):
    """Writes down MMCV's ten points."""

    effects = Effects()

    def __init__(self) -> None:
        self.points: list[str] = []
        for point in self.stages:
            setattr(self, point, self._noting(point))

    def _noting(self, point: str) -> Callable[[Any], None]:
        def note(runner: Any) -> None:
            self.points.append(point)

        return note


def loader(size: int = 8, **options: Any) -> DataLoader[Tensor]:
    return DataLoader(Numbers(size), batch_size=4, **options)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Return a function that makes a runner that trains; hooks are registered in their order."""

    def make(*hooks: Any, trains: bool = True, **changes: Any) -> BaseRunner:
        torch.manual_seed(0)
        model = changes.pop("model", None) or Net()
        options: dict[str, Any] = {"work_dir": tmp_path / "run", "max_epochs": 2, **changes}
        if "optimizer" not in options:
            options["optimizer"] = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        if options.get("max_iters") is not None:
            options["max_epochs"] = None
        kind = IterBasedRunner if options["max_epochs"] is None else EpochBasedRunner
        runner = kind(model=model, **options)
        for hook in (*([Step()] if trains else []), *hooks):
            runner.register_hook(hook)
        return runner

    return make


def weights(runner: Any) -> Tensor:
    return nn.utils.parameters_to_vector(runner.model.parameters()).detach().clone()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix == ".pth" and not path.is_symlink())
