from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

from asynchooks.errors import ConfigError, UnknownNameError, UnknownOptionError
from asynchooks.optim import OptimWrapper, ParamScheduler, build_optim_wrapper, build_param_schedulers
from asynchooks.registry import OPTIMIZERS, PARAM_SCHEDULERS


@pytest.fixture
def model() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 1)


@pytest.fixture
def optimizer(model: nn.Linear) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9)


def losses(model: nn.Module, count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [model(torch.randn(2, 3, generator=generator)).square().mean() for _ in range(count)]


def rates(scheduler: Any, optimizer: torch.optim.Optimizer, steps: int) -> list[float]:
    seen = []
    for _ in range(steps):
        seen.append(round(optimizer.param_groups[0]["lr"], 6))
        scheduler.step()
    return seen


def test_every_torch_optimizer_and_scheduler_has_its_name() -> None:
    assert {"SGD", "Adam", "AdamW", "Adafactor", "LBFGS", "RMSprop"} <= set(OPTIMIZERS)
    assert {"StepLR", "OneCycleLR", "CosineAnnealingWarmRestarts", "PolyLR"} <= set(PARAM_SCHEDULERS)
    assert "Optimizer" not in OPTIMIZERS
    assert "LRScheduler" not in PARAM_SCHEDULERS


def test_accumulated_losses_make_the_step_of_their_mean(model: nn.Linear) -> None:
    twin = nn.Linear(3, 1)
    twin.load_state_dict(model.state_dict())
    wrapper = build_optim_wrapper(model, {"optimizer": {"type": "SGD", "lr": 0.1}, "accumulative_counts": 3})
    plain = build_optim_wrapper(twin, {"optimizer": {"type": "SGD", "lr": 0.1}})

    for loss in losses(model, 3):
        wrapper.update_params(loss)
    plain.update_params(torch.stack(losses(twin, 3)).mean())

    torch.testing.assert_close(model.weight, twin.weight)
    assert model.weight.grad is None


def test_the_last_shorter_group_of_a_run_makes_a_step_of_its_own_mean(model: nn.Linear) -> None:
    wrapper = build_optim_wrapper(model, {"optimizer": {"type": "SGD", "lr": 0.1}, "accumulative_counts": 4})
    wrapper.initialize_count_status(model, 0, 6)

    factors = []
    for loss in losses(model, 6):
        factors.append(round((loss / wrapper.scale_loss(loss)).item()))
        wrapper.update_params(loss.detach().requires_grad_())

    assert factors == [4, 4, 4, 4, 2, 2]
    assert not wrapper.is_accumulating


def test_clipping_bounds_the_step_and_keeps_the_norm_as_a_tensor(model: nn.Linear) -> None:
    wrapper = build_optim_wrapper(
        model, {"optimizer": {"type": "SGD", "lr": 1.0}, "clip_grad": {"max_norm": 0.01}}
    )
    before = model.weight.detach().clone()

    wrapper.update_params(losses(model, 1)[0] * 100)

    norm = wrapper.take_grad_norm()
    assert isinstance(norm, Tensor)
    assert norm > 0.01
    assert wrapper.take_grad_norm() is None
    assert (model.weight - before).norm() <= 0.0101


def test_clipping_by_value(model: nn.Linear) -> None:
    clip = {"type": "value", "clip_value": 0.001}
    wrapper = build_optim_wrapper(model, {"optimizer": {"type": "SGD", "lr": 1.0}, "clip_grad": clip})
    before = model.weight.detach().clone()

    wrapper.update_params(losses(model, 1)[0] * 100)

    assert (model.weight - before).abs().max() <= 0.0011
    assert wrapper.take_grad_norm() is None


def test_objects_are_taken_as_they_are(model: nn.Linear, optimizer: torch.optim.SGD) -> None:
    wrapper = OptimWrapper(optimizer)

    assert build_optim_wrapper(model, wrapper) is wrapper
    assert build_optim_wrapper(model, optimizer).optimizer is optimizer
    assert build_optim_wrapper(model, {"optimizer": optimizer}).optimizer is optimizer


@pytest.mark.parametrize(
    ("cfg", "error", "words"),
    [
        ({"type": "SGD", "lr": 0.1}, ConfigError, "needs the key 'optimizer'"),
        ({"optimizer": {"type": "SGDD", "lr": 0.1}}, UnknownNameError, "Did you mean 'SGD'"),
        ({"optimizer": {"type": "SGD", "lrr": 0.1}}, UnknownOptionError, "Did you mean 'lr'"),
        ({"type": "OptimizerWrapper", "optimizer": {"type": "SGD"}}, UnknownNameError, "'OptimWrapper'"),
        (
            {"optimizer": {"type": "SGD"}, "accumulative_count": 2},
            UnknownOptionError,
            "'accumulative_counts'",
        ),
        ({"optimizer": {"type": "SGD"}, "accumulative_counts": 0}, ConfigError, "at least 1"),
        ({"optimizer": {"type": "SGD"}, "clip_grad": {"max_nrm": 1}}, UnknownOptionError, "'max_norm'"),
        ({"optimizer": {"type": "SGD"}, "clip_grad": {"type": "sum"}}, ConfigError, "type='norm'"),
        ({"optimizer": {"type": "SGD"}, "clip_grad": 35}, ConfigError, "clip_grad is a dict"),
        ("SGD", ConfigError, "optim_wrapper is a dict"),
    ],
)
def test_wrong_optimizer_configs_name_the_right_form(
    model: nn.Linear, cfg: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        build_optim_wrapper(model, cfg)


def test_learning_rate_and_momentum_of_every_group(model: nn.Linear) -> None:
    wrapper = OptimWrapper(torch.optim.AdamW(model.parameters(), lr=0.5, betas=(0.8, 0.9)))

    assert wrapper.get_lr() == {"lr": [0.5]}
    assert wrapper.get_momentum() == {"momentum": [0.8]}


def test_a_scheduler_starts_with_its_first_value_and_steps(optimizer: torch.optim.SGD) -> None:
    (scheduler,) = build_param_schedulers(
        optimizer, {"type": "MultiStepLR", "milestones": [2, 3], "gamma": 0.1}
    )

    assert rates(scheduler, optimizer, 5) == [1.0, 1.0, 0.1, 0.01, 0.01]
    assert scheduler.by_epoch
    assert scheduler.last_step == 5


def test_a_range_begins_and_ends_where_it_says(optimizer: torch.optim.SGD) -> None:
    (scheduler,) = build_param_schedulers(
        optimizer, {"type": "ExponentialLR", "gamma": 0.5, "begin": 2, "end": 5, "by_epoch": False}
    )

    assert rates(scheduler, optimizer, 7) == [1.0, 1.0, 1.0, 0.5, 0.25, 0.25, 0.25]


def test_a_warmup_and_a_schedule_in_mmengines_arguments(optimizer: torch.optim.SGD) -> None:
    warmup, cosine = build_param_schedulers(
        optimizer,
        [
            {"type": "LinearLR", "start_factor": 0.1, "by_epoch": False, "begin": 0, "end": 4},
            {"type": "CosineAnnealingLR", "by_epoch": False, "begin": 4, "end": 8},
        ],
    )

    seen = []
    for _ in range(9):
        seen.append(round(optimizer.param_groups[0]["lr"], 4))
        warmup.step()
        cosine.step()

    assert seen == [0.1, 0.4, 0.7, 1.0, 1.0, 0.8536, 0.5, 0.1464, 0.1464]


def test_a_plateau_scheduler_follows_its_metric(optimizer: torch.optim.SGD) -> None:
    (scheduler,) = build_param_schedulers(
        optimizer,
        {"type": "ReduceOnPlateauLR", "monitor": "acc", "rule": "greater", "patience": 0, "factor": 0.5},
    )

    for accuracy in (0.5, 0.6, 0.6):
        scheduler.step({"acc": accuracy})

    assert scheduler.need_val_args
    assert optimizer.param_groups[0]["lr"] == 0.5
    with pytest.raises(ConfigError, match=r"follows the metric 'acc'.*'loss'"):
        scheduler.step({"loss": 1.0})


def test_built_schedulers_and_a_one_element_tuple_are_taken(optimizer: torch.optim.SGD) -> None:
    built = lr_scheduler.StepLR(optimizer, 1, gamma=0.5)

    (adopted,) = build_param_schedulers(optimizer, (built,))

    assert rates(adopted, optimizer, 3) == [1.0, 0.5, 0.25]
    other = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(ConfigError, match="schedules another optimizer"):
        build_param_schedulers(other, built)


def test_a_composed_scheduler_is_built_from_nested_dicts(optimizer: torch.optim.SGD) -> None:
    parts = [{"type": "ConstantLR", "factor": 0.5, "total_iters": 2}, {"type": "ExponentialLR", "gamma": 0.5}]
    (scheduler,) = build_param_schedulers(
        optimizer, {"type": "SequentialLR", "schedulers": parts, "milestones": [2]}
    )

    assert rates(scheduler, optimizer, 4) == [0.5, 0.5, 1.0, 0.5]


@pytest.mark.parametrize(
    "cfg",
    [
        {"type": "StepLR", "step_size": 2},
        {"type": "LambdaLR", "lr_lambda": lambda step: 0.9**step},
        {"type": "OneCycleLR", "max_lr": 2.0, "total_steps": 20},
        {"type": "CyclicLR", "base_lr": 0.1, "max_lr": 1.0, "step_size_up": 3},
        {"type": "CosineAnnealingWarmRestarts", "T_0": 3},
        {"type": "ExponentialLR", "gamma": 0.9, "begin": 3},
        {"type": "PolyLR", "power": 2.0, "end": 10},
    ],
)
def test_a_schedulers_state_is_plain_and_continues_exactly(
    model: nn.Linear, cfg: dict[str, Any], tmp_path: Any
) -> None:
    first = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9)
    (scheduler,) = build_param_schedulers(first, cfg)
    rates(scheduler, first, 5)
    torch.save([scheduler.state_dict(), first.state_dict()], tmp_path / "state.pth")

    second = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9)
    (resumed,) = build_param_schedulers(second, cfg)
    saved = torch.load(tmp_path / "state.pth", weights_only=True)
    second.load_state_dict(saved[1])
    resumed.load_state_dict(saved[0])

    assert rates(resumed, second, 8) == rates(scheduler, first, 8)


