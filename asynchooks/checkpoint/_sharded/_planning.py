"""Who writes what: DCP's plan, made once and kept for as long as no rank's state changes its structure.

Decides what is a tensor of its own in the checkpoint and what is an object, when the ranks have to plan anew, and
that each object is written by one rank. How tensors are shared out is DCP's: replicas are spread over the ranks.
Training thread; the ranks talk through what is injected.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import torch
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner, create_default_local_save_plan
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex
from torch.distributed.checkpoint.planner import SavePlan, WriteItem, WriteItemType
from torch.distributed.tensor import DTensor

from asynchooks.checkpoint._sharded._flat import is_odd, is_one_object, name_of, parts_of
from asynchooks.checkpoint._sharded._layout import check_strided
from asynchooks.errors import CaptureError

__all__ = ["Alone", "Planning", "RankPlan", "Talk"]

_LEAVES = frozenset({torch.Tensor, torch.nn.Parameter, DTensor, int, float, bool, str, type(None), tuple})
"""Types of what is never flattened further."""

_TEXT = frozenset({str})


class Talk(Protocol):
    """How the ranks agree, on the training thread. Collectives."""

    def any_rank(self, flag: bool, /) -> bool:  # noqa: FBT001 - its only argument
        """Whether the flag is set on any rank."""

    def decided_by_first(self, mine: Any, decide: Callable[[list[Any]], Sequence[Any]], /) -> Any:
        """The answer for this rank that the first one derives from what all have."""


class Alone:
    """A process without ranks."""

    def any_rank(self, flag: bool) -> bool:  # noqa: FBT001 - its only argument
        """The flag."""
        return flag

    def decided_by_first(self, mine: Any, decide: Callable[[list[Any]], Sequence[Any]]) -> Any:
        """Its own answer."""
        return decide([mine])[0]


@dataclass(frozen=True)
class RankPlan:
    """What one rank writes: its tensors in the order of the plan, then its objects.

    Attributes:
        items: DCP's, this rank's alone.
        world_size: how many ranks write.
        metadata: of the whole checkpoint, without places; on the first rank.
        everyone: the items of every rank; on the first rank.
    """

    items: tuple[WriteItem, ...]
    world_size: int = 1
    metadata: Metadata | None = None
    everyone: tuple[tuple[WriteItem, ...], ...] = ()

    @cached_property
    def tensors(self) -> dict[str, MetadataIndex]:
        """The items that are tensors or parts of them, by `index_key`."""
        return _by_key(item for item in self.items if item.type is not WriteItemType.BYTE_IO)

    @cached_property
    def objects(self) -> dict[str, MetadataIndex]:
        """The items that are objects, by their names."""
        return _by_key(item for item in self.items if item.type is WriteItemType.BYTE_IO)


@dataclass(slots=True)
class Planning:
    """Plans the saves of one kind of state. Every rank asks at the same points.

    Args:
        rank: the number of this one.
        talk: how the ranks agree.
        objects: entries that are written as one object each, tensors and all, by the first rank: see `flattened`.
        of_ranks: the entry with each rank's own object, which that rank writes.
    """

    rank: int = 0
    talk: Talk = field(default_factory=Alone)
    objects: Collection[str] = ()
    of_ranks: str = ""
    _structure: tuple[Any, ...] | None = None
    _plan: RankPlan | None = None

    def plan(self, state: Mapping[str, Any]) -> tuple[RankPlan, dict[str, Any]]:
        """Return this rank's plan, and the state flat: its tensors and objects by their names in the checkpoint.

        A collective: one vote; where a rank's structure has changed since the last time, all exchange their plans.

        Raises:
            CaptureError: the state cannot be written so, on this rank or another.
        """
        flat = flattened(state, self.objects, self.of_ranks)
        structure = (*flat, *_shapes(flat))
        if self.talk.any_rank(structure != self._structure or self._plan is None):
            self._plan = self._planned(flat, state)
            self._structure = structure
        assert self._plan is not None  # noqa: S101 - planned above, at the first time
        return self._plan, flat

    def _planned(self, flat: dict[str, Any], state: Mapping[str, Any]) -> RankPlan:
        try:
            mine: Any = self._local(flat, paths_in(state, self.objects, self.of_ranks))
        except (CaptureError, ValueError, RuntimeError, AssertionError, NotImplementedError) as error:
            mine = f"{type(error).__name__}: {error}"
        answer = self.talk.decided_by_first(mine, _decide)
        if isinstance(answer, str):
            raise CaptureError(f"the state cannot be sharded: {answer}")
        plan: RankPlan = answer
        return plan

    def _local(self, flat: dict[str, Any], paths: Mapping[str, Any]) -> SavePlan:
        ranks = f"{self.of_ranks}."
        chosen = {
            name: value
            for name, value in flat.items()
            if isinstance(value, torch.Tensor)
            or name == f"{ranks}{self.rank}"
            or (self.rank == 0 and not (self.of_ranks and name.startswith(ranks)))
        }
        for name, value in chosen.items():
            if isinstance(value, torch.Tensor):
                check_strided(name, local_part(value))
        plan = create_default_local_save_plan(chosen, self.rank == 0)
        return replace(plan, planner_data={name: paths[name] for name in chosen})


def flattened(state: Mapping[str, Any], objects: Collection[str] = (), of_ranks: str = "") -> dict[str, Any]:
    """The parts of a state by their names in the checkpoint, see `parts_of`. Raises nothing: `paths_in` does.

    Args:
        state: nested dicts and lists.
        objects: entries that are one object each, whatever is in them; ``resume.*`` are those in ``resume``.
        of_ranks: one of those that holds each rank's own object by its number.
    """
    nested, whole = _apart(state, objects, of_ranks)
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if type(value) in (dict, OrderedDict) and value and _is_plain(value):
            # in a sixth of the time of the walk
            flat.update((f"{key}.{name}", part) for name, part in value.items())
        else:
            parts = parts_of({key: value}, lambda _, mapping: is_one_object(mapping))
            flat.update((name_of(path), part) for path, part in parts)
    flat.update((name_of(path), value) for path, value in whole)
    return flat


def paths_in(
    state: Mapping[str, Any], objects: Collection[str] = (), of_ranks: str = ""
) -> dict[str, tuple[Any, ...]]:
    """The keys on the way to each part; arguments as of `flattened`.

    Raises:
        CaptureError: two parts have one name, or a dict with tensors in it has keys that would come back as strings.
    """
    nested, whole = _apart(state, objects, of_ranks)
    paths: dict[str, tuple[Any, ...]] = {}
    for path, _ in (*parts_of(nested, _is_one_or_refused), *whole):
        if (name := name_of(path)) in paths:
            raise CaptureError(f"two parts have the name {name!r}")
        paths[name] = path
    return paths


def _is_one_or_refused(path: tuple[Any, ...], mapping: Mapping[Any, Any]) -> bool:
    if path and is_one_object(mapping):
        return True
    if mapping and is_odd(mapping):
        key = next(key for key in mapping if type(key) is not str)
        raise CaptureError(
            f"{name_of(path) or 'the state'} has the key {key!r}, which would come back as {str(key)!r}. "
            "Give what holds tensors strings as keys."
        )
    return False


def _is_plain(mapping: Mapping[Any, Any]) -> bool:
    return _TEXT.issuperset(map(type, mapping)) and _LEAVES.issuperset(map(type, mapping.values()))


def _apart(
    state: Mapping[str, Any], objects: Collection[str], of_ranks: str
) -> tuple[dict[str, Any], list[tuple[tuple[Any, ...], Any]]]:
    """What is flattened, and what is one object each, with the keys on the way to it."""
    whole: list[tuple[tuple[Any, ...], Any]] = []
    nested: dict[str, Any] = {}
    for name, value in state.items():
        if name in objects:
            whole.append(((name,), value))
        elif f"{name}.*" not in objects or not value:
            nested[name] = value
        else:
            for key, inner in value.items():
                if f"{name}.{key}" == of_ranks:
                    whole.extend(((name, key, rank), own) for rank, own in inner.items())
                else:
                    whole.append(((name, key), inner))
    return nested, whole


def local_part(value: Any) -> Any:
    """What of a tensor lies on this rank; no message."""
    if not isinstance(value, DTensor):
        return value
    with torch.no_grad():  # a view for autograd takes 8 us more, for each tensor of each save
        return value.to_local()


def index_key(index: MetadataIndex) -> str:
    """A name for a part of a tensor: that of the tensor, and where the part starts."""
    return index.fqn if index.offset is None else f"{index.fqn}@{','.join(map(str, index.offset))}"


def _by_key(items: Iterable[WriteItem]) -> dict[str, MetadataIndex]:
    return {index_key(item.index): item.index for item in items}


def _decide(plans: list[Any]) -> list[Any]:
    """On the first rank: share the items out. A text instead of a plan is an error, everybody's then."""
    failed = [f"rank {rank}: {plan}" for rank, plan in enumerate(plans) if isinstance(plan, str)]
    if failed:
        return ["; ".join(failed)] * len(plans)
    planner = DefaultSavePlanner()
    try:
        shared, metadata = planner.create_global_plan(plans)
    except (ValueError, AssertionError) as error:
        return [f"{error}"] * len(plans)
    everyone = tuple(tuple(plan.items) for plan in shared)
    first = RankPlan(everyone[0], len(plans), metadata, everyone)
    return [first, *(RankPlan(items, len(plans)) for items in everyone[1:])]


def _shapes(flat: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    """What of the tensors the plan depends on."""
    for name, value in flat.items():
        if isinstance(value, DTensor):
            yield name, value.shape, value.dtype, value.placements, value.device_mesh
        elif isinstance(value, torch.Tensor):
            yield name, value.shape, value.dtype
