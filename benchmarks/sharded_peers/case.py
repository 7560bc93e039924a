"""One scene's description and one save's result, as they travel between the parent and its ranks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

__all__ = ["Kind", "SaveResult", "Scene", "Shard", "StoreKind"]

StoreKind: TypeAlias = Literal["local", "s3"]
Kind: TypeAlias = Literal["replicated", "fsdp2"]
Shard: TypeAlias = tuple[str, list[int], list[int], str]
"""A part of a tensor that a rank holds: full name, offsets, lengths, digest."""


@dataclass(frozen=True, slots=True)
class Scene:
    """The same ranks, store and state for all contenders.

    Attributes:
        ranks: how many.
        store: kind of store.
        kind: of the state: on every rank all of it, or a part of each tensor.
        size_mb: of the whole state, model and Adam moments.
        layers: 32 tensors each.
        saves: of each contender, after its first.
        quiet_s: how long to step without a save, before and after each.
        names: the contenders, as the command line calls them.
        url: an empty folder, or an S3 URL; filled in when the scene begins.
        options: fsspec's options for it.
        s3fs: folder in which s3fs is installed; empty where it is installed as usual.
    """

    ranks: int
    store: StoreKind
    kind: Kind
    size_mb: int
    layers: int
    saves: int
    quiet_s: float
    names: tuple[str, ...]
    url: str = ""
    options: dict[str, str] = field(default_factory=dict, repr=False)
    s3fs: str = ""

    @property
    def title(self) -> str:
        """What the reader of a table needs to know."""
        state = {"replicated": "replicated (DDP)", "fsdp2": "sharded (FSDP2)"}[self.kind]
        return f"{self.ranks} rank{'s' * (self.ranks > 1)}, {self.store}, {state}, {self.size_mb} MB in all"


@dataclass(frozen=True, slots=True)
class SaveResult:
    """One save by one contender; seconds.

    Attributes:
        name: of the contender.
        number: 0 is its first.
        exposed_s: the training thread stood still, on the rank where it stood longest.
        inflation_s: steps in flight over as many quiet ones; None where there were none.
        noise_s: the same sum over as many quiet steps: what the machine alone adds.
        durable_s: from the call until the last rank's contender said that the checkpoint is saved.
        cpu_s: processor time of all ranks and their children, less that of the steps.
        steps: that were in flight.
        quiet_step_s: the median around this save.
        parts: times that contenders report themselves, the longest of the ranks.
        rank_bytes: in the data files of each rank.
        other_bytes: in all other files: metadata, manifests.
        verdict: "equal", or what differs from the state at the call.
    """

    name: str
    number: int
    exposed_s: float
    inflation_s: float | None
    noise_s: float
    durable_s: float
    cpu_s: float
    steps: int
    quiet_step_s: float
    parts: dict[str, float]
    rank_bytes: list[int]
    other_bytes: int
    verdict: str

    @classmethod
    def of(cls, fields: dict[str, Any]) -> SaveResult:
        """Return it from what a JSON file holds."""
        return cls(**fields)
