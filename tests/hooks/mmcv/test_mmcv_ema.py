"""MMCV's average of weights, in MMCV's runners."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from asynchooks.checkpoint import restore
from asynchooks.hooks.mmcv.checkpoint import CheckpointHook
from asynchooks.hooks.mmcv.ema import EMAHook
from asynchooks.hooks.mmcv.evaluation import EvalHook
from asynchooks.hooks.mmcv.optimizer import OptimizerHook
from asynchooks.runner import EpochBasedRunner, IterBasedRunner

Weights = dict[str, Tensor]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, batch: Tensor) -> Tensor:
        return self.layer(batch)  # type: ignore[no-any-return]

    def train_step(self, data: Tensor, optimizer: Any, **options: Any) -> dict[str, Any]:
        loss = (self(data) - 1).square().mean()
        return {"loss": loss, "log_vars": {"loss": loss.detach()}, "num_samples": len(data)}


class Numbers(Dataset[Tensor]):
    """Samples whose evaluation is a score of the model that ran."""

    def __init__(self) -> None:
        self.samples = torch.randn(8, 2, generator=torch.Generator().manual_seed(1))

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Tensor:
        return self.samples[index]

    def evaluate(self, results: Any, logger: Any = None, **options: Any) -> dict[str, Any]:
        return {"mean": float(torch.stack([r.reshape(()) for r in results]).mean())}


class Step(OptimizerHook):
    """Steps, and keeps the weights."""

    changes_state = True

    def __init__(self, steps: list[Weights]) -> None:
        super().__init__()
        self.steps = steps

    def after_train_iter(self, runner: Any) -> None:  # type: ignore[override]
        super().after_train_iter(runner)
        self.steps.append({name: p.detach().clone() for name, p in runner.model.named_parameters()})


def loader() -> DataLoader[Tensor]:
    return DataLoader(Numbers(), batch_size=2, shuffle=True)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Any]:
    def build(steps: list[Weights], *hooks: Any, by_epoch: bool) -> Any:
        torch.manual_seed(0)
        model = Net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
        kind: Any = EpochBasedRunner if by_epoch else IterBasedRunner
        length = {"max_epochs": 3} if by_epoch else {"max_iters": 12}
        runner = kind(model=model, optimizer=optimizer, work_dir=tmp_path / "run", **length)
        runner.register_hook(Step(steps), "ABOVE_NORMAL")
        for hook in hooks:
            runner.register_hook(hook, "LOW" if isinstance(hook, EvalHook) else None)
        torch.manual_seed(1)
        return runner

    return build


def averages_of(steps: list[Weights], momentum: float, warm_up: int) -> list[Weights]:
    torch.manual_seed(0)
    average = {name: p.detach().clone() for name, p in Net().named_parameters()}
    found = []
    for index, step in enumerate(steps):
        m = min(momentum, (1 + index) / (warm_up + index))
        average = {name: value.mul(1 - m).add(step[name], alpha=m) for name, value in average.items()}
        found.append(average)
    return found


@pytest.mark.parametrize("by_epoch", [True, False])
def test_evaluations_and_saves_are_the_averages_and_training_is_not(
    make: Callable[..., Any], tmp_path: Path, *, by_epoch: bool
) -> None:
    plain: list[Weights] = []
    make(plain, by_epoch=by_epoch).run([loader()], [("train", 1)])
    steps: list[Weights] = []
    results: list[float] = []

    class Evaluate(EvalHook):
        def evaluate(self, runner: Any, results_: Any) -> Any:
            results.append(runner.model.layer.bias.item())
            return super().evaluate(runner, results_)

    interval = 1 if by_epoch else 4
    hooks = [
        CheckpointHook(interval=interval, by_epoch=by_epoch, out_dir=str(tmp_path / "saved")),
        EMAHook(momentum=0.4, warm_up=5),
        Evaluate(loader(), interval=interval, by_epoch=by_epoch),
    ]
    make(steps, *hooks, by_epoch=by_epoch).run([loader()], [("train", 1)])

    for one, other in zip(steps, plain, strict=True):
        assert all(torch.equal(value, other[name]) for name, value in one.items())
    expected = averages_of(plain, 0.4, 5)
    assert results == pytest.approx([float(expected[i]["layer.bias"]) for i in (3, 7, 11)], abs=1e-6)
    paths = [path for path in sorted((tmp_path / "saved").rglob("*_?.pth")) if not path.is_symlink()]
    assert len(paths) >= 2
    for index, path in enumerate(paths):
        saved = restore(path)["state_dict"]
        torch.testing.assert_close(saved["layer.weight"], expected[4 * index + 3]["layer.weight"])
        assert torch.equal(saved["ema_layer_weight"], plain[4 * index + 3]["layer.weight"])


@pytest.mark.parametrize("by_hook", [False, True])
@pytest.mark.parametrize("by_epoch", [True, False])
def test_a_resumed_run_continues_bit_by_bit(
    make: Callable[..., Any], tmp_path: Path, *, by_epoch: bool, by_hook: bool
) -> None:
    interval = 1 if by_epoch else 4
    save = CheckpointHook(interval=interval, by_epoch=by_epoch, out_dir=str(tmp_path / "saved"))
    steps: list[Weights] = []
    whole = make(steps, save, EMAHook(momentum=0.4, warm_up=5), by_epoch=by_epoch)
    whole.run([loader()], [("train", 1)])
    (path,) = (tmp_path / "saved").rglob("epoch_2.pth" if by_epoch else "iter_8.pth")

    again: list[Weights] = []
    ema = EMAHook(momentum=0.4, warm_up=5, resume_from=str(path) if by_hook else None)
    resumed = make(again, ema, by_epoch=by_epoch)
    if not by_hook:
        resumed.resume(str(path))
    resumed.run([loader()], [("train", 1)])

    for one, other in zip(again, steps[8:], strict=True):
        assert all(torch.equal(value, other[name]) for name, value in one.items())
    state = whole.model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in resumed.model.state_dict().items())
