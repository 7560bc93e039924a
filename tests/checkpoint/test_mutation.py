"""While a capture is being copied, the training may change what it likes: the snapshot is of the capture's instant.

Every test copies at the worst moment there is: when a step waits for the copy, and not before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from asynchooks.checkpoint import before_step, capture
from asynchooks.errors import CaptureError

from .mutation import (
    Watched,
    _arrived,
    _backward,
    _content,
    _frozen,
    _is_same,
    _late,  # noqa: F401 - fixtures
    _same,
    _step,
    _training,
)


def test_every_torch_optimizer_waits_for_the_copy_before_it_steps() -> None:
    model, optimizer = _training()
    content, watched = _content(model, optimizer), Watched()
    expected = _frozen(content)

    snapshot = capture(content, overlap=optimizer, watch=watched)
    assert watched.told == []
    _step(model, optimizer)

    assert watched.told == ["waiting", "lifted"]
    assert _same(snapshot, expected)
    assert not _is_same(_frozen(_content(model, optimizer)), expected)


def test_before_step_lets_anything_change_the_weights() -> None:
    model, optimizer = _training()
    content = _content(model, optimizer)
    expected = _frozen(content)

    snapshot = capture(content, overlap=[model, optimizer])
    before_step()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    before_step()

    assert _same(snapshot, expected)


def test_what_forward_changes_is_copied_before_the_capture_returns() -> None:
    model, optimizer = _training()
    content = _content(model, optimizer)
    expected = _frozen(content)

    snapshot = capture(content, overlap=[model, optimizer])
    for _ in range(3):
        _backward(model)  # BatchNorm's statistics, and gradients

    assert not torch.equal(model.state_dict()["1.running_mean"], expected["state_dict"]["1.running_mean"])
    assert _same(snapshot, expected)


def test_accumulated_gradients_are_copied_before_the_capture_returns() -> None:
    model, optimizer = _training()
    _backward(model)
    content = {**_content(model, optimizer), "grads": [p.grad for p in model.parameters()]}
    expected = _frozen(content)

    snapshot = capture(content, overlap=optimizer)
    _backward(model)

    assert _same(snapshot, expected)


def test_a_step_that_the_scaler_leaves_out_or_makes_is_waited_for() -> None:
    model, optimizer = _training()
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    content = {**_content(model, optimizer), "scaler": scaler.state_dict()}
    expected = _frozen(content)

    snapshot = capture(content, overlap=optimizer)
    for factor in (float("inf"), 1.0):
        optimizer.zero_grad()
        scaler.scale(model(torch.randn(4, 8)).sum() * factor).backward()
        scaler.step(optimizer)
        scaler.update()

    assert _same(snapshot, expected)


def test_a_learning_rate_that_is_a_tensor_is_copied_at_once() -> None:
    model = nn.Linear(2, 1)
    rate = torch.tensor(0.5)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()

    snapshot = capture(optimizer.state_dict(), overlap=optimizer)
    rate.fill_(0.1)

    assert _arrived(snapshot)["param_groups"][0]["lr"] == 0.5


def test_optimizers_whose_state_lies_in_lists_are_overlapped_whole() -> None:
    model = nn.Linear(8, 1)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss: torch.Tensor = model(torch.ones(4, 8)).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    content = _content(model, optimizer)
    expected = _frozen(content)

    snapshot = capture(content, overlap=optimizer)
    optimizer.step(closure)  # type: ignore[no-untyped-call]

    assert _same(snapshot, expected)


def test_without_overlap_nothing_is_left_to_copy() -> None:
    model, optimizer = _training()
    watched = Watched()

    capture(_content(model, optimizer), watch=watched)

    assert watched.told == ["lifted"]


def test_what_cannot_overlap_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="optimizers, modules and tensors, not 'model'"):
        capture({}, overlap=["model"])  # type: ignore[list-item]


# ---- the net ----


def test_a_change_that_did_not_wait_fails_the_snapshot_and_says_where() -> None:
    model, optimizer = _training()

    snapshot = capture(_content(model, optimizer), overlap=optimizer)
    with torch.no_grad():  # an optimizer that is none of torch's
        for parameter in model.parameters():
            parameter.sub_(0.1)

    with pytest.raises(CaptureError, match=r"state\['state_dict'\]\['0.weight'\] was changed .*before_step"):
        _arrived(snapshot)
    with pytest.raises(CaptureError, match="was changed"):
        snapshot.wait()


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.load_state_dict({k: v + 1 for k, v in model.state_dict().items()}),
        lambda model: nn.init.normal_(model[0].weight),
        lambda model: nn.utils.vector_to_parameters(torch.zeros(169), model.parameters()),
        lambda model: model[0].weight.detach().mul_(2),
        lambda model: model[0].weight.detach()[0].mul_(2),
        lambda model: model[0].weight.data.mul_(2),
        lambda model: model[0].weight.detach().numpy().fill(1),
        lambda model: model.double(),
    ],
    ids=["load", "init", "vector", "detached", "view", "data", "numpy", "dtype"],
)
def test_no_change_gets_into_a_snapshot_in_silence(change: Callable[[Any], object]) -> None:
    model, optimizer = _training()
    content = _content(model, optimizer)
    expected = _frozen(content)

    snapshot = capture(content, overlap=optimizer)
    change(model)

    is_refused = False
    try:
        _arrived(snapshot)
    except CaptureError:
        is_refused = True
    assert is_refused or _same(
        snapshot, expected
    )  # other memory put in its place left the captured one alone


def test_new_data_in_a_parameter_leaves_the_captured_memory_alone() -> None:
    model, optimizer = _training()
    content = {"weights": list(model.parameters())}  # the parameters themselves, not detached ones
    expected = _frozen(content)

    snapshot = capture(content, overlap=optimizer)
    for parameter in model.parameters():
        parameter.data = torch.zeros_like(parameter)

    assert _same(snapshot, expected)


def test_a_buffer_in_a_parameters_memory_is_copied_at_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4))
            self.register_buffer("view", self.weight.detach()[:2])

    model = Tied()

    snapshot = capture(model.state_dict(), overlap=model)
    model.get_buffer("view").data.zero_()

    assert _arrived(snapshot)["weight"].tolist() == [1, 1, 1, 1]


def test_tensors_without_a_version_are_copied_at_once() -> None:
    with torch.inference_mode():
        tensor = torch.ones(4)

    snapshot = capture([tensor], overlap=tensor)
    with torch.inference_mode():
        tensor.zero_()

    assert _arrived(snapshot)[0].tolist() == [1, 1, 1, 1]
