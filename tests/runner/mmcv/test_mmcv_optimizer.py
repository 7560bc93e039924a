"""The optimizer hooks, against loops written by hand."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from asynchooks.checkpoint import restore
from asynchooks.errors import ConfigError, UnknownOptionError
from asynchooks.execution import Effects, RunnerHook
from asynchooks.hooks.mmcv import (
    CheckpointHook,
    Fp16OptimizerHook,
    GradientCumulativeFp16OptimizerHook,
    GradientCumulativeOptimizerHook,
    OptimizerHook,
)

from .conftest import MakeRun, weights

CLIP = {"max_norm": 0.05, "norm_type": 2}


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))

    def forward(self, batch: Tensor) -> Tensor:
        return self.layers(batch).float().square().mean()  # type: ignore[no-any-return]


def batches() -> DataLoader[Tensor]:
    data = torch.randn(10, 2, generator=torch.Generator().manual_seed(1))
    return DataLoader(list(data), batch_size=2)  # type: ignore[arg-type]


def by_hand(
    iterations: int, *, every: int = 1, clip: Any = None, dtype: Any = None, scale: float = 1.0
) -> Tensor:
    model = Plain()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    loop = [batch for _ in range(iterations) for batch in batches()][:iterations]
    tail = iterations % every
    for number, batch in enumerate(loop):
        with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
            loss = model(batch)
        (scale * loss / (tail if number >= iterations - tail else every)).backward()
        if (number + 1) % every and number + 1 != iterations:
            continue
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.grad /= scale
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), **clip)
        optimizer.step()
        optimizer.zero_grad()
    return nn.utils.parameters_to_vector(model.parameters()).detach()


def run(make_run: MakeRun, hook: Any, iterations: int = 7, *others: Any, **options: Any) -> Any:
    runner = make_run(hook, *others, trains=False, model=Plain(), max_iters=iterations, **options)
    runner.run([batches()])
    return runner


@pytest.mark.parametrize("clip", [None, CLIP])
def test_every_iteration_steps(make_run: MakeRun, clip: Any) -> None:
    runner = run(make_run, OptimizerHook(grad_clip=clip))

    assert torch.equal(weights(runner), by_hand(7, clip=clip))
    assert ("grad_norm" in runner.log_buffer.val_history) is (clip is not None)


@pytest.mark.parametrize("clip", [None, CLIP])
@pytest.mark.parametrize("every", [1, 2, 3, 7, 9])
def test_every_group_of_iterations_steps(make_run: MakeRun, every: int, clip: Any) -> None:
    runner = run(make_run, GradientCumulativeOptimizerHook(cumulative_iters=every, grad_clip=clip))

    assert torch.equal(weights(runner), by_hand(7, every=every, clip=clip))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("every", [1, 2, 3])
def test_the_loss_is_scaled_and_the_step_is_not(make_run: MakeRun, every: int, dtype: str) -> None:
    options: dict[str, Any] = {"grad_clip": CLIP, "loss_scale": 64.0, "dtype": dtype}
    hook: Any = Fp16OptimizerHook(**options)
    if every > 1:
        hook = GradientCumulativeFp16OptimizerHook(cumulative_iters=every, **options)
    runner = run(make_run, hook)

    expected = by_hand(7, every=every, clip=CLIP, dtype=getattr(torch, dtype), scale=64.0)
    torch.testing.assert_close(weights(runner), expected, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(weights(runner), by_hand(7, every=every, clip=CLIP), rtol=1e-5, atol=1e-6)


def test_the_scale_is_saved_and_resumed(make_run: MakeRun, tmp_path: Path) -> None:
    def hook() -> Fp16OptimizerHook:
        return Fp16OptimizerHook(loss_scale={"init_scale": 4.0, "growth_interval": 2, "growth_factor": 2.0})

    whole = hook()
    run(make_run, whole, 7, CheckpointHook(interval=1, by_epoch=False))
    assert whole.loss_scaler is not None
    assert whole.loss_scaler.get_scale() == 4.0 * 2**3
    state = restore(str(tmp_path / "run" / "iter_5.pth"))["meta"]["fp16"]["loss_scaler"]
    assert (state["scale"], state["_growth_tracker"]) == (16.0, 1)

    again = hook()
    runner = make_run(again, trains=False, model=Plain(), max_iters=7)
    runner.resume(tmp_path / "run" / "iter_5.pth")
    runner.run([batches()])

    assert again.loss_scaler is not None
    assert again.loss_scaler.state_dict() == whole.loss_scaler.state_dict()


def test_a_gradient_that_is_not_finite_steps_nothing(make_run: MakeRun) -> None:
    class Poison(RunnerHook):
        effects = Effects()
        priority = "HIGH"

        def after_train_iter(self, runner: Any) -> None:  # type: ignore[override]
            runner.outputs["loss"] = runner.outputs["loss"] * float("inf")

    hook = Fp16OptimizerHook(loss_scale="dynamic")
    runner = run(make_run, hook, 1, Poison())

    assert torch.equal(weights(runner), nn.utils.parameters_to_vector(Plain().parameters()))
    assert hook.loss_scaler is not None
    assert hook.loss_scaler.get_scale() == 2**15


def test_a_model_that_casts_where_it_is_told_is_told(make_run: MakeRun) -> None:
    model = Plain()
    model.fp16_enabled = False  # type: ignore[assignment]
    make_run(Fp16OptimizerHook(), trains=False, model=model, max_iters=1).run([batches()])

    assert model.fp16_enabled


def test_parameters_without_a_part_in_the_loss_are_named(
    make_run: MakeRun, caplog: pytest.LogCaptureFixture
) -> None:
    class Idle(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.idle = nn.Linear(3, 1)
            self.frozen = nn.Parameter(torch.zeros(1), requires_grad=False)

    runner = make_run(OptimizerHook(detect_anomalous_params=True), trains=False, model=Idle(), max_iters=1)
    runner.run([batches()])

    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert [message.split()[0] for message in errors] == ["idle.weight", "idle.bias"]
    assert "torch.Size([1, 3])" in errors[0]


def test_a_graph_deeper_than_pythons_stack_is_walked(make_run: MakeRun) -> None:
    class Deep(Plain):
        def forward(self, batch: Tensor) -> Tensor:
            loss = super().forward(batch)
            for _ in range(3000):
                loss = loss + 0.0
            return loss

    run_options: dict[str, Any] = {"trains": False, "model": Deep(), "max_iters": 1}
    runner = make_run(OptimizerHook(detect_anomalous_params=True), **run_options)
    runner.run([batches()])

    assert runner.iter == 1


def test_batch_norm_in_groups_is_said(make_run: MakeRun, caplog: pytest.LogCaptureFixture) -> None:
    model = Plain()
    model.layers.append(nn.BatchNorm1d(1))
    make_run(GradientCumulativeOptimizerHook(cumulative_iters=2), trains=False, model=model, max_iters=2).run(
        [batches()]
    )

    assert caplog.text.count("batch norm layers") == 1


def test_gradients_that_were_not_saved_are_said(make_run: MakeRun, caplog: pytest.LogCaptureFixture) -> None:
    hook = GradientCumulativeOptimizerHook(cumulative_iters=2)
    runner = make_run(hook, trains=False, model=Plain(), max_iters=4)
    runner.load_counters(0, 1)
    runner.run([batches()])

    assert "gradients of its first iterations are not known" in caplog.text


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: OptimizerHook(grad_clip={"max_nrm": 1}), UnknownOptionError, "Did you mean 'max_norm'"),
        (lambda: OptimizerHook(grad_clip=35), ConfigError, "give a dict such as"),
        (lambda: GradientCumulativeOptimizerHook(0), ConfigError, "at least 1"),
        (lambda: GradientCumulativeOptimizerHook(1.0), ConfigError, "at least 1"),
        (lambda: Fp16OptimizerHook(loss_scale="static"), ConfigError, "'dynamic'"),
        (lambda: Fp16OptimizerHook(loss_scale={"scale": 1}), UnknownOptionError, "no argument 'scale'"),
        (lambda: Fp16OptimizerHook(dtype="float8"), ConfigError, "'bfloat16'"),
    ],
)
def test_a_wrong_argument_is_refused_at_construction(make: Any, error: Any, match: str) -> None:
    with pytest.raises(error, match=match):
        make()
