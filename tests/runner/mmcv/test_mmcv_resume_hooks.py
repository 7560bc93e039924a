"""A run in MMCV's manner that is interrupted and resumed ends as one that was not, whatever its hooks remember."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from asynchooks import hooks as h
from asynchooks.checkpoint import restore
from asynchooks.execution import Effects, RunnerHook
from asynchooks.hooks import mmcv
from tests.runner.resuming import assert_equal

from .conftest import MakeRun, Numbers, loader

Case = Callable[[], list[Any]]

EPOCHS, ITERS = {"max_epochs": 5}, {"max_iters": 14}  # epochs of 3 iterations


class StopError(Exception):
    """What ends a run in the middle."""


class Interrupt(RunnerHook):
    """Ends the run before an iteration."""

    effects = Effects()
    changes_state = False
    priority = "HIGHEST"

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def before_train_iter(self, runner: Any) -> None:  # type: ignore[override]
        if runner.iter == self.iteration:
            raise StopError


class Scored(Numbers):
    """Whose evaluation depends on how often the model was trained, not on how often it was evaluated."""

    def evaluate(self, results: Any, logger: Any = None, **options: Any) -> dict[str, Any]:
        return {"acc": float(sum(float(result) for result in results))}


def stepped(*kinds: Callable[[], Any]) -> Case:
    return lambda: [mmcv.OptimizerHook(), *(kind() for kind in kinds)]


def evaluation(**options: Any) -> mmcv.EvalHook:
    data = DataLoader(Scored(4), batch_size=4)
    return mmcv.EvalHook(data, test_fn=_sum, save_best="acc", rule="less", **options)


def _sum(model: Any, data_loader: Any) -> list[float]:
    return [float(p.detach().sum()) for p in model.parameters()]


LOSS_SCALE = {"init_scale": 8.0, "growth_interval": 2}
CASES: dict[str, Case] = {
    "optimizer": lambda: [mmcv.OptimizerHook(grad_clip={"max_norm": 1.0})],
    "cumulative": lambda: [mmcv.GradientCumulativeOptimizerHook(cumulative_iters=3)],
    "fp16": lambda: [mmcv.Fp16OptimizerHook(dtype="bfloat16", loss_scale=LOSS_SCALE)],
    "cumulative_fp16": lambda: [
        mmcv.GradientCumulativeFp16OptimizerHook(3, dtype="bfloat16", loss_scale=LOSS_SCALE)
    ],
    "ema": stepped(lambda: mmcv.EMAHook(momentum=0.3, warm_up=4)),
    "mmdet_exp_ema": stepped(lambda: h.ExpMomentumEMAHook(total_iter=5, momentum=0.2, interval=2)),
    "mmdet_linear_ema": stepped(lambda: h.LinearMomentumEMAHook(warm_up=3, momentum=0.3)),
    "timer": stepped(mmcv.IterTimerHook, mmcv.SyncBuffersHook, mmcv.DistSamplerSeedHook),
    "profiler": stepped(lambda: mmcv.ProfilerHook(by_epoch=False, profile_iters=2)),
}
POLICIES: dict[str, dict[str, Any]] = {
    "FixedLr": {},
    "StepLr": {"step": [2, 4]},
    "ExpLr": {"gamma": 0.8},
    "PolyLr": {"power": 2.0, "min_lr": 0.01},
    "InvLr": {"gamma": 0.5},
    "CosineAnnealingLr": {"min_lr": 0.001},
    "FlatCosineAnnealingLr": {"min_lr_ratio": 0.1, "start_percent": 0.5},
    "CosineRestartLr": {"periods": [3, 20], "restart_weights": [1, 0.5], "min_lr": 0.0},
    "LinearAnnealingLr": {"min_lr": 0.0},
    "YOLOXLr": {"num_last_epochs": 1, "min_lr_ratio": 0.05},
    "StepMomentum": {"step": 2},
    "CosineAnnealingMomentum": {"min_momentum": 0.5},
    "LinearAnnealingMomentum": {"min_momentum_ratio": 0.5},
}
BY_ITER: dict[str, dict[str, Any]] = {
    "CyclicLr": {"cyclic_times": 2, "target_ratio": (2, 0.1)},
    "OneCycleLr": {"max_lr": 0.1},
    "CyclicMomentum": {"cyclic_times": 2},
    "OneCycleMomentum": {},
}
WARMUP = {"warmup": "linear", "warmup_iters": 10, "warmup_ratio": 0.9}


def policy(name: str, **options: Any) -> Case:
    kind = getattr(mmcv, f"{name}UpdaterHook")
    return stepped(lambda: kind(**options))


def policies(*, by_epoch: bool) -> dict[str, Case]:
    found = {name: policy(name, by_epoch=by_epoch, **options) for name, options in POLICIES.items()}
    for name in ("StepLr", "YOLOXLr", "StepMomentum"):
        found[f"{name}-warmup"] = policy(name, by_epoch=by_epoch, **WARMUP, **POLICIES[name])
    if not by_epoch:
        found |= {name: policy(name, **options) for name, options in BY_ITER.items()}
    return found


ALL = [
    *[pytest.param(EPOCHS, case, id=f"epochs-{name}") for name, case in CASES.items()],
    *[pytest.param(ITERS, case, id=f"iters-{name}") for name, case in CASES.items()],
    *[pytest.param(EPOCHS, case, id=f"epochs-{name}") for name, case in policies(by_epoch=True).items()],
    *[pytest.param(ITERS, case, id=f"iters-{name}") for name, case in policies(by_epoch=False).items()],
]


def end_of(runner: Any) -> dict[str, Any]:
    """Return what must not depend on an interruption."""
    hub = runner.message_hub
    saved, best = (restore(hub.get_info(name)) for name in ("last_ckpt", "best_ckpt"))
    return {
        "last": {name: value for name, value in saved.items() if name not in ("meta", "message_hub")},
        "fp16": saved["meta"].get("fp16"),
        "best": (Path(hub.get_info("best_ckpt")).name, hub.get_info("best_score"), best["state_dict"]),
        "counters": (runner.epoch, runner.iter),
        "weights": runner.model.state_dict(),
        "optimizer": runner.optimizer.state_dict(),
    }


@pytest.mark.parametrize(("limit", "case"), ALL)
def test_an_interrupted_run_ends_as_one_that_was_not(
    make_run: MakeRun, tmp_path: Path, limit: dict[str, int], case: Case
) -> None:
    def make(folder: str, *more: Any) -> Any:
        out_dir = f"memory:/{tmp_path}"
        evaluates = evaluation(by_epoch="max_epochs" in limit, interval=1, out_dir=out_dir)
        saves = mmcv.CheckpointHook(interval=2, by_epoch=False, out_dir=out_dir)
        return make_run(*case(), saves, evaluates, *more, trains=False, work_dir=tmp_path / folder, **limit)

    whole = make("whole")
    whole.run([loader(12, shuffle=True)])
    stopped = make("run", Interrupt(9))
    with pytest.raises(StopError):
        stopped.run([loader(12, shuffle=True)])
    again = make("run")
    torch.manual_seed(1)  # another process has another random state
    again.resume(stopped.message_hub.get_info("last_ckpt"))
    again.run([loader(12, shuffle=True)])

    assert_equal(end_of(whole), end_of(again))
