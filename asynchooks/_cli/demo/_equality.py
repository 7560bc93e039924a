"""Whether two checkpoints hold the same tensors, bit by bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Comparison", "compare_tensors"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The outcome of comparing two states.

    Attributes:
        tensors: how many were compared.
        nbytes: their bytes.
        differences: paths of what differs or is missing in one of the two.
    """

    tensors: int
    nbytes: int
    differences: tuple[str, ...]


def compare_tensors(one: Any, other: Any) -> Comparison:
    """Compare all tensors of two nested states: place, shape, dtype and every bit (so NaN equals itself)."""
    left, right = dict(_tensors(one)), dict(_tensors(other))
    differences = sorted(left.keys() ^ right.keys())
    for path in left.keys() & right.keys():
        if not _same_bits(left[path], right[path]):
            differences.append(path)
    return Comparison(len(left), sum(t.nbytes for t in left.values()), tuple(differences))


def _tensors(state: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(state, Tensor):
        yield path, state
    elif isinstance(state, dict):
        for key, value in state.items():
            yield from _tensors(value, f"{path}[{key!r}]")
    elif isinstance(state, list | tuple):
        for index, value in enumerate(state):
            yield from _tensors(value, f"{path}[{index}]")


def _same_bits(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return torch.equal(_bits(one), _bits(other))


def _bits(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
