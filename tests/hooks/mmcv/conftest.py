"""Small runs of MMCV's runners, with hooks that write numbers to the log buffer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from asynchooks.execution import Effects, RunnerHook
from asynchooks.registry import MMCV_HOOKS
from asynchooks.runner import EpochBasedRunner, IterBasedRunner

Run = Callable[..., Any]


class Net(nn.Module):
    """A model whose loss is the number of the step."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.steps = 0

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self.layer(batch)  # type: ignore[no-any-return]

    def train_step(self, data: torch.Tensor, optimizer: Any, **options: Any) -> dict[str, Any]:
        self.steps += 1
        loss = self(data).sum() * 0 + self.steps
        return {"loss": loss, "log_vars": {"loss": loss.detach()}, "num_samples": len(data)}

    def val_step(self, data: torch.Tensor, optimizer: Any = None) -> dict[str, Any]:
        return {"log_vars": {"acc": torch.tensor(0.5)}, "num_samples": len(data)}


class Times(RunnerHook):
    """Stands where MMCV's timer stands, with times of its own."""

    priority = "LOW"
    effects = Effects()
    changes_state = False

    def after_train_iter(self, runner: Any) -> None:  # type: ignore[override]
        runner.log_buffer.update({"data_time": 0.25, "time": 2.0})


def loader(batches: int) -> DataLoader[Any]:
    return DataLoader([torch.ones(1)] * batches, batch_size=1)  # type: ignore[arg-type]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a training of epochs, or of iterations where ``max_iters`` is given, with hooks; return the runner.

    A hook is an object, a dict, or a pair of one and its priority.
    """

    def start(
        *hooks: Any,
        batches: int = 4,
        workflow: Any = (("train", 1),),
        runner: Any = None,
        times: bool = True,
        **changes: Any,
    ) -> Any:
        if runner is None:
            torch.manual_seed(0)
            model = Net()
            options = {
                "work_dir": tmp_path / "run",
                "meta": {"exp_name": "exp.py"},
                "max_epochs": 1,
                **changes,
            }
            options["optimizer"] = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
            if "max_iters" in options:
                options["max_epochs"] = None
            kind = IterBasedRunner if options["max_epochs"] is None else EpochBasedRunner
            runner = kind(model=model, **options)
            for hook in (*([Times()] if times else []), *hooks):
                each, priority = hook if isinstance(hook, tuple) else (hook, None)
                runner.register_hook(MMCV_HOOKS.build(each) if isinstance(each, dict) else each, priority)
        runner.run([loader(batches) for _ in workflow], list(workflow))
        runner.executor.close()
        return runner

    return start
