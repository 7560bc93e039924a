"""A run that is interrupted and resumed ends as one that was not, whatever a hook, wrapper or schedule remembers.

Each run is ended by an error in the middle; another runner goes on in its folder. Compared are the last checkpoints,
the best ones and where the training ended. Saves, validations and interruptions are at different iterations.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from asynchooks import hooks as h
from asynchooks.checkpoint import restore
from asynchooks.execution import Effects, Hook
from asynchooks.optim import OptimWrapper, OptimWrapperDict
from asynchooks.runner import Runner

from .conftest import Net, Noisy
from .resuming import assert_equal

Options = dict[str, Any]
Case = Callable[[], Options]

EPOCHS = {"by_epoch": True, "max_epochs": 4}  # of 5 iterations
ITERS = {"by_epoch": False, "max_iters": 14, "val_interval": 3}
SGD = {"type": "SGD", "lr": 0.1, "momentum": 0.9}


class StopError(Exception):
    """What ends a run in the middle."""


class Interrupt(Hook):
    """Ends the run before an iteration."""

    effects = Effects()
    changes_state = False

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if runner.iter == self.iteration:
            raise StopError


class Student(nn.Module):
    """What MeanTeacherHook and YOLOXModeSwitchHook need of a model."""

    def __init__(self) -> None:
        super().__init__()
        self.student, self.teacher, self.bbox_head = Net(), Net(), nn.Module()
        self.bbox_head.use_l1 = False  # type: ignore[assignment]

    def forward(self, batch: Any) -> Tensor:
        loss: Tensor = self.student(batch)
        return loss * 2 if self.bbox_head.use_l1 else loss


class Two(nn.Module):
    """Steps two optimizers, one of which sums gradients up."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = Net(), Net()

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, Tensor]:
        losses = {name: getattr(self, name)(data) for name in ("one", "other")}
        for name, loss in losses.items():
            optim_wrapper[name].update_params(loss)
        return {name: loss.detach() for name, loss in losses.items()}

    def forward(self, data: Any) -> Any:
        return self.one(data)


class Changing(Noisy):
    """Samples that depend on what hooks tell the data set."""

    scale, factor = 1, 1.0

    def __init__(self) -> None:
        super().__init__()
        self.pipeline: Callable[[Any], Any] = lambda sample: sample

    def update_skip_type_keys(self, keys: Any) -> None:
        self.factor = 0.5

    def update_dynamic_scale(self, size: tuple[int, int]) -> None:
        self.scale = size[0]

    def __getitem__(self, index: int) -> Any:
        inputs, target = super().__getitem__(index)
        return self.pipeline((inputs * self.factor + self.scale / 1000, target))


def negated(sample: Any) -> Any:
    return -sample[0], sample[1]


def changing(*hooks: Any, model: Callable[[], nn.Module] = Net) -> Options:
    return {
        "model": model(),
        "custom_hooks": list(hooks),
        "train_dataloader": DataLoader(Changing(), batch_size=4, shuffle=True),
    }


def random_size() -> Options:
    with pytest.warns(DeprecationWarning, match="resizes at random"):
        return changing(h.SyncRandomSizeHook(device="cpu"))


def two_optimizers() -> Options:
    model = Two()
    wrappers = {
        "one": OptimWrapper(torch.optim.SGD(model.one.parameters(), lr=0.1)),
        "other": OptimWrapper(torch.optim.Adam(model.other.parameters()), accumulative_counts=3),
    }
    schedule = {"type": "ExponentialLR", "gamma": 0.9, "by_epoch": False}
    return {"model": model, "optim_wrapper": OptimWrapperDict(**wrappers), "param_scheduler": schedule}


def hooked(*kinds: Callable[[], Any]) -> Case:
    return lambda: {"custom_hooks": [kind() for kind in kinds]}


def wrapped(**options: Any) -> Case:
    return lambda: {"optim_wrapper": {"optimizer": dict(SGD), **options}}


