"""MMEngine's schedulers: what they act on, where they end, what they refuse. Values: tests/mmengine."""

from __future__ import annotations

import io
import logging
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from asynchooks.errors import ConfigError, UnknownNameError, UnknownOptionError
from asynchooks.optim import (
    LinearLR,
    MultiStepLR,
    OptimWrapper,
    ReduceOnPlateauLR,
    StepParamScheduler,
    build_param_schedulers,
)
from asynchooks.registry import PARAM_SCHEDULERS


def sgd(*rates: float | torch.Tensor) -> torch.optim.SGD:
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates or (1.0,)]
    return torch.optim.SGD(groups, lr=1.0, momentum=0.9)


def lrs(scheduler: Any, steps: int, *, group: int = 0) -> list[float]:
    seen = []
    for _ in range(steps):
        seen.append(round(float(scheduler.optimizer.param_groups[group]["lr"]), 6))
        scheduler.step()
    return seen


def refuse() -> int:
    raise AssertionError("nobody asked for the length of an epoch")


def test_classes_are_built_as_objects_too() -> None:
    scheduler = LinearLR(sgd(), 0.5, end=3)

    assert build_param_schedulers(scheduler.optimizer, [scheduler]) == [scheduler]
    assert lrs(scheduler, 4) == [0.5, 0.75, 1.0, 1.0]


def test_a_shared_name_means_torchs_class_where_an_option_is_torchs_alone() -> None:
    for cfg, inner in (
        ({"type": "LinearLR", "start_factor": 0.5, "total_iters": 2}, lr_scheduler.LinearLR),
        ({"type": "OneCycleLR", "max_lr": 1.0, "total_steps": 9}, lr_scheduler.OneCycleLR),
        ({"type": "PolyLR", "total_iters": 4}, lr_scheduler.PolynomialLR),
        ({"type": lr_scheduler.StepLR, "step_size": 2}, lr_scheduler.StepLR),
    ):
        (scheduler,) = build_param_schedulers(sgd(), cfg)
        assert isinstance(scheduler._scheduler, inner)
        assert scheduler._scheduler.optimizer is scheduler.optimizer

    (scheduler,) = build_param_schedulers(sgd(), {"type": "LinearLR", "start_factor": 0.5})
    assert isinstance(scheduler, LinearLR)


def test_a_class_of_ones_own_under_a_shared_name_wins() -> None:
    class StepLR(MultiStepLR):
        """Not MMEngine's."""

    PARAM_SCHEDULERS.register_module("OwnStepLR", module=StepLR)
    (scheduler,) = build_param_schedulers(sgd(), {"type": "OwnStepLR", "milestones": [1], "gamma": 0.5})

    assert isinstance(scheduler, StepLR)
    assert lrs(scheduler, 3) == [1.0, 0.5, 0.5]


def test_adams_momentum_is_its_first_beta() -> None:
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], betas=(0.8, 0.99))
    (scheduler,) = build_param_schedulers(optimizer, {"type": "StepMomentum", "step_size": 1, "gamma": 0.5})
    scheduler.step()

    assert optimizer.param_groups[0]["betas"] == (0.4, 0.99)
    assert "momentum" not in optimizer.param_groups[0]
    assert OptimWrapper(optimizer).get_momentum() == {"momentum": [0.4]}
    assert scheduler.get_last_value() == [0.4]


def test_any_value_of_the_groups_can_be_scheduled() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0, weight_decay=0.1)
    scheduler = StepParamScheduler(optimizer, "weight_decay", step_size=1, gamma=0.5)
    scheduler.step()

    assert optimizer.param_groups[0]["weight_decay"] == 0.05
    assert optimizer.param_groups[0]["lr"] == 1.0
    with pytest.raises(ConfigError, match="have no 'weight_decai' to schedule"):
        StepParamScheduler(optimizer, "weight_decai", step_size=1)


def test_a_learning_rate_that_is_a_tensor_stays_the_same_tensor() -> None:
    rate = torch.tensor(1.0)
    scheduler = LinearLR(sgd(rate), start_factor=0.5, end=3)

    assert scheduler.optimizer.param_groups[0]["lr"] is rate
    assert lrs(scheduler, 3) == [0.5, 0.75, 1.0]


def test_the_optimizers_step_stays_its_own() -> None:
    optimizer = sgd()
    LinearLR(optimizer, end=3).step()

    assert "step" not in vars(optimizer)


def test_a_quadratic_warmup_reaches_the_first_value() -> None:
    (scheduler,) = build_param_schedulers(
        sgd(0.1, 0.4), {"type": "mmdet.QuadraticWarmupLR", "end": 4, "by_epoch": False}
    )

    assert lrs(scheduler, 5, group=1) == [0.025, 0.1, 0.225, 0.4, 0.4]


