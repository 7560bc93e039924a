"""What averaged models do beside the numbers, which are compared with MMEngine's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from asynchooks.errors import ConfigError, UnknownOptionError
from asynchooks.optim import (
    BaseAveragedModel,
    ExpMomentumEMA,
    ExponentialMovingAverage,
    MomentumAnnealingEMA,
    ShadowWeights,
    StochasticWeightAverage,
    check_averaged_model,
)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2, bias=False)
        self.second = nn.Linear(2, 2, bias=False)
        self.second.weight = self.first.weight

    def forward(self, inputs: Tensor) -> Tensor:
        return self.second(self.first(inputs))  # type: ignore[no-any-return]


def shift(model: nn.Module, by: float) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(by)


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types there
    """Notes every operation on tensors."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found.append(func)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "make",
    [
        lambda model: StochasticWeightAverage(model),
        lambda model: ExponentialMovingAverage(model),
        lambda model: MomentumAnnealingEMA(model),
        lambda model: ExpMomentumEMA(model),
    ],
)
def test_an_update_reads_nothing_from_the_device_and_takes_all_tensors_at_once(make: Any) -> None:
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(10)))
    average = make(model)
    average.update_parameters(model)

    with Operations() as seen:
        average.update_parameters(model)

    changes = [op for op in seen.found if op is not torch.ops.aten.detach.default]
    assert torch.ops.aten._local_scalar_dense.default not in changes
    assert len(changes) <= 4, changes


def test_an_average_in_the_model_reads_nothing_from_the_device_either() -> None:
    shadow = ShadowWeights(nn.Sequential(*(nn.Linear(2, 2) for _ in range(10))), with_buffers=True)

    with Operations() as seen:
        shadow.update(0.1)

    changes = [op for op in seen.found if op is not torch.ops.aten.detach.default]
    assert torch.ops.aten._local_scalar_dense.default not in changes
    assert len(changes) == 2, changes


@pytest.mark.parametrize("update_buffers", [False, True])
def test_tied_weights_are_averaged_and_exchanged_once(*, update_buffers: bool) -> None:
    model = Tied()
    average = ExponentialMovingAverage(model, momentum=0.25, update_buffers=update_buffers)
    start = model.first.weight.detach().clone()
    average.update_parameters(model)
    shift(model, 1.0)
    average.update_parameters(model)
    module: Any = average.module

    torch.testing.assert_close(module.first.weight, start + 0.25)
    assert module.first.weight is module.second.weight
    average.swap_with(model)
    torch.testing.assert_close(model.first.weight, start + 0.25)
    average.swap_with(model)
    torch.testing.assert_close(model.first.weight, start + 1.0)


def test_the_average_runs_as_a_model_of_its_own() -> None:
    model = Tied()
    average = ExponentialMovingAverage(model)
    inputs = torch.randn(3, 2)
    expected = model(inputs)

    shift(model, 1.0)

    torch.testing.assert_close(average(inputs), expected)
    assert not any(p.requires_grad for p in average.module.parameters())


def test_a_subclass_that_changes_the_formula_of_one_tensor_is_followed() -> None:
    class Sum(ExponentialMovingAverage):
        def avg_func(self, averaged_param: Tensor, source_param: Tensor, steps: int) -> None:
            averaged_param.add_(source_param)

    model = nn.Linear(1, 1)
    average = Sum(model)
    for _ in range(3):
        average.update_parameters(model)

    torch.testing.assert_close(average.module.weight, 3 * model.weight)


def test_a_subclass_without_a_formula_says_so() -> None:
    model = nn.Linear(1, 1)
    average = BaseAveragedModel(model)
    average.update_parameters(model)

    with pytest.raises(NotImplementedError, match="defines no avg_func"):
        average.update_parameters(model)


def test_weights_that_are_no_floating_point_numbers_stay_as_they_were_first() -> None:
    model = nn.BatchNorm1d(2)
    average = StochasticWeightAverage(model, update_buffers=True)
    for _ in range(3):
        model(torch.randn(4, 2))
        average.update_parameters(model)

    assert average.module.num_batches_tracked == 1


def test_a_large_momentum_is_worth_a_warning_when_averaging_begins(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Linear(1, 1)
    average = ExponentialMovingAverage(model, momentum=0.9)
    assert not caplog.text

    for _ in range(2):
        average.update_parameters(model)

    assert caplog.text.count("momentum=0.9 is the weight of each new value") == 1


def test_the_momentum_falls() -> None:
    model = nn.Linear(1, 1)
    annealing = MomentumAnnealingEMA(model, momentum=0.1, gamma=3)
    exponential = ExpMomentumEMA(model, momentum=0.1, gamma=3)

    assert [annealing.momentum_at(steps) for steps in (0, 3, 100)] == [1.0, 0.5, 0.1]
    assert exponential.momentum_at(0) == pytest.approx(0.9 * 0.7165 + 0.1, abs=1e-4)
    assert exponential.momentum_at(1000) == pytest.approx(0.1)


def test_other_structures_are_not_averaged() -> None:
    average = ExponentialMovingAverage(nn.Linear(2, 2))

    with pytest.raises(ValueError, match="zip"):
        average.update_parameters(nn.Linear(2, 2, bias=False))


def test_a_configuration_is_checked_without_a_model() -> None:
    check_averaged_model({"type": "ExpMomentumEMA", "momentum": 0.1, "gamma": 3, "device": "cuda"})

    with pytest.raises(ConfigError, match="momentum lies between 0 and 1"):
        check_averaged_model({"type": "ExpMomentumEMA", "momentum": 0})
    with pytest.raises(UnknownOptionError, match="Did you mean 'interval'"):
        check_averaged_model({"type": "StochasticWeightAverage", "intervall": 1})
