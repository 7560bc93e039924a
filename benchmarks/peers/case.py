"""One measurement's description and its result, as they travel between the parent and a fresh child process."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

__all__ = ["Case", "Outcome", "PlaceKind", "SaveResult", "Workload"]

PlaceKind: TypeAlias = Literal["local", "tmpfs", "s3", "slow-s3"]
Workload: TypeAlias = Literal["launch", "compute"]


@dataclass(frozen=True, slots=True)
class Case:
    """What a child does.

    Attributes:
        peer: name of the contender.
        place: kind of store.
        url: where to save: a folder that is there, or an S3 URL.
        options: fsspec's options for it.
        size_mb: model and Adam state together.
        workload: what a step does.
        device: where the state lives.
        saves: the first is cold and told apart.
        quiet_s: how long to step without a save before each.
    """

    peer: str
    place: PlaceKind
    url: str
    options: dict[str, str]
    size_mb: int
    workload: Workload
    device: str
    saves: int
    quiet_s: float


@dataclass(frozen=True, slots=True)
class SaveResult:
    """One save, in seconds, without its memory.

    Attributes:
        start, end: of the time in flight, on the machine's monotonic clock.
        exposed_s: the training thread was blocked: in the call, and before later updates of the state.
        claimed_s: until the contender said that it was saved.
        durable_s: until it was, under its final name: with the fsync that the contender left out.
        inflation_s: steps in flight over quiet ones.
        noise_s: the same sum for as many quiet steps: what the machine alone adds.
        steps: steps that were in flight.
        quiet_step_s: median quiet step around this save.
        ratio_p50, ratio_p99: steps in flight over the quiet median; None where there were none.
        cpu_s: processor time of the process tree, less that of the steps.
        parts: times that the contender reports itself.
        verdict: "equal", "not checked", or what differs from the state at the capture.
    """

    start: float
    end: float
    exposed_s: float
    claimed_s: float
    durable_s: float
    inflation_s: float | None
    noise_s: float
    steps: int
    quiet_step_s: float
    ratio_p50: float | None
    ratio_p99: float | None
    cpu_s: float
    parts: dict[str, float]
    verdict: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that one child found.

    Attributes:
        state_bytes: of the model and Adam state.
        setup_s: until the contender was ready for its first save.
        baseline_at: the moment before that, from which extra memory is counted.
        saves: in order.
        extra_bytes: per save, the peak of memory above the state; filled in by the parent, like all that follows.
        foreign_cores: cores that others than this child kept busy, on average; with S3 that includes its server.
        error: why there is nothing more; empty when all went well.
    """

    state_bytes: int = 0
    setup_s: float = 0.0
    baseline_at: float = 0.0
    saves: list[SaveResult] = field(default_factory=list)
    extra_bytes: list[int] = field(default_factory=list)
    foreign_cores: float = 0.0
    error: str = ""
