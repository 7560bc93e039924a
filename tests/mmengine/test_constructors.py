"""Parameter groups beside MMEngine's own: same order, same parameters, same values."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from asynchooks.optim import build_optim_wrapper, build_param_schedulers

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MMEngine's own, on import
    import mmengine.optim

FACTORS = st.sampled_from([0.0, 0.1, 0.5, 1.0, 2.0])
LAYERS = ("conv", "depthwise", "linear", "bn", "gn", "ln", "embedding", "scale", "block")


class Scale(nn.Module):
    """A parameter of one dimension that is no bias."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(4))
        self.bias = nn.Parameter(torch.zeros(4))


def layer(kind: str) -> nn.Module:
    if kind == "block":
        return nn.Sequential(layer("conv"), layer("bn"), nn.ModuleDict({"scale": Scale()}))
    return {
        "conv": lambda: nn.Conv2d(4, 4, 1),
        "depthwise": lambda: nn.Conv2d(4, 4, 1, groups=4),
        "linear": lambda: nn.Linear(4, 4),
        "bn": lambda: nn.BatchNorm2d(4),
        "gn": lambda: nn.GroupNorm(2, 4),
        "ln": lambda: nn.LayerNorm(4),
        "embedding": lambda: nn.Embedding(3, 4),
        "scale": Scale,
    }[kind]()


@st.composite
def models(draw: st.DrawFn) -> nn.Module:
    names = draw(
        st.lists(st.sampled_from(["backbone", "neck", "head", "conv1", "bn1"]), min_size=1, unique=True)
    )
    model = nn.ModuleDict({name: layer(draw(st.sampled_from(LAYERS))) for name in names})
    for parameter in model.parameters():
        parameter.requires_grad_(draw(st.integers(0, 5)) > 0)
    if not any(p.requires_grad for p in model.parameters()):
        next(model.parameters()).requires_grad_()
    if draw(st.booleans()):
        model["again"] = model[names[0]]
    return model


CUSTOM = st.dictionaries(
    st.sampled_from(
        ["backbone", "backbone.0", "neck", "head.bias", "bias", "weight", "norm", "a", "b", "bn1"]
    ),
    st.fixed_dictionaries({}, optional={"lr_mult": FACTORS, "decay_mult": FACTORS, "note": st.just("kept")}),
    max_size=4,
)
OPTIONS = st.fixed_dictionaries(
    {"bypass_duplicate": st.just(True)},
    optional={
        "custom_keys": CUSTOM,
        "bias_lr_mult": FACTORS,
        "bias_decay_mult": FACTORS,
        "norm_decay_mult": FACTORS,
        "dwconv_decay_mult": FACTORS,
        "flat_decay_mult": FACTORS,
        "dcn_offset_lr_mult": FACTORS,
    },
)


def groups(wrapper: Any, model: nn.Module) -> list[dict[str, Any]]:
    names = {id(p): name for name, p in model.named_parameters()}
    found = []
    for group in wrapper.optimizer.param_groups:
        found.append({**group, "params": [names[id(p)] for p in group["params"]]})
    return found


@settings(max_examples=60, deadline=None)
@given(model=models(), paramwise_cfg=OPTIONS)
def test_groups_are_mmengines(model: nn.Module, paramwise_cfg: dict[str, Any]) -> None:
    cfg = {"optimizer": {"type": "SGD", "lr": 0.3, "momentum": 0.9, "weight_decay": 0.05}}
    cfg["paramwise_cfg"] = paramwise_cfg
    theirs = mmengine.optim.build_optim_wrapper(model, copy.deepcopy(cfg))
    ours = build_optim_wrapper(model, cfg)

    assert groups(ours, model) == groups(theirs, model)
    assert ours.get_lr() == theirs.get_lr()
    assert ours.get_momentum() == theirs.get_momentum()


@pytest.mark.parametrize("paramwise_cfg", [None, {}])
def test_without_options_all_parameters_are_one_group(paramwise_cfg: Any) -> None:
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    cfg = {"optimizer": {"type": "AdamW", "lr": 0.1}, "paramwise_cfg": paramwise_cfg}
    theirs = mmengine.optim.build_optim_wrapper(model, copy.deepcopy(cfg))

    ours = build_optim_wrapper(model, cfg)

    assert groups(ours, model) == groups(theirs, model)


def test_the_base_learning_rate_is_scheduled_as_mmengines() -> None:
    model = nn.Linear(2, 2)
    cfg = {
        "optimizer": {"type": "SGD", "lr": 1.0, "weight_decay": 0.1},
        "paramwise_cfg": {"custom_keys": {"weight": {"lr_mult": 0.1}, "bias": {"lr_mult": 2.0}}},
    }
    theirs = mmengine.optim.build_optim_wrapper(model, copy.deepcopy(cfg))
    ours = build_optim_wrapper(model, cfg)
    schedule = mmengine.optim.CosineAnnealingLR(theirs, T_max=5, eta_min=0.01)
    (ours_schedule,) = build_param_schedulers(
        ours, {"type": "CosineAnnealingLR", "T_max": 5, "eta_min": 0.01}
    )

    for _ in range(6):
        assert ours.get_lr().keys() == theirs.get_lr().keys()
        for key, values in ours.get_lr().items():
            assert values == pytest.approx(theirs.get_lr()[key], abs=1e-9), key
        theirs.step()
        schedule.step()
        ours_schedule.step()
