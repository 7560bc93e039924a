"""Averaged models beside MMEngine's (and MMDetection's formula): the same bits after every step."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from asynchooks.registry import MODELS

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MMEngine's own, on import
    import mmengine.model


class ExpMomentumEMA(mmengine.model.ExponentialMovingAverage):  # type: ignore[misc]
    """MMDetection's, by its formula."""

    gamma = 20

    def avg_func(self, averaged_param: Tensor, source_param: Tensor, steps: int) -> None:
        momentum = (1 - self.momentum) * math.exp(-float(1 + steps) / self.gamma) + self.momentum
        averaged_param.mul_(1 - momentum).add_(source_param, alpha=momentum)


THEIRS = {
    "ExponentialMovingAverage": mmengine.model.ExponentialMovingAverage,
    "StochasticWeightAverage": mmengine.model.StochasticWeightAverage,
    "MomentumAnnealingEMA": mmengine.model.MomentumAnnealingEMA,
    "ExpMomentumEMA": ExpMomentumEMA,
}


def model() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 2).double().float())


def train(net: nn.Module) -> None:
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter))
    net(torch.randn(4, 3))


@pytest.mark.parametrize("interval", [1, 3])
@pytest.mark.parametrize("update_buffers", [False, True])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("ExponentialMovingAverage", {"momentum": 0.03}),
        ("StochasticWeightAverage", {}),
        ("MomentumAnnealingEMA", {"momentum": 0.2, "gamma": 3}),
        ("ExpMomentumEMA", {"momentum": 0.01, "gamma": 20}),
    ],
)
def test_every_step_is_mmengines(
    kind: str, options: dict[str, Any], update_buffers: bool, interval: int
) -> None:
    net = model()
    common = {"interval": interval, "update_buffers": update_buffers}
    given = {k: v for k, v in options.items() if k != "gamma" or kind != "ExpMomentumEMA"}
    theirs = THEIRS[kind](net, **given, **common)
    ours = MODELS.build({"type": kind, **options, **common}, model=net)

    for step in range(9):
        train(net)
        theirs.update_parameters(net)
        ours.update_parameters(net)
        expected, found = theirs.state_dict(), ours.state_dict()
        assert list(found) == list(expected)
        for name, value in expected.items():
            assert torch.equal(found[name], value), (step, name)


def test_a_state_of_mmengines_is_taken_up() -> None:
    net = model()
    theirs = mmengine.model.MomentumAnnealingEMA(net, gamma=3)
    ours = MODELS.build({"type": "MomentumAnnealingEMA", "gamma": 3}, model=net)
    for _ in range(3):
        train(net)
        theirs.update_parameters(net)

    ours.load_state_dict(theirs.state_dict())
    train(net)
    theirs.update_parameters(net)
    ours.update_parameters(net)

    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name
