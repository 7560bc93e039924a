"""What a rank tells the first one of its data file, and what `.metadata` becomes of it. Pure but for torch's classes.

Decides how little travels: where tensors lie in a file changes seldom, so their places are told again only when they
have changed. Nothing in it is unpickled.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch.distributed.checkpoint.filesystem import _StorageInfo

from asynchooks.checkpoint._content import digest
from asynchooks.checkpoint._files import File, file_from_document
from asynchooks.checkpoint._sharded._layout import Place
from asynchooks.checkpoint._sharded._metadata import with_places
from asynchooks.checkpoint._sharded._planning import RankPlan, index_key
from asynchooks.errors import CorruptCheckpointError

if TYPE_CHECKING:
    from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex

__all__ = ["Teller", "Told"]


class Teller:
    """What this rank tells of its data files, one save after the other."""

    def __init__(self) -> None:
        self._heard = ""  # what the first rank is known to know
        self._told = ""

    def tell(self, file: File, places: Mapping[str, Place], plan: RankPlan) -> bytes:
        """The file, where its objects lie, and where its tensors do if that is new."""
        tensors = [places[index_key(item.index)] for item in plan.tensors]
        numbers = [number for place in tensors for number in (place.offset, place.length)]
        self._told = digest([json.dumps([index_key(i.index) for i in plan.tensors]).encode(), _text(numbers)])
        told: dict[str, object] = {
            "file": file.document(),
            "objects": {i.index.fqn: dataclasses.astuple(places[i.index.fqn]) for i in plan.objects},
            "layout": self._told,
        }
        if self._told != self._heard:
            told["tensors"] = numbers
        return json.dumps(told).encode()

    def heard(self) -> None:
        """The first rank has decided upon what was told."""
        self._heard = self._told

    def forget(self) -> None:
        """A round has failed: who knows what was heard."""
        self._heard = ""


@dataclass(slots=True)
class Told:
    """What the first rank has heard of all, one save after the other."""

    _layouts: dict[int, tuple[str, list[int]]] = field(default_factory=dict)

    def gather(self, payloads: Sequence[bytes], plan: RankPlan, what: str) -> tuple[list[File], Metadata]:
        """The data files of all ranks, and the metadata of the checkpoint that they are.

        Raises:
            CorruptCheckpointError: a rank has told something else than was planned.
        """
        files: list[File] = []
        places: dict[MetadataIndex, _StorageInfo] = {}
        for rank, (payload, items) in enumerate(zip(payloads, plan.everyone, strict=True)):
            try:
                told = json.loads(payload)
                file = file_from_document(told["file"])
                mine = RankPlan(items)
                numbers = self._tensors(rank, told)
                starts, lengths = numbers[::2], numbers[1::2]
                for item, offset, length in zip(mine.tensors, starts, lengths, strict=True):
                    places[item.index] = _StorageInfo(file.name, offset, length)
                for item in mine.objects:
                    places[item.index] = _StorageInfo(file.name, *told["objects"][item.index.fqn])
            except (ValueError, KeyError, TypeError) as error:
                raise CorruptCheckpointError(
                    f"{what}: rank {rank} did not write what was planned ({error})."
                ) from error
            files.append(file)
        assert plan.metadata is not None  # noqa: S101 - the first rank's
        return files, with_places(plan.metadata, places)

    def _tensors(self, rank: int, told: Mapping[str, object]) -> list[int]:
        layout = str(told["layout"])
        if "tensors" in told:
            self._layouts[rank] = (layout, list(told["tensors"]))  # type: ignore[call-overload]
        known, numbers = self._layouts[rank]
        if known != layout:
            raise ValueError("another layout than the last one that it told")
        return numbers


def _text(numbers: Sequence[int]) -> bytes:
    return json.dumps(numbers).encode()
