"""OptimWrapper beside MMEngine's: the same weights after every loss, with accumulation, clipping and a last group."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from asynchooks.optim import build_optim_wrapper

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MMEngine's own, on import
    import mmengine.optim


class Net(nn.Sequential):
    """Has DistributedDataParallel's `no_sync`, and counts how often it is used."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
        self.unsynced = 0

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        self.unsynced += 1
        yield


def play(
    build: Any, cfg: dict[str, Any], steps: int, start: int, end: int
) -> tuple[list[dict[str, Tensor]], int]:
    torch.manual_seed(0)
    net = Net()
    wrapper = build(net, copy.deepcopy(cfg))
    wrapper.initialize_count_status(net, start, end)
    torch.manual_seed(1)
    seen = []
    for _ in range(steps):
        with wrapper.optim_context(net):
            loss = net(torch.randn(5, 3)).square().mean()
        wrapper.update_params(loss)
        seen.append({name: value.clone() for name, value in net.state_dict().items()})
    return seen, net.unsynced


@settings(max_examples=25, deadline=None)
@given(
    counts=st.integers(1, 4),
    clip=st.sampled_from(
        [None, {"max_norm": 0.1}, {"type": "value", "clip_value": 0.01}, {"max_norm": 1, "norm_type": 1}]
    ),
    end=st.integers(6, 10),
    groups=st.booleans(),
    known=st.booleans(),
)
def test_every_step_is_mmengines(counts: int, clip: Any, end: int, *, groups: bool, known: bool) -> None:
    cfg: dict[str, Any] = {
        "optimizer": {"type": "SGD", "lr": 0.5, "momentum": 0.9, "weight_decay": 0.01},
        "accumulative_counts": counts,
    }
    if clip is not None:
        cfg["clip_grad"] = clip
    if groups:
        cfg["paramwise_cfg"] = {"bias_lr_mult": 2.0}
    max_counts = end if known else -1

    theirs = play(mmengine.optim.build_optim_wrapper, cfg, end, 0, max_counts)
    ours = play(build_optim_wrapper, cfg, end, 0, max_counts)

    assert ours[1] == theirs[1]
    for expected, found in zip(theirs[0], ours[0], strict=True):
        for name, value in expected.items():
            assert torch.equal(found[name], value), name


@pytest.mark.parametrize("groups", [False, True])
def test_states_are_mmengines(*, groups: bool) -> None:
    cfg: dict[str, Any] = {"optimizer": {"type": "AdamW", "lr": 0.5, "weight_decay": 0.01}}
    if groups:
        cfg["paramwise_cfg"] = {"bias_lr_mult": 2.0}
    net = Net()
    theirs = mmengine.optim.build_optim_wrapper(net, copy.deepcopy(cfg))
    ours = build_optim_wrapper(net, cfg)
    theirs.update_params(net(torch.ones(1, 3)).sum())

    expected = theirs.state_dict()
    ours.load_state_dict(copy.deepcopy(expected))

    found = ours.state_dict()
    assert found.keys() == expected.keys()
    assert found["param_groups"] == expected["param_groups"]
    assert found["state"].keys() == expected["state"].keys()
    if groups:
        assert found["base_param_settings"].keys() == expected["base_param_settings"].keys()
    theirs.load_state_dict(copy.deepcopy(found))


def test_learning_rates_are_scaled_alike(
    side_by_side: Any, assert_same_training: Callable[..., None]
) -> None:
    theirs, ours = side_by_side(auto_scale_lr={"base_batch_size": 16, "enable": True})

    assert_same_training(theirs, ours)
    assert theirs.rates[0] == [0.1 / 4]
