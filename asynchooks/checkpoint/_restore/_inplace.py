"""Filling tensors that exist already from a saved state, without a second copy of it.

Decides whether the two fit, before a byte is written, and which tensors the bytes can be read straight into: those
that lie in memory as in the file. The others are filled from a copy that lives until its turn is over.
"""

from __future__ import annotations

import reprlib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from asynchooks.checkpoint._restore._loading import Storages, memory_of, upload
from asynchooks.checkpoint._restore._outline import view_of
from asynchooks.checkpoint._restore._reading import Region
from asynchooks.errors import ForeignCheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from asynchooks.checkpoint._restore._loading import Headers
    from asynchooks.checkpoint._restore._outline import Outline
    from asynchooks.checkpoint._restore._reading import Reading

__all__ = [
    "Plan",
    "apart",
    "fill",
    "lies_alike",
    "described",
    "misfit_error",
    "shares_elements",
    "plan_of",
    "region_of",
]

_MOST_NAMED = 8


@dataclass(slots=True)
class Plan:
    """What goes where: pairs of (destination, saved tensor), and values to set as (container, key, value)."""

    tensors: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)
    values: list[tuple[Any, Any, Any]] = field(default_factory=list)

    def copy(self) -> None:
        """Fill the tensors from saved tensors that are real, and set the values."""
        with torch.no_grad():
            for destination, saved in self.tensors:
                destination.copy_(saved)
        self.set_values()

    def set_values(self) -> None:
        """Set what is no tensor."""
        for container, key, value in self.values:
            container[key] = value


def plan_of(into: Any, saved: Any, where: str) -> Plan:
    """Compare a state of existing tensors with a saved one, entry by entry.

    Raises:
        ForeignCheckpointError: they differ; lists what is missing in either, and what has another shape or dtype.
    """
    comparing = _Comparing()
    comparing.compare(into, saved, "state", None)
    if comparing.missing or comparing.unexpected or comparing.different:
        raise misfit_error(where, comparing.missing, comparing.unexpected, comparing.different)
    return comparing.plan


def misfit_error(
    where: str, missing: list[str], unexpected: list[str], different: list[str]
) -> ForeignCheckpointError:
    """What to say when a checkpoint and an existing state differ."""
    return ForeignCheckpointError(
        f"{where} does not fit the state that it should be read into; nothing was changed."
        + _listed("Missing in the file", missing)
        + _listed("Only in the file", unexpected)
        + _listed("Different", different)
        + " Pass keys=[...] to read a part of the file."
    )


def fill(plan: Plan, outline: Outline, reading: Reading, headers: Headers) -> None:
    """Read the planned tensors, straight into their memory where they lie as in the file."""
    direct = _direct_regions(plan, outline)
    others = [
        (destination, saved)
        for index, (destination, saved) in enumerate(plan.tensors)
        if index not in direct and saved.numel()
    ]
    records = {outline.under(saved).record.name: outline.under(saved).record for _, saved in others}
    storages = Storages(records.values())
    left = Counter(outline.under(saved).record.name for _, saved in others)
    regions = [*direct.values(), *storages.regions(), *headers.regions()]
    with reading.filling(regions, everything=False) as filling, torch.no_grad():
        for destination, saved in others:
            name = outline.under(saved).record.name
            destination.copy_(view_of(storages.wait(name, filling), saved))
            left[name] -= 1
            if not left[name]:
                storages.drop(name)
    headers.check(reading.where)
    plan.set_values()


class _Comparing:
    def __init__(self) -> None:
        self.plan = Plan()
        self.missing: list[str] = []
        self.unexpected: list[str] = []
        self.different: list[str] = []

    def compare(self, into: Any, saved: Any, path: str, place: tuple[Any, Any] | None) -> None:
        if isinstance(into, torch.Tensor) and isinstance(saved, torch.Tensor):
            self._compare_tensors(into, saved, path)
        elif isinstance(into, dict) and isinstance(saved, dict):
            self.missing += [f"{path}[{key!r}]" for key in into if key not in saved]
            self.unexpected += [f"{path}[{key!r}]" for key in saved if key not in into]
            for key in into:
                if key in saved:
                    self.compare(into[key], saved[key], f"{path}[{key!r}]", (into, key))
        elif type(into) in (list, tuple) and type(saved) is type(into) and len(into) == len(saved):
            for index, (mine, theirs) in enumerate(zip(into, saved, strict=True)):
                self.compare(mine, theirs, f"{path}[{index}]", None if type(into) is tuple else (into, index))
        elif _is_tree(into) or _is_tree(saved):
            self.different.append(f"{path} ({described(saved)} in the file, {described(into)} here)")
        elif place is not None:
            self.plan.values.append((*place, saved))
        elif into != saved:
            self.different.append(f"{path} ({described(saved)} in the file; a tuple cannot be changed)")

    def _compare_tensors(self, into: torch.Tensor, saved: torch.Tensor, path: str) -> None:
        if into.shape != saved.shape or into.dtype != saved.dtype or into.layout != saved.layout:
            self.different.append(f"{path} ({described(saved)} in the file, {described(into)} here)")
        elif into.device.type == "meta":
            self.different.append(f"{path} (a meta tensor has no memory to read into)")
        elif shares_elements(into):
            self.different.append(f"{path} (an expanded tensor: several elements share their memory)")
        else:
            self.plan.tensors.append((into, saved))