@pytest.mark.parametrize(
    ("cfg", "error", "words"),
    [
        ({"type": "MultiStepLR", "milestone": [1]}, UnknownOptionError, "Did you mean 'milestones'"),
        ({"type": "MultiStepLR", "milestones": [1], "by_epochs": True}, UnknownOptionError, "'by_epoch'"),
        ({"type": "MultiStep", "milestones": [1]}, UnknownNameError, "'MultiStepLR'"),
        ({"type": "MultiStepLR"}, ConfigError, "needs 'milestones'"),
        ({"type": "StepLR", "step_size": 1, "begin": 4, "end": 4}, ConfigError, "begin lies before its end"),
        ({"type": "StepLR", "step_size": 1, "begin": -1}, ConfigError, "begin is a step number"),
        ({"type": "OneCycleLR", "max_lr": 1.0, "begin": 5}, ValueError, "total_steps"),
        ("StepLR", ConfigError, "param_scheduler takes dicts"),
    ],
)
def test_wrong_scheduler_configs_are_refused_at_construction(
    optimizer: torch.optim.SGD, cfg: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        build_param_schedulers(optimizer, [cfg])


def test_a_foreign_state_is_refused(optimizer: torch.optim.SGD) -> None:
    (scheduler,) = build_param_schedulers(optimizer, {"type": "StepLR", "step_size": 1})
    assert isinstance(scheduler, ParamScheduler)

    with pytest.raises(ConfigError, match="no state of a ParamScheduler"):
        scheduler.load_state_dict({"last_epoch": 1})