def test_a_schedule_without_an_end_ends_with_the_run_where_its_values_depend_on_it() -> None:
    lengths = {True: 4, False: 40}
    cfgs = [
        {"type": "LinearLR", "start_factor": 0.25},
        {"type": "PolyLR", "by_epoch": False},
        {"type": "CosineAnnealingLR", "begin": 2},
        {"type": "CosineAnnealingLR", "T_max": 3},
        {"type": "OneCycleLR", "eta_max": 1.0},
        {"type": "StepLR", "step_size": 1},
        {"type": "LinearLR", "end": 7},
    ]
    built = build_param_schedulers(sgd(), cfgs, max_steps=lengths.__getitem__)

    assert [scheduler.end for scheduler in built] == [4, 40, 4, 10**9, 4, 10**9, 7]


def test_the_length_of_an_epoch_is_asked_for_only_where_it_is_needed() -> None:
    cfg = {"type": "MultiStepLR", "milestones": [1, 2], "gamma": 0.5}
    (plain,) = build_param_schedulers(sgd(), cfg, epoch_length=refuse, max_steps=lambda _: refuse())
    (converted,) = build_param_schedulers(
        sgd(), {**cfg, "convert_to_iter_based": True}, epoch_length=lambda: 2
    )

    assert plain.by_epoch
    assert not converted.by_epoch
    assert lrs(converted, 6) == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]


