"""The calls to NVIDIA's apex, recorded by a stand-in: apex itself needs CUDA to be built."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from asynchooks.optim import ApexOptimWrapper, build_optim_wrapper

APEX = """
from contextlib import contextmanager

calls, state, is_set_up = [], {"scale": 8.0}, False

def initialize(model, optimizer, **options):
    global is_set_up
    is_set_up = True
    calls.append(("initialize", type(model).__name__, options["opt_level"], options["loss_scale"]))
    return model, optimizer

@contextmanager
def scale_loss(loss, optimizer):
    yield loss * state["scale"]
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad /= state["scale"]

def state_dict():
    return dict(state)

def load_state_dict(loaded):
    assert is_set_up
    state.update(loaded)
"""


@pytest.fixture
def amp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Put the stand-in where apex would be found."""
    (tmp_path / "apex").mkdir()
    (tmp_path / "apex" / "__init__.py").touch()
    (tmp_path / "apex" / "amp.py").write_text(APEX)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("apex.amp")
    for name in ("apex", "apex.amp"):
        del sys.modules[name]


def build(model: nn.Module, **options: Any) -> ApexOptimWrapper:
    cfg = {"type": "ApexOptimWrapper", "optimizer": {"type": "SGD", "lr": 0.1}, **options}
    wrapper: ApexOptimWrapper = build_optim_wrapper(model, cfg)
    return wrapper


def step(model: nn.Module, wrapper: ApexOptimWrapper) -> None:
    with wrapper.optim_context(model):
        loss = model(torch.ones(1, 2)).sum()
    wrapper.update_params(loss)


def test_apex_is_set_up_once_and_scales_the_loss(amp: Any) -> None:
    model = nn.Linear(2, 1)
    before = model.weight.detach().clone()
    wrapper = build(model, opt_level="O2", loss_scale=8.0)

    step(model, wrapper)
    step(model, wrapper)

    assert amp.calls == [("initialize", "Linear", "O2", 8.0)]
    assert wrapper.inner_count == 2
    torch.testing.assert_close(model.weight, before - 0.2)


def test_apexs_state_is_saved_and_loaded_once_it_is_set_up(amp: Any) -> None:
    model = nn.Linear(2, 1)
    wrapper = build(model)
    state = {**wrapper.state_dict(), "apex_amp": {"scale": 32.0}}

    wrapper.load_state_dict(state)
    assert amp.state == {"scale": 8.0}
    step(model, wrapper)
    assert amp.state == {"scale": 32.0}

    wrapper.load_state_dict({**state, "apex_amp": {"scale": 64.0}})
    assert wrapper.state_dict()["apex_amp"] == {"scale": 64.0}
