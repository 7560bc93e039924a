"""EMAHook beside MMEngine's, on one small training: what validations see and what files hold."""

from __future__ import annotations

import types
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from asynchooks.hooks import EMAHook

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MMEngine's own, on import
    import mmengine.hooks


def model() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5))


def play(hook: Any, *, epochs: int = 3, iters: int = 4) -> list[dict[str, Tensor]]:
    """Fire a training's points at a hook; return the weights at every validation and the content of every save."""
    runner = types.SimpleNamespace(
        model=model(), epoch=0, iter=0, max_epochs=epochs, max_iters=epochs * iters
    )
    runner._resume = False
    torch.manual_seed(2)
    seen = []
    hook.before_run(runner)
    hook.before_train(runner)
    for _ in range(epochs):
        for index in range(iters):
            runner.model(torch.randn(4, 3)).square().mean().backward()
            torch.optim.SGD(runner.model.parameters(), lr=0.5).step()
            hook.after_train_iter(runner, index)
            content = {"state_dict": runner.model.state_dict()}
            hook.before_save_checkpoint(runner, content)
            seen += [_copied(content["state_dict"]), _copied(content["ema_state_dict"])]
            runner.iter += 1
        runner.epoch += 1
        hook.before_val_epoch(runner)
        seen.append(_copied(runner.model.state_dict()))
        hook.after_val_epoch(runner)
        seen.append(_copied(runner.model.state_dict()))
    return seen


def _copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in state.items()}


@pytest.mark.parametrize(
    "options",
    [
        {"momentum": 0.2},
        {"momentum": 0.2, "update_buffers": True, "interval": 2},
        {"ema_type": "StochasticWeightAverage", "begin_epoch": 2},
        {"ema_type": "MomentumAnnealingEMA", "gamma": 3, "begin_iter": 5},
    ],
)
def test_evaluations_and_files_are_mmengines(options: dict[str, Any]) -> None:
    theirs = play(mmengine.hooks.EMAHook(**options))
    ours = play(EMAHook(**options))

    assert len(theirs) == len(ours) == 30
    for index, (expected, found) in enumerate(zip(theirs, ours, strict=True)):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert torch.equal(found[name], value), (index, name)
