"""MMEngine's schedulers and ours, side by side: the same values on every step, of every parameter group."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MMEngine's own, on import
    from mmengine.optim import scheduler as theirs
    from mmengine.registry import PARAM_SCHEDULERS as THEIRS

from asynchooks.optim import build_param_schedulers
from asynchooks.registry import PARAM_SCHEDULERS

STEPS = 26
EPOCH_LENGTH = 3

# Arguments of each family, for a schedule that fits into STEPS.
FAMILIES: list[tuple[str, dict[str, Any]]] = [
    ("Step", {"step_size": 3}),
    ("Step", {"step_size": 4, "gamma": 0.5}),
    ("MultiStep", {"milestones": [2, 5, 5, 9], "gamma": 0.3}),
    ("Constant", {"factor": 0.25, "end": 6}),
    ("Constant", {"factor": 0.25}),
    ("Exponential", {"gamma": 0.9}),
    ("CosineAnnealing", {"T_max": 7, "eta_min": 0.001}),
    ("CosineAnnealing", {"T_max": 6, "eta_min_ratio": 0.1}),
    ("CosineAnnealing", {"end": 20}),
    ("Linear", {"start_factor": 0.1, "end": 9}),
    ("Linear", {"start_factor": 1.0, "end_factor": 0.2, "end": 15}),
    ("Linear", {"start_factor": 0.001}),
    ("Poly", {"power": 0.9, "eta_min": 0.002, "end": 12}),
    ("Poly", {"power": 2, "end": 20}),
    ("CosineRestart", {"periods": [4, 6, 5], "restart_weights": [1, 0.5, 0.25], "eta_min": 0.001}),
    ("CosineRestart", {"periods": [5], "eta_min_ratio": 0.1}),
]
ONE_CYCLE: list[dict[str, Any]] = [
    {"eta_max": 0.5, "total_steps": 26},
    {"eta_max": 0.5, "end": 26, "anneal_strategy": "linear", "pct_start": 0.4},
    {"eta_max": 0.5, "begin": 3, "end": 20},
    {
        "eta_max": [0.5, 0.2],
        "total_steps": 26,
        "three_phase": True,
        "div_factor": 10.0,
        "final_div_factor": 50.0,
    },
]


def optimizer(kind: str) -> torch.optim.Optimizer:
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (0.1, 0.037)]
    if kind == "Adam":
        groups[1]["betas"] = (0.7, 0.99)
        return torch.optim.Adam(groups, lr=0.1, betas=(0.9, 0.999))
    groups[1]["momentum"] = 0.8
    return torch.optim.SGD(groups, lr=0.1, momentum=0.9)


def values(of: torch.optim.Optimizer) -> list[float]:
    return [v for g in of.param_groups for v in (g["lr"], g["betas"][0] if "betas" in g else g["momentum"])]


def build_theirs(of: torch.optim.Optimizer, cfgs: Sequence[dict[str, Any]]) -> list[Any]:
    provided = {"optimizer": of, "epoch_length": EPOCH_LENGTH}
    return [THEIRS.build(copy.deepcopy(cfg), default_args=provided) for cfg in cfgs]


def build_ours(of: torch.optim.Optimizer, cfgs: Sequence[dict[str, Any]]) -> list[Any]:
    built: list[Any] = build_param_schedulers(of, cfgs, epoch_length=lambda: EPOCH_LENGTH)
    return built


def step(schedulers: Sequence[Any], iteration: int) -> None:
    """Step as a run does: by iteration after each, by epoch at the end of one."""
    for scheduler in schedulers:
        if not scheduler.by_epoch:
            scheduler.step()
    if (iteration + 1) % EPOCH_LENGTH == 0:
        for scheduler in schedulers:
            if scheduler.by_epoch:
                scheduler.step()


def reloaded(of: torch.optim.Optimizer, kind: str, schedulers: Any, cfgs: Any) -> tuple[Any, list[Any]]:
    """Return what a resumed run has, from a checkpoint that is loaded without pickled code."""
    file = io.BytesIO()
    torch.save([of.state_dict(), [s.state_dict() for s in schedulers]], file)
    file.seek(0)
    states = torch.load(file, weights_only=True)
    fresh = optimizer(kind)
    built = build_ours(fresh, cfgs)
    fresh.load_state_dict(states[0])
    for scheduler, state in zip(built, states[1], strict=True):
        scheduler.load_state_dict(state)
    return fresh, built


@pytest.mark.filterwarnings("ignore:Detected call of `scheduler.step\\(\\)` before")
def check(cfgs: Sequence[dict[str, Any]], kind: str, *, save_at: int = 7, steps: int = STEPS) -> None:
    their_optimizer, our_optimizer = optimizer(kind), optimizer(kind)
    their_optimizer.step()  # or they warn that schedulers step before it
    their_schedulers = build_theirs(their_optimizer, cfgs)
    our_schedulers = build_ours(our_optimizer, cfgs)
    their_optimizer.step()
    for iteration in range(steps):
        expected = values(their_optimizer)
        assert values(our_optimizer) == pytest.approx(expected, rel=1e-12, abs=1e-18), f"at step {iteration}"
        for one, other in zip(our_schedulers, their_schedulers, strict=True):
            assert one.last_step == other.last_step
            assert one.base_values == pytest.approx(other.base_values)
        if iteration == save_at:
            our_optimizer, our_schedulers = reloaded(our_optimizer, kind, our_schedulers, cfgs)
        step(their_schedulers, iteration)
        step(our_schedulers, iteration)


def targets(family: str) -> list[tuple[dict[str, Any], str]]:
    found: list[tuple[dict[str, Any], str]] = [
        ({"type": f"{family}LR"}, "SGD"),
        ({"type": f"{family}ParamScheduler", "param_name": "lr"}, "Adam"),
    ]
    if family != "OneCycle":
        found += [
            ({"type": f"{family}Momentum"}, "SGD"),
            ({"type": f"{family}Momentum"}, "Adam"),
            ({"type": f"{family}ParamScheduler", "param_name": "momentum"}, "SGD"),
        ]
    return found


CASES = [*FAMILIES, *(("OneCycle", each) for each in ONE_CYCLE)]


def test_every_name_of_theirs_is_registered() -> None:
    names = {name for name in theirs.__all__ if not name.startswith("_")}

    assert names <= set(PARAM_SCHEDULERS)
    assert set(THEIRS.module_dict) <= set(PARAM_SCHEDULERS)


@pytest.mark.parametrize("by_epoch", [True, False])
@pytest.mark.parametrize(("family", "arguments"), CASES)
def test_values_are_theirs_on_every_step(family: str, arguments: dict[str, Any], *, by_epoch: bool) -> None:
    for target, kind in targets(family):
        check([{**target, **arguments, "by_epoch": by_epoch}], kind, steps=STEPS * (3 if by_epoch else 1))


@pytest.mark.parametrize("family", ["Step", "Exponential", "Linear", "Poly", "CosineAnnealing", "Constant"])
@settings(max_examples=15, deadline=None)
@given(begin=st.integers(0, 8), length=st.integers(2, 15), save_at=st.integers(0, 20), data=st.data())
def test_windows_are_theirs(family: str, begin: int, length: int, save_at: int, data: st.DataObject) -> None:
    arguments = data.draw(ARGUMENTS[family])
    target, kind = data.draw(st.sampled_from(targets(family)))

    check(
        [{**target, **arguments, "begin": begin, "end": begin + length, "by_epoch": False}],
        kind,
        save_at=save_at,
    )


_FACTOR = st.floats(0.05, 1.0)
ARGUMENTS = {
    "Step": st.fixed_dictionaries({"step_size": st.integers(1, 6), "gamma": _FACTOR}),
    "Exponential": st.fixed_dictionaries({"gamma": _FACTOR}),
    "Linear": st.fixed_dictionaries({"start_factor": _FACTOR, "end_factor": _FACTOR}),
    "Poly": st.fixed_dictionaries({"power": st.floats(0.5, 3), "eta_min": st.floats(0, 0.03)}),
    "CosineAnnealing": st.one_of(
        st.fixed_dictionaries({}, optional={"T_max": st.integers(2, 20), "eta_min": st.floats(0, 0.03)}),
        st.fixed_dictionaries({"eta_min_ratio": st.floats(0, 0.5)}),
    ),
    "Constant": st.fixed_dictionaries({"factor": _FACTOR}),
}

WARMUP = {"type": "LinearLR", "start_factor": 0.01, "by_epoch": False, "begin": 0, "end": 5}
CHAINS: list[list[dict[str, Any]]] = [
    [WARMUP, {"type": "MultiStepLR", "milestones": [2, 4], "begin": 0, "end": 12}],
    [WARMUP, {"type": "CosineAnnealingLR", "T_max": 7, "begin": 1, "end": 8, "convert_to_iter_based": True}],
    [WARMUP, {"type": "CosineAnnealingLR", "begin": 2, "end": 8, "eta_min": 0.01, "by_epoch": True}],
    [WARMUP, {"type": "PolyLR", "begin": 5, "end": 26, "by_epoch": False, "eta_min": 1e-4}],
    [
        {"type": "ConstantLR", "factor": 0.5, "begin": 0, "end": 3},
        {"type": "ExponentialLR", "gamma": 0.8, "begin": 3, "end": 7},
        {"type": "StepMomentum", "step_size": 2, "gamma": 0.9, "begin": 1},
    ],
    [
        {"type": "CosineAnnealingLR", "T_max": 10, "end": 10, "by_epoch": False, "eta_min": 1.0},
        {
            "type": "CosineAnnealingLR",
            "T_max": 16,
            "begin": 10,
            "end": 26,
            "by_epoch": False,
            "eta_min": 1e-6,
        },
        {"type": "CosineAnnealingMomentum", "T_max": 10, "end": 10, "by_epoch": False, "eta_min": 0.8},
        {"type": "CosineAnnealingMomentum", "T_max": 16, "begin": 10, "by_epoch": False, "eta_min": 1},
    ],
]


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
@pytest.mark.parametrize("chain", CHAINS)
def test_chained_schedulers_have_their_values(chain: list[dict[str, Any]], kind: str) -> None:
    for save_at in (0, 4, 11):
        check(chain, kind, save_at=save_at)


@pytest.mark.parametrize(
    ("family", "arguments"),
    [
        ("Step", {"step_size": 2, "begin": 1, "end": 6}),
        ("MultiStep", {"milestones": [1, 3]}),
        ("Constant", {"end": 4}),
        ("Exponential", {"gamma": 0.9, "begin": 0.5, "end": 5}),
        ("CosineAnnealing", {"T_max": 6}),
        ("CosineAnnealing", {"begin": 1, "end": 7, "eta_min_ratio": 0.2}),
        ("Linear", {"end": 3}),
        ("Poly", {"begin": 2, "end": 8}),
        ("CosineRestart", {"periods": [2, 3], "restart_weights": [1, 0.5], "eta_min": 0}),
        ("OneCycle", {"eta_max": 0.5, "total_steps": 9}),
        ("OneCycle", {"eta_max": 0.5, "end": 9}),
    ],
)
def test_epochs_convert_to_their_iterations(family: str, arguments: dict[str, Any]) -> None:
    for target, kind in targets(family):
        check([{**target, **arguments, "convert_to_iter_based": True}], kind)


@pytest.mark.parametrize("cfg", [{"type": "ExponentialLR", "gamma": 0.9}, {"type": "StepLR", "step_size": 3}])
@pytest.mark.parametrize("last_step", [0, 4])
def test_a_run_goes_on_without_a_state_as_theirs(cfg: dict[str, Any], last_step: int) -> None:
    seen = []
    for build in (build_theirs, build_ours):
        of = optimizer("SGD")
        for group in of.param_groups:
            group["initial_lr"] = 1.0
        of.step()
        (scheduler,) = build(of, [{**cfg, "last_step": last_step}])
        of.step()
        seen.append([values(of)])
        for _ in range(6):
            scheduler.step()
            seen[-1].append(values(of))
            assert scheduler.get_last_value() == [group["lr"] for group in of.param_groups]

    for ours, others in zip(seen[1], seen[0], strict=True):
        assert ours == pytest.approx(others, rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(
    metrics=st.lists(st.floats(0, 10), min_size=STEPS, max_size=STEPS),
    rule=st.sampled_from(["less", "greater"]),
    threshold_rule=st.sampled_from(["rel", "abs"]),
    patience=st.integers(0, 3),
    cooldown=st.integers(0, 2),
    begin=st.integers(0, 4),
    target=st.sampled_from(["LR", "Momentum"]),
    kind=st.sampled_from(["SGD", "Adam"]),
)
def test_plateaus_are_theirs(metrics: list[float], target: str, kind: str, **arguments: Any) -> None:
    cfg = {
        "type": f"ReduceOnPlateau{target}",
        "factor": 0.7,
        "min_value": [0.01, 0.02],
        "monitor": "loss",
        "end": 20,
        **arguments,
    }
    pairs = [(of := optimizer(kind), build(of, [cfg])) for build in (build_theirs, build_ours)]
    for epoch, metric in enumerate(metrics):
        for _, (scheduler,) in pairs:
            scheduler.step()
            if epoch % 2 == 0:
                scheduler.step({"loss": metric})
        if epoch == 9:
            pairs[1] = reloaded(pairs[1][0], kind, pairs[1][1], [cfg])

        assert values(pairs[1][0]) == pytest.approx(values(pairs[0][0]), rel=1e-12)
