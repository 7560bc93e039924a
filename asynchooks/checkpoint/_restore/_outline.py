"""The shape of a saved state without its bytes, and a part of it made real.

Decides which records a part of a state needs. A state that holds more than tensors and plain containers has no
outline: it is loaded whole.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.serialization import _get_restore_location

from asynchooks.checkpoint._restore._loading import beyond, load_with
from asynchooks.errors import CorruptCheckpointError, ForeignCheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable

    from asynchooks.checkpoint._restore._archive import Archive, Record
    from asynchooks.checkpoint._restore._reading import Reading

__all__ = ["Outline", "Placed", "materialize", "outline_of", "view_of"]

_LEAVES = (
    int,
    float,
    bool,
    str,
    bytes,
    complex,
    type(None),
    torch.dtype,
    torch.device,
    torch.Size,
    bytearray,
)


@dataclass(frozen=True, slots=True)
class Placed:
    """The record under a tensor, and where it was before it was saved."""

    record: Record
    location: str


class Outline:
    """A state of meta tensors that know their records."""

    def __init__(
        self, state: Any, placed: dict[int, Placed], storages: list[torch.UntypedStorage], where: str
    ) -> None:
        self.state = state
        self._where = where
        self._placed = placed
        self._storages = storages  # kept alive: their addresses are the keys

    def under(self, tensor: torch.Tensor) -> Placed:
        """The record that holds a tensor of the state."""
        return self._placed[tensor.untyped_storage()._cdata]  # noqa: SLF001 - what identifies a storage without memory

    def records(self, part: Any) -> list[Record] | None:
        """The records that a part of the state needs, as they lie; None when only loading all of it can tell.

        Raises:
            CorruptCheckpointError: a tensor of the part reaches beyond its record.
        """
        found: dict[str, Record] = {}
        seen: set[int] = set()
        waiting = [part]
        while waiting:
            value = waiting.pop()
            if type(value) in _LEAVES or id(value) in seen:
                continue
            seen.add(id(value))
            if _is_plain(value) and value.untyped_storage()._cdata in self._placed:  # noqa: SLF001 - as above
                record = self.under(value).record
                _check_inside(value, record, self._where)
                found[record.name] = record
                waiting.append(vars(value))
            elif type(value) in (dict, OrderedDict, Counter):
                waiting += [*value.keys(), *value.values(), *getattr(value, "__dict__", {}).values()]
            elif type(value) in (list, tuple, set):
                waiting += value
            else:
                return None
        return sorted(found.values(), key=lambda record: record.start)


def outline_of(reading: Reading, archive: Archive) -> Outline | None:
    """Unpickle a state over storages without memory; guarded, whatever the load is."""
    storages: dict[str, torch.UntypedStorage] = {}
    locations: dict[int, str] = {}

    def storage(name: str) -> torch.UntypedStorage:
        nbytes = archive.records[name].nbytes
        return storages.setdefault(name, torch.UntypedStorage(nbytes, device="meta"))  # type: ignore[no-untyped-call]

    def locate(storage: torch.UntypedStorage, location: str) -> torch.UntypedStorage:
        locations[storage._cdata] = location  # noqa: SLF001 - as above
        return storage

    try:
        state = load_with(reading, archive, storage, map_location=locate, weights_only=True)
    except ForeignCheckpointError:
        return None  # loading all of it says what is wrong, or can do it
    placed = {
        each._cdata: Placed(archive.records[name], locations[each._cdata])  # noqa: SLF001 - as above
        for name, each in storages.items()
    }
    return Outline(state, placed, list(storages.values()), reading.where)


def materialize(
    part: Any, outline: Outline, storage: Callable[[str], torch.UntypedStorage], map_location: Any
) -> Any:
    """The part of an outline with real tensors, whose storages `storage` gives; what was shared is shared."""
    return _Making(outline, storage, map_location).make(part)


class _Making:
    def __init__(
        self, outline: Outline, storage: Callable[[str], torch.UntypedStorage], map_location: Any
    ) -> None:
        self._outline = outline
        self._storage = storage
        self._locate = _get_restore_location(map_location)  # type: ignore[no-untyped-call]
        self._located: dict[str, torch.UntypedStorage] = {}
        self._made: dict[int, Any] = {}

    def make(self, value: Any) -> Any:
        if type(value) in _LEAVES:
            return value
        if id(value) not in self._made:
            self._made[id(value)] = self._make(value)
        return self._made[id(value)]

    def _make(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return self._make_tensor(value)
        if isinstance(value, dict):
            made = type(value)()
            self._made[id(value)] = made  # before the items: a dict may hold itself
            for key, item in value.items():
                made[self.make(key)] = self.make(item)
            if isinstance(value, OrderedDict):
                made.__dict__.update({name: self.make(item) for name, item in value.__dict__.items()})
            return made
        if type(value) is list:
            items: list[Any] = []
            self._made[id(value)] = items
            items.extend(self.make(item) for item in value)
            return items
        return type(value)(self.make(item) for item in value)

    def _make_tensor(self, value: torch.Tensor) -> torch.Tensor:
        placed = self._outline.under(value)
        name = placed.record.name
        if name not in self._located:
            self._located[name] = self._locate(self._storage(name), placed.location)
        storage = self._located[name]
        made = view_of(storage, value)
        if isinstance(value, torch.nn.Parameter):
            made = torch.nn.Parameter(made, requires_grad=value.requires_grad)
        elif value.requires_grad:
            made.requires_grad_(True)
        made.__dict__.update({name: self.make(item) for name, item in vars(value).items()})
        return made


def view_of(storage: torch.UntypedStorage, like: torch.Tensor) -> torch.Tensor:
    """A tensor over the storage, of the dtype, shape and strides of another."""
    made = torch.empty(0, dtype=like.dtype, device=storage.device).set_(
        storage, like.storage_offset(), like.size(), like.stride()
    )
    made = made.conj() if like.is_conj() else made
    return torch._neg_view(made) if like.is_neg() else made  # noqa: SLF001 - torch has no public way


def _check_inside(tensor: torch.Tensor, record: Record, where: str) -> None:
    """Compare a tensor's extent with its record, in numbers that do not overflow as torch's may."""
    if not tensor.numel():
        return
    pairs = zip(tensor.size(), tensor.stride(), strict=True)
    elements = int(tensor.storage_offset()) + sum((int(size) - 1) * int(stride) for size, stride in pairs) + 1
    if elements * tensor.element_size() > record.nbytes:
        raise CorruptCheckpointError(beyond(record, where))


def _is_plain(value: object) -> bool:
    return (
        type(value) in (torch.Tensor, torch.nn.Parameter)
        and isinstance(value, torch.Tensor)
        and value.layout is torch.strided
        and not value.is_quantized
        and not value.is_nested
    )
