"""MMCV's runners on ranks: a stop is agreed, and a configuration says that it is for one process."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from asynchooks import Hook
from asynchooks.errors import ConfigError
from asynchooks.runner import EpochBasedRunner, IterBasedRunner
from asynchooks.runner.mmcv import ConfiguredRun
from asynchooks.testing import run_ranks

pytestmark = pytest.mark.ranks


class Wrapped(nn.Module):
    """A model of MMCV's form around torch's `DistributedDataParallel`."""

    def __init__(self) -> None:
        super().__init__()
        self.module = nn.parallel.DistributedDataParallel(nn.Linear(2, 1))

    def train_step(self, batch: torch.Tensor, optimizer: Any, **_: Any) -> dict[str, Any]:
        loss = self.module(batch).mean()
        return {"loss": loss, "log_vars": {"loss": loss.item()}, "num_samples": len(batch)}


class Stops(Hook):
    """Stops the training on the second rank alone, at its third iteration."""

    def after_train_iter(
        self, runner: Any, batch_idx: int = 0, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if runner.iter == 2 and torch.distributed.get_rank() == 1:
            runner.stop_training = True


def trains(rank: int, folder: str, by_epoch: bool) -> int:
    model = Wrapped()
    kind: Any = EpochBasedRunner if by_epoch else IterBasedRunner
    length = {"max_epochs": 5} if by_epoch else {"max_iters": 20}
    runner = kind(model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1), work_dir=folder, **length)
    runner.register_training_hooks(None, optimizer_config={})
    runner.register_hook(Stops())
    runner.run([[torch.ones(2, 2)] * 4])
    done: int = runner.iter
    return done


@pytest.mark.parametrize(("by_epoch", "done"), [(True, 4), (False, 5)])
def test_a_stop_on_one_rank_ends_all_at_the_same_iteration(tmp_path: Path, by_epoch: bool, done: int) -> None:
    assert run_ranks(2, trains, str(tmp_path), by_epoch, timeout_s=60) == [done, done]


def test_a_configuration_is_refused_under_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")

    with pytest.raises(ConfigError, match=r"2 ranks would each train a model of their own.*without torchrun"):
        ConfiguredRun(
            {
                "model": {"type": "Net"},
                "data": {"train": []},
                "runner": {"type": "EpochBasedRunner"},
                "work_dir": "run",
            }
        )
