"""YOLOv5's and PPYOLOE's schedules, in a run of our Runner, against their forms."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from asynchooks.errors import ConfigError, UnknownOptionError
from asynchooks.execution import Effects, Hook
from asynchooks.hooks import PPYOLOEParamSchedulerHook, YOLOv5ParamSchedulerHook
from asynchooks.optim import OptimWrapper
from asynchooks.runner import Runner, TrainState

EPOCHS, PER_EPOCH = 4, 3
BASES = [0.1, 0.05, 0.02]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ParameterList(nn.Parameter(torch.ones(1)) for _ in BASES)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return batch.mean() * torch.cat(list(self.parts)).square().sum()


class Groups(Hook):
    """Writes down what each iteration runs with."""

    effects = Effects()

    def __init__(self) -> None:
        self.seen: list[list[dict[str, Any]]] = []

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        groups = runner.optim_wrapper.optimizer.param_groups
        self.seen.append([{k: v for k, v in group.items() if k != "params"} for group in groups])


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., list[list[dict[str, Any]]]]:
    """Train with a hook in the place of ParamSchedulerHook; return the groups of every iteration."""

    def run(hook: dict[str, Any], **options: Any) -> list[list[dict[str, Any]]]:
        model, groups = Net(), Groups()
        parameters = [{"params": [p], "lr": rate} for p, rate in zip(model.parts, BASES, strict=True)]
        runner = Runner(
            model=model,
            work_dir=tmp_path,
            train_dataloader=DataLoader(torch.ones(6, 1), batch_size=2),  # type: ignore[arg-type]
            train_cfg={"max_epochs": EPOCHS},
            optim_wrapper=torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
            default_hooks={"param_scheduler": hook, "checkpoint": None, "logger": None},
            custom_hooks=[groups],
            **options,
        )
        runner.train()
        return groups.seen

    return run


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_yolov5_warms_up_and_decays_by_epoch(train: Any, kind: str) -> None:
    hook = {
        "type": "YOLOv5ParamSchedulerHook",
        "scheduler_type": kind,
        "max_epochs": EPOCHS,
        "lr_factor": 0.1,
    }
    seen = train({**hook, "warmup_epochs": 1, "warmup_mim_iter": 0})

    def factor(epoch: int) -> float:
        part = epoch / EPOCHS
        return 1 - 0.9 * (part if kind == "linear" else (1 - math.cos(math.pi * part)) / 2)

    for index, base in enumerate(BASES):
        start = 0.1 if index == 2 else 0.0
        warm = [start + (base * factor(i // PER_EPOCH) - start) * i / 3 for i in range(4)]
        # the rest of the epoch in which the warmup ends keeps its last value; an epoch has its predecessor's rate
        rest = [base * factor(max(1, i // PER_EPOCH - 1)) for i in range(4, EPOCHS * PER_EPOCH)]
        assert [groups[index]["lr"] for groups in seen] == pytest.approx(warm + rest)
        assert [groups[index]["momentum"] for groups in seen] == pytest.approx(
            [0.8 + 0.1 * min(i / 3, 1) for i in range(EPOCHS * PER_EPOCH)]
        )


def test_ppyoloe_warms_up_and_follows_a_cosine_by_iteration(train: Any) -> None:
    hook = {
        "type": "PPYOLOEParamSchedulerHook",
        "warmup_epochs": 0,
        "warmup_min_iter": 4,
        "min_lr_ratio": 0.1,
    }
    seen = train({**hook, "start_factor": 0.2, "total_epochs": 5})

    for index, base in enumerate(BASES):
        warm = [base * (0.2 + 0.8 * i / 4) for i in range(5)]
        cosine = [
            base * (0.55 + 0.45 * math.cos(math.pi * (i - 4) / 11)) for i in range(5, EPOCHS * PER_EPOCH)
        ]
        assert [groups[index]["lr"] for groups in seen] == pytest.approx(warm + cosine)


@pytest.mark.parametrize("kind", ["YOLOv5ParamSchedulerHook", "PPYOLOEParamSchedulerHook"])
def test_values_are_plain_floats_which_a_safe_checkpoint_holds(train: Any, kind: str) -> None:
    seen = train({"type": kind, "warmup_epochs": 1})

    assert {type(group[name]) for groups in seen for group in groups for name in ("lr", "momentum")} == {
        float
    }


@pytest.mark.parametrize("kind", ["YOLOv5ParamSchedulerHook", "PPYOLOEParamSchedulerHook"])
def test_a_scheduler_beside_them_is_refused(train: Any, kind: str) -> None:
    with pytest.raises(ConfigError, match=f"{kind} sets the learning rate itself"):
        train({"type": kind}, param_scheduler={"type": "StepLR", "step_size": 1})


def test_a_run_that_resumes_at_the_end_of_an_epoch_after_the_warmup_sets_the_rate() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    wrapper = OptimWrapper(optimizer)
    state = TrainState(
        model=nn.Linear(1, 1), optim_wrapper=wrapper, train_dataloader=range(3), work_dir="run"
    )
    state._epoch, state._iter = 2, 9
    hook = YOLOv5ParamSchedulerHook(max_epochs=4, lr_factor=0.5, warmup_epochs=1, warmup_mim_iter=0)
    hook.before_train(state)
    hook.after_train_epoch(state)

    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.075)


def test_a_cosine_that_is_over_before_the_warmup_is_at_its_end() -> None:
    hook = PPYOLOEParamSchedulerHook(warmup_min_iter=2, warmup_epochs=0, total_epochs=1, min_lr_ratio=0.5)

    assert hook._rate(1.0, 3, warmup=2, total=2) == 0.5


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"scheduler_type": "poly"}, ConfigError, r"one of \['linear', 'cosine'\], not 'poly'"),
        ({"max_epochs": 0}, ConfigError, "max_epochs=0"),
        ({"warmup_min_iter": 5}, UnknownOptionError, "'warmup_mim_iter'"),
    ],
)
def test_wrong_arguments_are_refused_at_construction(
    train: Any, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        train({"type": "YOLOv5ParamSchedulerHook", **options})


def test_they_come_before_everything_that_reads_the_rate() -> None:
    assert YOLOv5ParamSchedulerHook.priority == PPYOLOEParamSchedulerHook.priority == 9
