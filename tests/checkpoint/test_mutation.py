"""While a capture is being copied, the training may change what it likes: the snapshot is of the capture's instant.

Every test copies at the worst moment there is: when a step waits for the copy, and not before.
"""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from asynchooks.checkpoint import Snapshot, before_step, capture, state_nbytes
from asynchooks.checkpoint._capture._overlap import shared_copies
from asynchooks.errors import CaptureError
from asynchooks.testing import late_copies


@pytest.fixture(autouse=True)
def _late() -> Iterator[None]:
    with late_copies():
        yield


class Watched:
    """Notes what a capture tells of its copy."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def waiting(self) -> Any:
        self.told.append("waiting")
        return torch.no_grad()  # some context manager

    def lift(self) -> None:
        self.told.append("lifted")


def _training() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    _step(model, optimizer)
    return model, optimizer


def _backward(model: nn.Module) -> None:
    model(torch.randn(4, 8)).sum().backward()


def _step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    _backward(model)
    optimizer.step()


def _content(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    return {"state_dict": model.state_dict(), "optimizer": optimizer.state_dict()}


def _frozen(state: Any) -> Any:
    """The state as it is now, copied by torch and numpy alone."""
    if isinstance(state, (torch.Tensor, np.ndarray)):
        return torch.as_tensor(state).detach().clone()
    if isinstance(state, dict):
        return {key: _frozen(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [_frozen(value) for value in state]
    return state


def _arrived(snapshot: Snapshot) -> Any:
    before_step()  # if no step was made since: now is the time to copy
    return snapshot.state


def _same(snapshot: Snapshot, expected: Any) -> bool:
    return _is_same(_frozen(_arrived(snapshot)), expected)


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_is_same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_is_same, one, other))
    return bool(one == other)


# ---- the barrier ----


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


# ---- every kind of tensor ----


class _Labelled(torch.Tensor):
    pass


_KINDS: dict[str, Callable[[], torch.Tensor]] = {
    "float": lambda: torch.randn(5),
    "bfloat16": lambda: torch.randn(5, dtype=torch.bfloat16),
    "complex": lambda: torch.randn(3, dtype=torch.complex64),
    "conjugate": lambda: torch.randn(3, dtype=torch.complex64).conj(),
    "zero-dimensional": lambda: torch.tensor(3.0),
    "empty": lambda: torch.empty(0, 4),
    "transposed": lambda: torch.randn(3, 4).t(),
    "strided": lambda: torch.randn(12)[::3],
    "view": lambda: torch.randn(6, 6)[2:4],
    "expanded": lambda: torch.randn(1, 3).expand(4, 3),
    "bool": lambda: torch.tensor([True, False]),
    "sparse": lambda: torch.eye(3).to_sparse(),
    "sparse rows": lambda: torch.eye(3).to_sparse_csr(),
    "quantized": lambda: torch.quantize_per_tensor(torch.randn(4), 0.1, 0, torch.qint8),
    "parameter": lambda: nn.Parameter(torch.randn(4)),
    "subclass": lambda: torch.randn(4).as_subclass(_Labelled),
    "large": lambda: torch.randn(300_000),
}


@pytest.mark.filterwarnings("ignore:Sparse CSR", "ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("kind", list(_KINDS))
def test_every_kind_of_tensor_is_of_the_captures_instant(kind: str) -> None:
    tensor = _KINDS[kind]()
    dense = tensor.dequantize() if tensor.is_quantized else tensor.to_dense()
    expected = dense.detach().clone()

    snapshot = capture({"x": tensor, "again": tensor}, overlap=tensor)
    before_step()
    with torch.no_grad():
        if tensor.is_quantized:
            tensor.copy_(torch.zeros(4))
        elif tensor.layout is torch.sparse_csr:
            tensor.values().zero_()
        elif kind != "expanded":  # whose memory torch refuses to write
            tensor.zero_()

    copied = _arrived(snapshot)["x"]
    found = copied.dequantize() if copied.is_quantized else copied.to_dense()
    assert torch.equal(found.detach(), expected)
    assert _arrived(snapshot)["again"] is copied


def test_a_wrapper_is_copied_later_too_and_seen_to_change() -> None:
    from torch.testing._internal.two_tensor import TwoTensor

    tensor = TwoTensor(torch.ones(4), torch.full((4,), 2.0))  # type: ignore[no-untyped-call]

    kept = capture({"x": tensor}, overlap=tensor)
    before_step()
    tensor.zero_()
    torn = capture({"x": tensor}, overlap=tensor)
    tensor.add_(1)

    assert kept.state["x"].a.tolist() == [1, 1, 1, 1]
    with pytest.raises(CaptureError, match="was changed"):
        _arrived(torn)


def test_meta_tensors_are_refused_as_ever() -> None:
    with pytest.raises(CaptureError, match="meta tensor"):
        capture([torch.empty(3, device="meta")], overlap=torch.empty(3, device="meta"))


def test_ties_and_views_stay_tied_across_what_is_copied_now_and_later() -> None:
    base = torch.arange(6.0)

    snapshot = capture({"all": base, "part": base[2:], "other": torch.ones(2)}, overlap=base)

    _arrived(snapshot)["all"][2] = 9
    assert _arrived(snapshot)["part"][0] == 9


def test_python_state_of_any_kind_is_copied_at_once() -> None:
    class Counter:
        def __init__(self) -> None:
            self.seen = [1]

    globals()["Counter"] = Counter  # pickle looks it up there
    Counter.__qualname__ = "Counter"
    weights = torch.ones(3)
    state: dict[str, Any] = {
        "w": weights,
        "numbers": [1, {"a": 2}],
        "array": np.arange(3),
        "set": {1},
        "bytes": bytearray(b"ab"),
        "object": Counter(),
        "rng": torch.get_rng_state(),
    }

    snapshot = capture(state, overlap=weights)
    state["numbers"][1]["a"] = 3
    state["array"][0] = 7
    state["set"].add(2)
    state["bytes"][:] = b"cd"
    state["object"].seen.append(2)
    torch.rand(5)

    kept = _arrived(snapshot)
    assert (kept["numbers"], kept["set"], kept["bytes"]) == ([1, {"a": 2}], {1}, bytearray(b"ab"))
    assert (kept["array"].tolist(), kept["object"].seen) == ([0, 1, 2], [1])
    assert not torch.equal(kept["rng"], torch.get_rng_state())


# ---- one capture serves all ----


def test_a_second_capture_before_the_step_copies_nothing_again() -> None:
    model, optimizer = _training()
    content = _content(model, optimizer)
    everything = state_nbytes(content)

    first = capture(content, overlap=[model, optimizer])
    left = state_nbytes(_content(model, optimizer), overlap=[model, optimizer])
    second = capture({"weights": model.state_dict()}, overlap=[model, optimizer])

    assert left == sum(b.nbytes for b in model.buffers()) < everything
    memory = _arrived(second)["weights"]["0.weight"].untyped_storage().data_ptr()
    assert memory == _arrived(first)["state_dict"]["0.weight"].untyped_storage().data_ptr()


def test_after_a_step_a_capture_copies_anew() -> None:
    model, optimizer = _training()

    first = capture(_content(model, optimizer), overlap=optimizer)
    _step(model, optimizer)
    expected = _frozen(_content(model, optimizer))
    second = capture(_content(model, optimizer), overlap=optimizer)

    assert _same(second, expected)
    old, new = first.state["state_dict"], second.state["state_dict"]
    assert not torch.equal(old["0.weight"], new["0.weight"])


def test_a_change_without_a_step_is_seen_by_the_second_capture() -> None:
    weights = torch.ones(4)

    first = capture([weights], overlap=weights)
    weights.add_(1)
    second = capture([weights], overlap=weights)

    assert _arrived(second)[0].tolist() == [2, 2, 2, 2]
    with pytest.raises(CaptureError, match="was changed"):
        first.wait()


# ---- ends ----


def test_a_dropped_snapshot_leaves_nothing_behind() -> None:
    weights = torch.ones(4)
    reference = weakref.ref(capture([weights], overlap=weights)._copies[0])

    before_step()
    gc.collect()

    assert reference() is None
    assert shared_copies().is_idle


def test_a_snapshot_is_not_the_forked_childs() -> None:
    weights = torch.ones(4)
    snapshot = capture([weights], overlap=weights)

    child = os.fork()
    if not child:
        code = 1
        try:
            before_step()  # nothing to wait for here
            snapshot.wait()
        except CaptureError as error:
            code = 0 if "parent" in str(error) else 2
        finally:
            os._exit(code)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert _arrived(snapshot)[0].tolist() == [1, 1, 1, 1]


# ---- the property ----

_ACTIONS = st.lists(
    st.sampled_from(["step", "forward", "capture", "capture weights", "surgery", "wait", "drop", "load"]),
    max_size=12,
)


@given(actions=_ACTIONS)
def test_a_snapshot_is_the_state_at_its_capture_whatever_the_program(actions: list[str]) -> None:
    model, optimizer = _training()
    taken: list[tuple[Snapshot, Any]] = []
    for action in actions:
        if action == "step":
            _step(model, optimizer)
        elif action == "forward":
            _backward(model)
        elif action == "surgery":
            before_step()
            with torch.no_grad():
                model[0].weight.mul_(1.5)  # type: ignore[index]
        elif action == "load":
            before_step()
            optimizer.load_state_dict(optimizer.state_dict())
        elif action == "wait" and taken:
            _arrived(taken[-1][0])
        elif action == "drop" and taken:
            taken.pop()
        elif action.startswith("capture"):
            content = _content(model, optimizer) if action == "capture" else {"w": model.state_dict()}
            expected = _frozen(content)
            taken.append((capture(content, overlap=[model, optimizer]), expected))

    assert all(_same(snapshot, expected) for snapshot, expected in taken)
