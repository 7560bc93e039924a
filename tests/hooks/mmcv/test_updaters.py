"""MMCV's policies: each value against the formula, written here once more; warmup, points, several optimizers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from asynchooks.errors import ConfigError
from asynchooks.execution import HookExecutor
from asynchooks.hooks.mmcv.updaters import LrUpdaterHook, MomentumUpdaterHook, StepLrUpdaterHook
from asynchooks.registry import MMCV_HOOKS

EPOCHS, PER_EPOCH = 6, 5
ITERS = EPOCHS * PER_EPOCH
BASES = (0.1, 0.04)


def sgd(**options: Any) -> torch.optim.SGD:
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in BASES]
    return torch.optim.SGD(groups, lr=0.1, **{"momentum": 0.9, **options})


def adam() -> torch.optim.Adam:
    return torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=0.02, betas=(0.8, 0.99))


def run(hook: Any, optimizer: Any) -> Iterator[SimpleNamespace]:
    """Train without training; yields the runner as each iteration begins."""
    runner = SimpleNamespace(
        optimizer=optimizer,
        epoch=0,
        iter=0,
        max_epochs=EPOCHS,
        max_iters=ITERS,
        data_loader=range(PER_EPOCH),
    )
    with HookExecutor([hook]) as executor:
        executor.fire("before_run", runner)
        for _ in range(EPOCHS):
            executor.fire("before_train_epoch", runner)
            for index in range(PER_EPOCH):
                executor.fire("before_train_iter", runner, batch_idx=index)
                yield runner
                runner.iter += 1
            runner.epoch += 1


def build(policy: str, what: str = "Lr", **options: Any) -> Any:
    return MMCV_HOOKS.build({"type": f"{policy}{what}UpdaterHook", **options})


def rates(hook: Any, group: int = 0) -> list[float]:
    optimizer = sgd()
    return [optimizer.param_groups[group]["lr"] for _ in run(hook, optimizer)]


def momenta(hook: Any) -> list[float]:
    optimizer = sgd()
    return [optimizer.param_groups[0]["momentum"] for _ in run(hook, optimizer)]


def cos(start: float, end: float, part: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2


def restarts(base: float, position: float) -> float:
    index = 0 if position < 2 else 1
    start, period, weight = ((0, 2, 1.0), (2, 40, 0.5))[index]
    return cos(base * weight + (1 - weight) * 0.001, 0.001, (position - start) / period)


# policy, options, formula of (first value, position, length)
FORMS: list[tuple[str, dict[str, Any], Callable[[float, float, float], float]]] = [
    ("Fixed", {}, lambda base, p, n: base),
    ("Step", {"step": 2}, lambda base, p, n: base * 0.1 ** (p // 2)),
    ("Step", {"step": [1, 4], "gamma": 0.5}, lambda base, p, n: base * 0.5 ** ((p >= 1) + (p >= 4))),
    (
        "Step",
        {"step": [1, 4], "min_lr": 0.03},
        lambda base, p, n: max(base * 0.1 ** ((p >= 1) + (p >= 4)), 0.03),
    ),
    ("Exp", {"gamma": 0.9}, lambda base, p, n: base * 0.9**p),
    ("Poly", {"power": 0.9, "min_lr": 1e-3}, lambda base, p, n: (base - 1e-3) * (1 - p / n) ** 0.9 + 1e-3),
    ("Inv", {"gamma": 0.3, "power": 2}, lambda base, p, n: base / (1 + 0.3 * p) ** 2),
    ("CosineAnnealing", {"min_lr": 1e-3}, lambda base, p, n: cos(base, 1e-3, p / n)),
    ("CosineAnnealing", {"min_lr_ratio": 0.1}, lambda base, p, n: cos(base, base / 10, p / n)),
    (
        "FlatCosineAnnealing",
        {"start_percent": 0.5, "min_lr": 0},
        lambda base, p, n: base if p < n / 2 else cos(base, 0, (p - n / 2) / (n / 2)),
    ),
    (
        "CosineRestart",
        {"periods": [2, 40], "restart_weights": [1, 0.5], "min_lr": 1e-3},
        lambda base, p, n: restarts(base, p),
    ),
    ("LinearAnnealing", {"min_lr_ratio": 0.1}, lambda base, p, n: base + (base / 10 - base) * p / n),
]


@pytest.mark.parametrize("group", [0, 1])
@pytest.mark.parametrize(("policy", "options", "form"), FORMS)
def test_a_policy_follows_its_form(
    policy: str, options: dict[str, Any], form: Callable[[float, float, float], float], group: int
) -> None:
    by_iter = rates(build(policy, by_epoch=False, **options), group)
    by_epoch = rates(build(policy, **options), group)

    base = BASES[group]
    assert by_iter == pytest.approx([form(base, i, ITERS) for i in range(ITERS)])
    assert by_epoch == pytest.approx([form(base, i // PER_EPOCH, EPOCHS) for i in range(ITERS)])


WARMUPS: dict[str, Callable[[float], float]] = {
    "constant": lambda part: 0.2,
    "linear": lambda part: 1 - (1 - part) * 0.8,
    "exp": lambda part: 0.2 ** (1 - part),
}


@pytest.mark.parametrize("by_epoch", [True, False])
@pytest.mark.parametrize("warmup", list(WARMUPS))
def test_the_warmup_scales_the_regular_value_until_it_is_over(warmup: str, *, by_epoch: bool) -> None:
    options: dict[str, Any] = {"warmup": warmup, "warmup_ratio": 0.2, "by_epoch": by_epoch}
    seen = rates(build("Exp", gamma=0.9, warmup_iters=7, **options))
    in_epochs = rates(build("Exp", gamma=0.9, warmup_iters=2, warmup_by_epoch=True, **options))
    regular = rates(build("Exp", gamma=0.9, by_epoch=by_epoch))

    factor = WARMUPS[warmup]
    assert seen == pytest.approx([r * (factor(i / 7) if i < 7 else 1) for i, r in enumerate(regular)])
    assert in_epochs == pytest.approx([r * (factor(i / 10) if i < 10 else 1) for i, r in enumerate(regular)])


@pytest.mark.parametrize("warmup", list(WARMUPS))
def test_momentum_is_divided_in_the_warmup(warmup: str) -> None:
    seen = momenta(build("Step", "Momentum", step=3, warmup=warmup, warmup_iters=7, warmup_ratio=0.2))
    factor = WARMUPS[warmup]

    expected = [0.9 * 0.5 ** (i // PER_EPOCH // 3) / (factor(i / 7) if i < 7 else 1) for i in range(ITERS)]
    assert seen == pytest.approx(expected)


@pytest.mark.parametrize(
    ("policy", "options", "form"),
    [
        ("Step", {"step": [2], "gamma": 0.5, "min_momentum": 0.6}, lambda p, n: 0.9 if p < 2 else 0.6),
        ("CosineAnnealing", {"min_momentum": 0.5}, lambda p, n: cos(0.9, 0.5, p / n)),
        ("LinearAnnealing", {"min_momentum_ratio": 0.5}, lambda p, n: 0.9 - 0.45 * p / n),
    ],
)
def test_momentum_follows_its_form(
    policy: str, options: dict[str, Any], form: Callable[[float, float], float]
) -> None:
    by_iter = momenta(build(policy, "Momentum", by_epoch=False, **options))
    by_epoch = momenta(build(policy, "Momentum", **options))

    assert by_iter == pytest.approx([form(i, ITERS) for i in range(ITERS)])
    assert by_epoch == pytest.approx([form(i // PER_EPOCH, EPOCHS) for i in range(ITERS)])


def cycle(base: float, position: int, top: float, low: float, gamma: float) -> float:
    scale, position, length, up = gamma ** (position // 15), position % 15, 15, 6
    peak = base * (1 + (top - 1) * scale)
    if position < up:
        return cos(base, peak, position / up)
    return cos(peak, base * low, (position - up) / (length - up))


def test_cycles_go_up_and_down() -> None:
    options: dict[str, Any] = {"cyclic_times": 2, "step_ratio_up": 0.4, "gamma": 0.5}
    seen = rates(build("Cyclic", target_ratio=(10, 1e-4), **options))
    momentum = momenta(build("Cyclic", "Momentum", target_ratio=(0.85 / 0.95, 1), **options))

    assert seen == pytest.approx([cycle(0.1, i, 10, 1e-4, 0.5) for i in range(ITERS)])
    assert momentum == pytest.approx([cycle(0.9, i, 0.85 / 0.95, 1, 0.5) for i in range(ITERS)])


def test_one_cycle_is_torchs() -> None:
    options: dict[str, Any] = {"pct_start": 0.4, "anneal_strategy": "linear", "three_phase": True}
    optimizer = sgd()
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=[0.5, 0.3], total_steps=ITERS, **options
    )
    expected = []
    for _ in range(ITERS):
        expected.append([(g["lr"], g["momentum"]) for g in optimizer.param_groups])
        optimizer.step()
        scheduler.step()

    ours = sgd()
    hooks = [build("OneCycle", max_lr=[0.5, 0.3], **options), build("OneCycle", "Momentum", **options)]
    pairs = zip(run(hooks[0], ours), run(hooks[1], ours), strict=True)
    seen = [[(g["lr"], g["momentum"]) for g in ours.param_groups] for _ in pairs]

    assert torch.tensor(seen).flatten().tolist() == pytest.approx(torch.tensor(expected).flatten().tolist())


def test_yolox_warms_up_quadratically_and_ends_flat() -> None:
    options: dict[str, Any] = {
        "warmup": "exp",
        "warmup_by_epoch": True,
        "warmup_iters": 1,
        "warmup_ratio": 1,
        "by_epoch": False,
    }
    seen = rates(build("YOLOX", num_last_epochs=2, min_lr_ratio=0.05, **options))

    span = ITERS - PER_EPOCH - 10
    expected = [0.1 * ((i + 1) / PER_EPOCH) ** 2 for i in range(PER_EPOCH)]
    expected += [cos(0.1, 0.005, (i + 1 - PER_EPOCH) / span) for i in range(PER_EPOCH, ITERS - 11)]
    assert seen == pytest.approx(expected + [0.005] * 11)


def test_yolox_counts_in_epochs_where_the_rate_changes_by_epoch() -> None:
    seen = rates(build("YOLOX", num_last_epochs=2, min_lr_ratio=0.05))

    per_epoch = [cos(0.1, 0.005, (epoch + 1) / 4) for epoch in range(3)] + [0.005] * 3
    assert seen[::PER_EPOCH] == pytest.approx(per_epoch)


def test_several_optimizers_each_go_their_way() -> None:
    optimizers = {"g": sgd(), "d": adam()}
    lr, momentum = build("Exp", gamma=0.5, by_epoch=False), build("Step", "Momentum", step=1)
    for _ in zip(run(lr, optimizers), run(momentum, optimizers), strict=True):
        break

    assert lr.base_lr == {"g": [0.1, 0.04], "d": [0.02]}
    assert momentum.base_momentum == {"g": [0.9, 0.9], "d": [0.8]}
    lr = build("OneCycle", max_lr={"g": [0.5, 0.25], "d": 1.0})
    list(run(lr, optimizers))
    assert lr.base_lr == {"g": [0.02, 0.01], "d": [0.04]}
    assert lr.regular_lr["d"] == pytest.approx([0.04 / 1e4])


def test_the_first_value_is_the_one_from_before_every_schedule() -> None:
    optimizer = sgd()
    optimizer.param_groups[0].update(lr=0.3, initial_lr=0.7)  # as a checkpoint left it
    hook = build("Fixed")
    next(run(hook, optimizer))

    assert hook.base_lr == [0.7, 0.04]
    assert optimizer.param_groups[1]["initial_lr"] == 0.04


def test_a_policy_of_ones_own_defines_its_form_alone() -> None:
    class Halving(LrUpdaterHook):
        def get_lr(self, runner: Any, base_lr: float) -> float:
            return base_lr / (1 + int(runner.epoch))

    assert rates(Halving())[::PER_EPOCH] == pytest.approx([0.1 / (1 + epoch) for epoch in range(EPOCHS)])
    with pytest.raises(NotImplementedError, match="get_momentum"):
        momenta(MomentumUpdaterHook())


def test_one_cycle_starts_from_its_own_values() -> None:
    optimizer = sgd()
    for hook in (build("OneCycle", max_lr=0.5), build("OneCycle", "Momentum", max_momentum=[0.8, 0.7])):
        hook.before_run(SimpleNamespace(optimizer=optimizer, max_iters=ITERS))

    assert [group["initial_lr"] for group in optimizer.param_groups] == [0.02, 0.02]
    assert [group["momentum"] for group in optimizer.param_groups] == [0.8, 0.7]


def test_a_second_run_begins_its_cycles_anew() -> None:
    hook = build("OneCycle", max_lr=0.5)

    assert rates(hook) == rates(hook)


def test_learning_rates_are_set_before_momenta() -> None:
    hooks = [build("Step", "Momentum", step=1), build("Step", step=1)]
    priorities = [each.priority for each in HookExecutor(hooks).registered]

    assert priorities == [10, 30]


def test_a_warmup_is_nondecreasing_up_to_the_regular_rate() -> None:
    seen = rates(StepLrUpdaterHook(step=[5], warmup="linear", warmup_iters=10, warmup_ratio=0.01))

    assert all(before < after for before, after in pairwise(seen[:11]))


@pytest.mark.parametrize(
    ("cfg", "words"),
    [
        (("Fixed", "Lr", {"warmup": "cosine", "warmup_iters": 3}), "FixedLrUpdaterHook: warmup is None or"),
        (("Fixed", "Lr", {"warmup": "linear"}), "warmup_iters is a positive int, not 0"),
        (
            ("Fixed", "Lr", {"warmup": "exp", "warmup_iters": 3, "warmup_ratio": 2}),
            r"warmup_ratio is in \(0, 1\]",
        ),
        (("Step", "Lr", {"step": [3, -1]}), r"step is a positive int or a list of such, not \[3, -1\]"),
        (("CosineAnnealing", "Lr", {}), "goes to min_lr or to min_lr_ratio, one of them"),
        (("CosineRestart", "Lr", {"periods": [1, 2], "min_lr": 0}), "each has its weight"),
        (("FlatCosineAnnealing", "Lr", {"start_percent": 1.2, "min_lr": 0}), "start_percent is in"),
        (("Cyclic", "Lr", {"by_epoch": True}), "wants by_epoch=False"),
        (("Cyclic", "Momentum", {"target_ratio": (1, 2, 3)}), "target_ratio is a float or a tuple of two"),
        (("Cyclic", "Lr", {"anneal_strategy": "sin"}), "'cos' or 'linear', not 'sin'"),
        (("OneCycle", "Lr", {"max_lr": "0.1"}), "max_lr is a number"),
        (("OneCycle", "Lr", {"max_lr": 1, "by_epoch": True}), "by_epoch=False"),
        (("OneCycle", "Lr", {"max_lr": 1, "total_steps": 1.5}), "total_steps is a positive int"),
        (("OneCycle", "Momentum", {"pct_start": 3}), "pct_start is in"),
        (("LinearAnnealing", "Momentum", {"min_momentum": 1, "min_momentum_ratio": 1}), "one of them; got"),
    ],
)
def test_wrong_arguments_are_refused_at_construction(
    cfg: tuple[str, str, dict[str, Any]], words: str
) -> None:
    policy, what, options = cfg
    with pytest.raises(ConfigError if "step" not in options else ValueError, match=words):
        build(policy, what, **options)


@pytest.mark.parametrize(
    ("cfg", "words"),
    [
        (("CosineRestart", {"periods": [3], "min_lr": 0}), r"end at 3, but the run has 6 epochs"),
        (("OneCycle", {"max_lr": 1.0, "total_steps": 9}), "total_steps=9 is less than the 30 iterations"),
        (("OneCycle", {"max_lr": [1.0]}), "one number per parameter group of SGD, 2, not 1"),
        (("OneCycle", {"max_lr": {"AdamW": 1.0}}), "max_lr has no 'SGD'"),
        (("Cyclic", {"cyclic_times": 31}), "a run of 30 iterations has no 31 cycles"),
    ],
)
def test_what_does_not_fit_the_run_is_refused_when_it_starts(
    cfg: tuple[str, dict[str, Any]], words: str
) -> None:
    policy, options = cfg
    with pytest.raises(ConfigError, match=words):
        next(run(build(policy, **options), sgd()))
