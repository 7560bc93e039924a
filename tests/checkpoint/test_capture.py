"""Capture: one instant, every storage once, and a place in the state for what cannot be captured."""

import collections
import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from asynchooks.checkpoint import capture, state_nbytes
from asynchooks.errors import CaptureError


class Point(NamedTuple):
    x: torch.Tensor
    y: int


def _training() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 1))
    return model, torch.optim.AdamW(model.parameters())


def _step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.randn(4, 8)).sum().backward()
    optimizer.step()


def _flat(state: Any) -> list[torch.Tensor]:
    if isinstance(state, torch.Tensor):
        return [state]
    if isinstance(state, dict):
        return [tensor for value in state.values() for tensor in _flat(value)]
    if isinstance(state, (list, tuple)):
        return [tensor for value in state for tensor in _flat(value)]
    return []


def test_later_training_never_shows_in_a_snapshot() -> None:
    model, optimizer = _training()
    _step(model, optimizer)
    state = {"state_dict": model.state_dict(), "optimizer": optimizer.state_dict()}
    before = [tensor.clone() for tensor in _flat(state)]

    snapshot = capture(state)
    for _ in range(3):
        _step(model, optimizer)

    assert all(map(torch.equal, _flat(snapshot.state), before))
    assert not all(map(torch.equal, _flat(state), before))


@pytest.mark.parametrize(
    ("make", "mutate"),
    [
        (lambda: [1, [2]], lambda value: value[1].append(3)),
        (lambda: {"a": {"b": 1}}, lambda value: value["a"].update(b=2)),
        (lambda: {1, 2}, lambda value: value.add(3)),
        (lambda: bytearray(b"ab"), lambda value: value.extend(b"c")),
        (lambda: collections.Counter("ab"), lambda value: value.update("c")),
        (lambda: collections.defaultdict(list, a=[1]), lambda value: value["a"].append(2)),
        (lambda: collections.OrderedDict(a=[1]), lambda value: value["a"].append(2)),
        (lambda: ([1],), lambda value: value[0].append(2)),
        (lambda: np.arange(3), lambda value: value.fill(7)),
        (lambda: torch.zeros(3), lambda value: value.fill_(7)),
        (lambda: torch.zeros(()), lambda value: value.fill_(7)),
        (lambda: torch.nn.Parameter(torch.zeros(3)), lambda value: value.data.fill_(7)),
        (lambda: torch.ones(3).to_sparse(), lambda value: value._values().fill_(7)),
        (lambda: collections.deque([[1]]), lambda value: value[0].append(2)),
    ],
    ids=lambda value: "",
)
def test_in_place_changes_never_show(make: Any, mutate: Any) -> None:
    value = make()

    captured = capture({"value": value}).state["value"]
    mutate(value)

    expected = make()
    assert type(captured) is type(expected)
    assert repr(captured) == repr(expected)


def test_views_and_ties_are_kept() -> None:
    base = torch.arange(12.0).reshape(3, 4)
    state = {"base": base, "row": base[1], "turned": base.t(), "tied": base, "list": [base]}

    captured = capture(state).state
    captured["base"][1, 0] = 100

    assert captured["row"][0] == 100
    assert captured["turned"][0, 1] == 100
    assert captured["tied"] is captured["base"]
    assert captured["list"][0] is captured["base"]
    assert not captured["turned"].is_contiguous()


def test_shared_python_objects_and_cycles_are_kept() -> None:
    shared = [1]
    cycle: list[Any] = [shared, shared]
    cycle.append(cycle)

    captured = capture({"cycle": cycle}).state["cycle"]

    assert captured[0] is captured[1]
    assert captured[2] is captured


def test_a_storage_is_copied_once_and_counted_once() -> None:
    base = torch.zeros(1000)
    state = {"a": base, "b": base[:10], "c": [base[5:]], "array": np.zeros(10)}

    assert capture(state).nbytes == state_nbytes(state) == 4080


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(3.0),
        torch.empty(0),
        torch.empty(3, 0, 2),
        torch.randn(4, 5).t(),
        torch.randn(4, 5)[::2, 1:3],
        torch.ones(2, 3).expand(4, 2, 3),
        torch.randn(3).to(torch.bfloat16),
        torch.randn(3).to(torch.float8_e4m3fn),
        torch.randn(3, dtype=torch.cfloat),
        torch.randn(3, dtype=torch.cfloat).conj(),
        torch.randn(3, dtype=torch.cfloat).conj().imag,
        torch.eye(3).to_sparse(),
        torch.randint(0, 5, (4,), dtype=torch.uint8),
        torch.tensor([True, False]),
    ],
    ids=lambda tensor: f"{tensor.dtype}-{tuple(tensor.shape)}",
)
def test_every_kind_of_tensor_is_captured_as_it_is(tensor: torch.Tensor) -> None:
    captured = capture({"t": tensor}).state["t"]

    assert captured.dtype == tensor.dtype
    assert captured.shape == tensor.shape
    assert captured.layout == tensor.layout
    assert captured.is_conj() == tensor.is_conj()
    assert captured.is_sparse or captured.stride() == tensor.stride()
    assert torch.equal(_comparable(captured), _comparable(tensor))


def _comparable(tensor: torch.Tensor) -> torch.Tensor:
    dense = tensor.to_dense() if tensor.is_sparse else tensor
    return dense.float() if dense.dtype == torch.float8_e4m3fn else dense.resolve_conj().resolve_neg()


def test_parameters_stay_parameters() -> None:
    weight = torch.nn.Parameter(torch.ones(2), requires_grad=False)
    weight.no_decay = True  # type: ignore[attr-defined]

    captured = capture({"w": weight}).state["w"]

    assert isinstance(captured, torch.nn.Parameter)
    assert not captured.requires_grad
    assert captured.no_decay  # type: ignore[attr-defined]


def test_a_modules_metadata_is_kept() -> None:
    captured = capture({"state_dict": torch.nn.BatchNorm1d(2).state_dict()}).state["state_dict"]

    assert captured._metadata[""]["version"] == 2


def test_named_tuples_and_objects_with_tensors_are_copied() -> None:
    tensor = torch.zeros(2)
    state = {"point": Point(tensor, 1), "deque": collections.deque([tensor])}

    captured = capture(state).state
    tensor.fill_(5)

    assert torch.equal(captured["point"].x, torch.zeros(2))
    assert captured["deque"][0] is captured["point"].x


def test_what_a_weights_only_load_refuses_is_named() -> None:
    snapshot = capture({"meta": {"path": Path("x"), "fine": [1, "a", torch.ones(1)]}, "n": np.ones(1)})

    assert snapshot.unsafe == ("state['meta']['path']: PosixPath", "state['n']: ndarray")


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (threading.Lock(), "lock"),
        (lambda: None, "pickle"),
        (torch.empty(2, device="meta"), "meta tensor"),
    ],
    ids=["lock", "lambda", "meta"],
)
def test_what_cannot_be_captured_is_named_with_its_place(value: Any, why: str) -> None:
    with pytest.raises(CaptureError, match=rf"state\['optimizer'\]\[1\].*{why}"):
        capture({"optimizer": [0, value]})


def test_memory_seen_as_two_dtypes_is_refused() -> None:
    base = torch.zeros(4)

    with pytest.raises(CaptureError, match=r"state\['b'\].*clone"):
        capture({"a": base, "b": base.view(torch.int32)})


def test_a_state_nested_too_deeply_is_refused() -> None:
    state: dict[str, Any] = {}
    inner = state
    for _ in range(20_000):
        inner["x"] = inner = {}

    with pytest.raises(CaptureError, match="nested too deeply"):
        capture(state)
