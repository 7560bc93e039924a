"""What a rank tells the first one of its data file, and what `.metadata` becomes of it. Pure but for torch's classes.

Decides how little travels: the file's name and sums, and the lengths of its items where they have changed; names and
starts follow from the plan. Nothing in it is unpickled. And how little is made anew: between two saves of one plan
and layout, `.metadata` differs in the save's id alone.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch.distributed.checkpoint.filesystem import _StorageInfo

from asynchooks.checkpoint._content import digest
from asynchooks.checkpoint._files import File, file_from_document
from asynchooks.checkpoint._sharded._datafile import data_name
from asynchooks.checkpoint._sharded._layout import starts_of
from asynchooks.checkpoint._sharded._metadata import encode_metadata, with_places
from asynchooks.checkpoint._sharded._planning import RankPlan
from asynchooks.errors import CorruptCheckpointError

if TYPE_CHECKING:
    from torch.distributed.checkpoint.metadata import MetadataIndex

__all__ = ["Teller", "Told"]

_MAX_TOLD_BYTES = 2**28


class Teller:
    """What this rank tells of its data files, one save after the other."""

    def __init__(self) -> None:
        self._heard = ""  # what the first rank is known to know
        self._told = ""

    def tell(self, file: File, lengths: Sequence[int]) -> bytes:
        """The file, and the lengths of the items in it if they are new."""
        text = json.dumps(lengths, separators=(",", ":")).encode()
        self._told = digest([text])
        told: dict[str, Any] = {"file": file.document(), "layout": self._told}
        if self._told != self._heard:
            told["lengths"] = lengths
        return zlib.compress(json.dumps(told, separators=(",", ":")).encode(), 1)

    def heard(self) -> None:
        """The first rank has decided upon what was told."""
        self._heard = self._told

    def forget(self) -> None:
        """A round has failed: who knows what was heard."""
        self._heard = ""


@dataclass(frozen=True, slots=True)
class _Made:
    """A `.metadata`, and what it was made for."""

    plan: RankPlan
    layouts: tuple[str, ...]
    save_id: str
    data: bytes


@dataclass(slots=True)
class Told:
    """What the first rank has heard of all, one save after the other."""

    _lengths: dict[int, tuple[str, list[int]]] = field(default_factory=dict)
    _made: _Made | None = None

    def gather(
        self, payloads: Sequence[bytes], plan: RankPlan, what: str, save_id: str
    ) -> tuple[list[File], bytes]:
        """The data files of all ranks, and the bytes of the `.metadata` of the checkpoint that they are.

        Raises:
            CorruptCheckpointError: a rank has told something else than was planned.
        """
        files: list[File] = []
        for rank, (payload, items) in enumerate(zip(payloads, plan.everyone, strict=True)):
            try:
                told = _decoded(payload)
                files.append(_file(told, data_name(rank, save_id)))
                self._learn(rank, told, nitems=len(items))
            except (ValueError, KeyError, TypeError, RecursionError, zlib.error) as error:
                raise CorruptCheckpointError(
                    f"{what}: rank {rank} did not write what was planned ({error})."
                ) from error
        return files, self._metadata(files, plan, save_id)

    def _learn(self, rank: int, told: Mapping[str, Any], *, nitems: int) -> None:
        layout = str(told["layout"])
        if "lengths" in told:
            self._lengths[rank] = (layout, [*map(int, told["lengths"])])
        known, lengths = self._lengths[rank]
        if known != layout:
            raise ValueError("another layout than the last one that it told")
        if len(lengths) != nitems:
            raise ValueError(f"{len(lengths)} items instead of {nitems}")

    def _metadata(self, files: Sequence[File], plan: RankPlan, save_id: str) -> bytes:
        layouts = tuple(self._lengths[rank][0] for rank in range(len(files)))
        made = self._made
        if made is not None and made.plan is plan and made.layouts == layouts:
            return made.data.replace(
                made.save_id.encode(), save_id.encode()
            )  # of one length, and in names alone
        assert plan.metadata is not None  # noqa: S101 - the first rank's
        places: dict[MetadataIndex, _StorageInfo] = {}
        for rank, (file, items) in enumerate(zip(files, plan.everyone, strict=True)):
            mine, lengths = RankPlan(items), self._lengths[rank][1]
            starts = starts_of(lengths, ntensors=len(mine.tensors))
            indices = [*mine.tensors.values(), *mine.objects.values()]
            for index, start, length in zip(indices, starts, lengths, strict=True):
                places[index] = _StorageInfo(file.name, start, length)
        data = encode_metadata(with_places(plan.metadata, places))
        self._made = _Made(plan, layouts, save_id, data)
        return data


def _decoded(payload: bytes) -> dict[str, Any]:
    told = json.loads(zlib.decompressobj().decompress(payload, _MAX_TOLD_BYTES))
    if not isinstance(told, dict):
        raise TypeError("no JSON object")
    return told


def _file(told: Mapping[str, Any], name: str) -> File:
    file = file_from_document(told["file"])
    if file.name != name:
        raise ValueError(f"{file.name!r} instead of {name!r}")
    return file