@pytest.mark.parametrize(
    "cfg",
    [
        {"type": "LinearLR", "start_factor": 0.25, "end": 3, "convert_to_iter_based": True},
        {"type": "CosineAnnealingLR", "T_max": 2, "begin": 2, "convert_to_iter_based": True},
        {"type": "MultiStepLR", "milestones": [2, 3], "gamma": 0.5, "convert_to_iter_based": True},
        {"type": "OneCycleLR", "eta_max": 2.0, "by_epoch": False},
    ],
    ids=lambda cfg: cfg["type"],
)
@pytest.mark.parametrize(("before", "after"), [(6, 3), (3, 6), (4, 6)])
@pytest.mark.parametrize("done", [1, 7])
def test_an_epoch_of_a_schedule_takes_an_epoch_when_those_of_the_run_become_longer_or_shorter(
    cfg: dict[str, Any], before: int, after: int, done: int
) -> None:
    """Each iteration has the value of the last step that is due, of those of a run without a change."""

    def schedule(length: int, goes_on_from: Any = None) -> Any:
        steps = {True: 4, False: 4 * length}
        (made,) = build_param_schedulers(sgd(), cfg, epoch_length=lambda: length, max_steps=steps.__getitem__)
        if goes_on_from is not None:
            made.optimizer.load_state_dict(goes_on_from.optimizer.state_dict())
            made.load_state_dict(goes_on_from.state_dict())
        return made

    whole = lrs(schedule(before), 4 * before)
    lrs(first := schedule(before), done)
    came = lrs(second := schedule(after, first), 2)
    came += lrs(schedule(after, second), (4 * before - done) * after // before - 2)

    assert came == [whole[done + i * before // after] for i in range(len(came))]


def test_several_optimizers_have_lists_of_their_own() -> None:
    several = {"g": OptimWrapper(sgd(1.0)), "d": OptimWrapper(sgd(2.0))}
    step = {"type": "StepLR", "step_size": 1, "gamma": 0.5}
    each = build_param_schedulers(several, {"g": [step, step], "d": step})
    same = build_param_schedulers(several, [step])

    assert {name: len(schedulers) for name, schedulers in each.items()} == {"g": 2, "d": 1}
    assert {name: len(schedulers) for name, schedulers in same.items()} == {"g": 1, "d": 1}
    assert same["d"][0].base_values == [2.0]
    assert build_param_schedulers(several, {"g": step}).keys() == {"g", "d"}
    with pytest.raises(UnknownNameError, match="no optimizer is called 'gg'"):
        build_param_schedulers(several, {"gg": step})


def test_a_state_is_a_copy_of_plain_values() -> None:
    (scheduler,) = build_param_schedulers(sgd(), {"type": "MultiStepLR", "milestones": [2]})
    state = scheduler.state_dict()
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)

    assert state["base_values"] is not scheduler.base_values
    assert state["scheduler"]["base_lrs"] is not scheduler._scheduler.base_lrs
    assert torch.load(file, weights_only=True) == state
    scheduler.load_state_dict(state)
    assert state["scheduler"]["base_lrs"] is not scheduler._scheduler.base_lrs
    assert state["base_values"] is not scheduler.base_values


def test_a_state_from_before_there_were_base_values_loads() -> None:
    (scheduler,) = build_param_schedulers(sgd(), {"type": "StepLR", "step_size": 2, "begin": 1})
    lrs(scheduler, 3)
    state = {k: v for k, v in scheduler.state_dict().items() if k in ("global_step", "scheduler")}
    (other,) = build_param_schedulers(sgd(), {"type": "StepLR", "step_size": 2, "begin": 1})
    other.load_state_dict(state)

    assert other.last_step == scheduler.last_step == 2
    assert other.state_dict() == scheduler.state_dict()


def test_a_resumed_schedule_that_has_not_begun_starts_from_the_saved_runs_values() -> None:
    cfg = {"type": "CosineRestartLR", "periods": [4], "eta_min": 0, "begin": 1}
    (saved,) = build_param_schedulers(sgd(0.5), cfg)
    (resumed,) = build_param_schedulers(sgd(3.0), cfg)
    resumed.optimizer.load_state_dict(saved.optimizer.state_dict())
    resumed.load_state_dict(saved.state_dict())

    assert resumed.base_values == [0.5]
    assert lrs(resumed, 4) == lrs(saved, 4)


def test_what_changes_is_logged_where_asked(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="asynchooks"):
        LinearLR(sgd(), 0.5, end=3)
        assert not caplog.messages
        LinearLR(sgd(), 0.5, end=3, verbose=True)

    assert caplog.messages == ["lr of parameter group 0 is now 5.0000e-01"]


def test_a_plateau_counts_epochs_without_metrics() -> None:
    scheduler = ReduceOnPlateauLR(sgd(), patience=0, factor=0.5, begin=1, end=3)
    for _ in range(4):
        scheduler.step({"loss": 1.0})
        scheduler.count_epoch()

    assert scheduler.need_val_args
    assert scheduler.optimizer.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize(
    ("cfg", "error", "words"),
    [
        ({"type": "StepLR", "step_size": 0}, ConfigError, "step_size is a positive int, not 0"),
        ({"type": "MultiStepLR", "milestones": 3}, ConfigError, "milestones is a list of ints, not 3"),
        ({"type": "LinearLR", "start_factors": 0.1}, UnknownOptionError, "Did you mean 'start_factor'"),
        ({"type": "LinearLR", "start_factor": 2}, ValueError, "greater than 0 and less or equal to 1"),
        ({"type": "ConstantLR", "factor": 0, "end": 5}, ConfigError, "no way back"),
        ({"type": "QuadraticWarmupLR"}, ConfigError, "needs the end of the warmup"),
        ({"type": "CosineRestartLR", "periods": [3]}, ConfigError, "eta_min or to eta_min_ratio"),
        (
            {"type": "CosineRestartLR", "periods": [3, 4], "eta_min": 0},
            ConfigError,
            r"periods=\[3, 4\], restart_weights=\(1,\)",
        ),
        (
            {"type": "CosineAnnealingLR", "eta_min": 0.1, "eta_min_ratio": 0.1},
            ConfigError,
            "eta_min_ratio, one of them",
        ),
        ({"type": "OneCycleLR", "total_steps": 10}, ConfigError, "needs 'eta_max'"),
        ({"type": "OneCycleLR", "eta_max": [1, 2], "total_steps": 10}, ConfigError, "1 parameter groups"),
        (
            {"type": "OneCycleParamScheduler", "param_name": "momentum", "eta_max": 1, "total_steps": 10},
            ConfigError,
            "schedules 'lr' alone",
        ),
        ({"type": "ReduceOnPlateauLR", "by_epoch": False}, ConfigError, "by_epoch=True"),
        ({"type": "ReduceOnPlateauLR", "rule": "min"}, ConfigError, "rule is 'less' or 'greater'"),
        (
            {"type": "ReduceOnPlateauLR", "convert_to_iter_based": True},
            ConfigError,
            "convert_to_iter_based does not go with it",
        ),
        (
            {"type": "StepLR", "step_size": 1, "by_epoch": False, "convert_to_iter_based": True},
            ConfigError,
            "by_epoch=False counts iterations",
        ),
        (
            {"type": "CyclicLR", "base_lr": 0.1, "max_lr": 1, "convert_to_iter_based": True},
            ConfigError,
            "goes with MMEngine's schedulers",
        ),
        ({"type": "StepLR", "step_size": 1, "last_step": -2}, ConfigError, "last_step is an int from -1"),
        ({"type": "StepLR", "step_size": 1, "last_step": 3}, KeyError, "needs 'initial_lr'"),
    ],
)
def test_wrong_arguments_are_refused_at_construction(
    cfg: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        build_param_schedulers(sgd(), cfg, epoch_length=lambda: 2)


def test_conversion_needs_the_length_of_an_epoch() -> None:
    cfg = {"type": "StepLR", "step_size": 1, "convert_to_iter_based": True}
    with pytest.raises(ConfigError, match="needs the number of iterations per epoch"):
        build_param_schedulers(sgd(), cfg)


def test_what_cannot_be_scheduled_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="schedules a torch optimizer's groups"):
        LinearLR([1.0])
    with pytest.raises(ConfigError, match="neither momentum nor betas"):
        build_param_schedulers(
            torch.optim.Adagrad([nn.Parameter(torch.zeros(1))]), {"type": "StepMomentum", "step_size": 1}
        )