def _direct_regions(plan: Plan, outline: Outline) -> dict[int, Region]:
    """Regions of the file that can be read into the tensors, by their index in the plan."""
    spans: list[tuple[int, int, int]] = []
    for index, (destination, saved) in enumerate(plan.tensors):
        if lies_alike(destination, saved):
            start = outline.under(saved).record.start + int(saved.storage_offset()) * saved.element_size()
            spans.append((start, start + saved.nbytes, index))
    alone = apart(spans) & apart(
        (tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes, index)
        for _, _, index in spans
        for tensor in [plan.tensors[index][0]]
    )
    copied = {
        outline.under(saved).record.name
        for index, (_, saved) in enumerate(plan.tensors)
        if index not in alone and saved.numel()
    }  # these are read whole for the others' sake
    return {
        index: region_of(start, plan.tensors[index][0])
        for start, _, index in spans
        if index in alone and outline.under(plan.tensors[index][1]).record.name not in copied
    }


def region_of(start: int, destination: torch.Tensor) -> Region:
    """The region of the file that goes into a tensor that is one run of bytes."""
    data = torch.empty(0, dtype=torch.uint8, device=destination.device).set_(
        destination.untyped_storage(),
        destination.storage_offset() * destination.element_size(),
        (destination.nbytes,),
        (1,),
    )
    if destination.device.type == "cpu":
        return Region(start, destination.nbytes, memory_of(data))
    return Region(start, destination.nbytes, take=upload(data))


def lies_alike(destination: torch.Tensor, saved: torch.Tensor) -> bool:
    """Whether the tensor's bytes are one run, in memory as in the file."""
    return (
        type(destination) in (torch.Tensor, torch.nn.Parameter)
        and destination.device.type in ("cpu", "cuda")
        and destination.layout is torch.strided
        and not (destination.is_quantized or destination.is_conj() or destination.is_neg())
        and not (saved.is_quantized or saved.is_conj() or saved.is_neg())
        and bool(saved.numel())
        and _is_dense(saved)
        and list(_extents(saved)) == list(_extents(destination))
    )


def shares_elements(tensor: torch.Tensor) -> bool:
    """Whether it is expanded: writing one element would write others."""
    return any(not stride for _, stride in _extents(tensor))


def _extents(tensor: torch.Tensor) -> Iterator[tuple[int, int]]:
    """Size and stride of each dimension that has more than one element."""
    if tensor.layout is torch.strided:
        yield from (pair for pair in zip(tensor.size(), tensor.stride(), strict=True) if pair[0] > 1)


def _is_dense(tensor: torch.Tensor) -> bool:
    expected = 1
    for size, stride in sorted(_extents(tensor), key=lambda pair: pair[1]):
        if stride != expected:
            return False
        expected *= size
    return True


def apart(spans: Iterable[tuple[int, int, int]]) -> set[int]:
    """The spans' indices, without those that overlap another."""
    apart: set[int] = set()
    furthest, last = -1, -1
    for start, end, index in sorted(spans):
        if start >= furthest:
            apart.add(index)
        else:
            apart.discard(last)
        if end > furthest:
            furthest, last = end, index
    return apart


def _is_tree(value: Any) -> bool:
    return isinstance(value, (torch.Tensor, dict, list, tuple))


def described(value: Any) -> str:
    """A value in a few words."""
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    if isinstance(value, (dict, list, tuple)):
        return f"{type(value).__name__} of {len(value)}"
    is_short = isinstance(value, (int, float, str, bool, type(None)))
    return (
        reprlib.repr(value) if is_short else type(value).__name__
    )  # a file's object may print without an end


def _listed(title: str, places: list[str]) -> str:
    if not places:
        return ""
    more = f" and {len(places) - _MOST_NAMED} more" if len(places) > _MOST_NAMED else ""
    return f" {title}: {', '.join(places[:_MOST_NAMED])}{more}."
