"""What the tests of resuming share: outcomes of runs, interruptions, loaders of all kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, RandomSampler, WeightedRandomSampler

from asynchooks.execution import Effects, Hook
from asynchooks.hooks import CheckpointHook
from asynchooks.runner import Runner
from asynchooks.runner._random import rng_state

from .conftest import MakeRunner, Noisy


class Lines(Hook):
    """Collects the log lines."""

    effects = Effects()
    priority = "BELOW_NORMAL"

    def __init__(self) -> None:
        self.lines: dict[int, str] = {}

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        tag, line = runner.log_processor.get_log_after_iter(runner, batch_idx, "train")
        self.lines[runner.iter] = f"{tag} {line}"


def outcome(runner: Runner) -> dict[str, Any]:
    """Return everything of a finished run that must not depend on an interruption."""
    return {
        "weights": runner.model.state_dict(),
        "optimizer": runner.optim_wrapper.state_dict(),
        "schedulers": [s.state_dict() for s in runner.param_schedulers],
        "scalars": {k: h.state_dict() for k, h in runner.message_hub.log_scalars.items()},
        "rng": rng_state(),
        "metrics": runner.metrics,
        "counters": (runner.epoch, runner.iter),
    }


def assert_equal(one: Any, other: Any, path: str = "") -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), path
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key, value in one.items():
            assert_equal(value, other[key], f"{path}/{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), path
        for index, value in enumerate(one):
            assert_equal(value, other[index], f"{path}/{index}")
    else:
        assert one == other, path


def check_every_interruption(make: MakeRunner, steps: list[int], tmp_path: Path, **options: Any) -> None:
    """Train once through, with a checkpoint after each iteration; resume from each and compare the ends."""
    out_dir = str(tmp_path / "saved")
    lines = Lines()
    through = make(
        custom_hooks=[lines, CheckpointHook(interval=1, by_epoch=False, out_dir=out_dir)],
        **{name: value() if callable(value) else value for name, value in options.items()},
    )
    through.train()
    expected = outcome(through)
    for step in steps:
        again = Lines()
        torch.manual_seed(step + 100)  # another process has another random state
        resumed = make(
            custom_hooks=[again],
            resume=f"{out_dir}/run/iter_{step}.pth",
            **{name: value() if callable(value) else value for name, value in options.items()},
        )
        resumed.train()

        assert_equal(expected, outcome(resumed), f"from iteration {step}")
        assert again.lines == {i: line for i, line in lines.lines.items() if i >= step}


def shuffled() -> DataLoader[Any]:
    return DataLoader(Noisy(), batch_size=4, shuffle=True)


def with_generator() -> DataLoader[Any]:
    return DataLoader(Noisy(), batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(5))


def with_replacement() -> DataLoader[Any]:
    return DataLoader(Noisy(), batch_size=4, sampler=RandomSampler(Noisy(), replacement=True))


def weighted() -> DataLoader[Any]:
    return DataLoader(Noisy(), batch_size=4, sampler=WeightedRandomSampler([1.0, 2.0] * 10, 20))


def from_dict() -> dict[str, Any]:
    return {"dataset": Noisy(), "batch_size": 4, "sampler": {"type": "DefaultSampler", "shuffle": True}}


def endless() -> dict[str, Any]:
    return {"dataset": Noisy(), "batch_size": 4, "sampler": {"type": "InfiniteSampler"}}


def unbatched() -> DataLoader[Any]:
    batches = [(torch.full((4, 4), float(i)), torch.tensor([0, 1, 0, 1])) for i in range(5)]
    return DataLoader(batches, batch_size=None, shuffle=True)  # type: ignore[arg-type]


def plain_list() -> list[Any]:
    return [(torch.full((4, 4), float(i)), torch.tensor([0, 1, 0, 1])) for i in range(5)]


LOADERS = [shuffled, with_generator, with_replacement, weighted, from_dict, unbatched, plain_list]


SCHEDULES: list[Any] = [
    {"type": "MultiStepLR", "milestones": [1], "gamma": 0.5},
    {"type": "OneCycleLR", "max_lr": 0.3, "total_steps": 40, "by_epoch": False},
    {"type": "ReduceLROnPlateau", "monitor": "loss", "patience": 0, "factor": 0.5},
    [
        {"type": "LinearLR", "start_factor": 0.1, "by_epoch": False, "begin": 0, "end": 4},
        {"type": "CosineAnnealingLR", "T_max": 6, "by_epoch": False, "begin": 4, "end": 10},
    ],
    {"type": "CyclicLR", "base_lr": 0.01, "max_lr": 0.1, "step_size_up": 3, "by_epoch": False},
]