EMA = {
    "ema": {"momentum": 0.3},
    "ema_from_7": {"momentum": 0.3, "begin_iter": 7},
    "ema_buffers": {"momentum": 0.3, "update_buffers": True, "interval": 2},
    "swa": {"ema_type": "StochasticWeightAverage", "interval": 3},
    "annealing_ema": {"ema_type": "MomentumAnnealingEMA", "gamma": 3},
    "exp_ema": {"ema_type": "ExpMomentumEMA", "gamma": 5},
}
CASES: dict[str, Case] = {
    **{name: hooked(lambda options=options: h.EMAHook(**options)) for name, options in EMA.items()},  # type: ignore[misc]
    "mmdet_exp_ema": hooked(lambda: h.ExpMomentumEMAHook(total_iter=5, momentum=0.2)),
    "mmdet_linear_ema": hooked(lambda: h.LinearMomentumEMAHook(warm_up=3, momentum=0.3, interval=2)),
    "mean_teacher": lambda: {
        "model": Student(),
        "custom_hooks": [h.MeanTeacherHook(momentum=0.2, interval=2)],
    },
    "early_stopping": hooked(lambda: h.EarlyStoppingHook("loss", rule="greater", min_delta=0.01, patience=2)),
    "early_stopping_late": hooked(lambda: h.EarlyStoppingHook("loss", min_delta=0.0, patience=2)),
    "sync_buffers": hooked(h.SyncBuffersHook, h.SyncNormHook),
    "profiler": hooked(lambda: h.ProfilerHook(by_epoch=False, profile_times=2)),
    "accumulation": wrapped(accumulative_counts=3, clip_grad={"max_norm": 1.0}),
    "amp": wrapped(
        type="AmpOptimWrapper",
        dtype="bfloat16",
        accumulative_counts=3,
        loss_scale={"init_scale": 8.0, "growth_interval": 1},
    ),
    "two_optimizers": two_optimizers,
    "groups": lambda: {
        **wrapped(paramwise_cfg={"bias_lr_mult": 2.0})(),
        "param_scheduler": {"type": "CosineAnnealingLR", "by_epoch": False, "T_max": 14},
    },
}
BY_EPOCH: dict[str, Case] = {
    "yolox": lambda: changing(h.YOLOXModeSwitchHook(num_last_epochs=2), model=Student),
    "pipeline": lambda: changing(h.PipelineSwitchHook(1, [negated])),
    "random_size": random_size,
    "yolov5": hooked(lambda: h.YOLOv5ParamSchedulerHook(max_epochs=4, warmup_epochs=1, warmup_mim_iter=4)),
    "ppyoloe": hooked(lambda: h.PPYOLOEParamSchedulerHook(6, 0.1, 1, 0.1, 5)),
}
FAMILIES: dict[str, dict[str, Any]] = {
    "Constant": {"factor": 0.5, "end": 7},
    "CosineAnnealing": {"T_max": 9, "eta_min": 0.01},
    "CosineRestart": {"periods": [3, 6, 20], "restart_weights": [1, 0.5, 0.2], "eta_min": 0.0},
    "Exponential": {"gamma": 0.9, "begin": 2},
    "Linear": {"start_factor": 0.1, "end": 8},
    "MultiStep": {"milestones": [1, 3, 6]},
    "OneCycle": {"eta_max": 0.5, "total_steps": 20},
    "Poly": {"power": 2.0, "end": 12},
    "QuadraticWarmup": {"end": 6},
    "Step": {"step_size": 2, "gamma": 0.5},
}
TORCHS: dict[str, dict[str, Any]] = {
    "CyclicLR": {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 3},
    "CosineAnnealingWarmRestarts": {"T_0": 3},
    "SequentialLR": {
        "schedulers": [
            {"type": "ConstantLR", "factor": 0.1, "total_iters": 3},
            {"type": "ExponentialLR", "gamma": 0.8},
        ],
        "milestones": [3],
    },
}
ON_PLATEAU = {"type": "ReduceOnPlateauLR", "monitor": "loss", "rule": "greater", "factor": 0.5, "patience": 0}


def scheduled(*schedules: dict[str, Any], **shared: Any) -> Case:
    return lambda: {"param_scheduler": [{**shared, **schedule} for schedule in schedules]}


def schedules(*, by_epoch: bool) -> dict[str, Case]:
    """Families together, since what differs shows in the state of one, and torch's, which set the rate themselves."""
    of = {
        value: [{"type": f"{name}{value}", **options} for name, options in FAMILIES.items()]
        for value in ("LR", "Momentum")
    }
    momenta = [each for each in of["Momentum"] if not each["type"].startswith("OneCycle")]
    return {
        "families": scheduled(*of["LR"], *momenta, by_epoch=by_epoch),
        "plateau": scheduled(ON_PLATEAU),
        **{name: scheduled({"type": name, **options}, by_epoch=by_epoch) for name, options in TORCHS.items()},
    }


ALL = [
    pytest.param(limit, 3 if name in early else 9, case, id=f"{unit}-{name}")
    for unit, limit, early, cases in (
        ("epochs", EPOCHS, (), {**CASES, **BY_EPOCH, **schedules(by_epoch=True)}),
        # a validation whose best score had its step saved too, before the training is stopped
        ("iters", ITERS, ("early_stopping", "early_stopping_late"), {**CASES, **schedules(by_epoch=False)}),
    )
    for name, case in cases.items()
]


def make(folder: Path, train_cfg: Options, case: Case, *more: Hook, **changes: Any) -> Runner:
    torch.manual_seed(0)
    options: Options = {
        "model": Net(),
        "train_dataloader": DataLoader(Noisy(), batch_size=4, shuffle=True),
        "val_dataloader": DataLoader(Noisy(), batch_size=5),
        "train_cfg": train_cfg,
        "optim_wrapper": {"optimizer": dict(SGD)},
        "randomness": {"seed": 7},
        **case(),
        **changes,
    }
    saves = {
        "type": "CheckpointHook",
        "interval": 2,
        "by_epoch": False,
        "save_best": "loss",
        "rule": "less",
        "out_dir": f"memory:/{folder}",
    }
    options["default_hooks"] = {"checkpoint": saves, "logger": None, "timer": None}
    options["custom_hooks"] = [*options.get("custom_hooks", []), *more]
    return Runner(work_dir=folder, **options)


def end_of(runner: Runner) -> dict[str, Any]:
    """Return what must not depend on an interruption."""
    hub = runner.message_hub
    saved, best = (restore(hub.get_info(name)) for name in ("last_ckpt", "best_ckpt"))
    return {
        "last": {name: value for name, value in saved.items() if name not in ("meta", "message_hub")},
        "best": (Path(hub.get_info("best_ckpt")).name, hub.get_info("best_score"), best["state_dict"]),
        "counters": (runner.epoch, runner.iter),
        "weights": runner.model.state_dict(),
    }


@pytest.mark.parametrize(("train_cfg", "iteration", "case"), ALL)
def test_an_interrupted_run_ends_as_one_that_was_not(
    tmp_path: Path, train_cfg: Options, iteration: int, case: Case
) -> None:
    whole = make(tmp_path / "whole", train_cfg, case)
    whole.train()
    with pytest.raises(StopError):
        make(tmp_path / "run", train_cfg, case, Interrupt(iteration)).train()
    torch.manual_seed(1)  # another process has another random state
    resumed = make(tmp_path / "run", train_cfg, case, resume=True)
    resumed.train()

    assert_equal(end_of(whole), end_of(resumed))
