"""Every kind of state, captured while it changes: the snapshot is of the capture's instant."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Callable
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
from tests.threads import join_threads

from .mutation import (
    _arrived,
    _backward,
    _content,
    _frozen,
    _late,  # noqa: F401 - fixtures
    _same,
    _step,
    _training,
)

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
    join_threads("asynchooks copy")
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
