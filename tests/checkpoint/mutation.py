"""A training that is captured, and what its captures are compared with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from asynchooks.checkpoint import Snapshot, before_step
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
