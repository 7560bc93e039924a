"""The scenes that are simulated, and what of them is told."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from scale.assumptions import MB, Job, Layout, MeetingCosts, ObjectCosts
from scale.meeting import Met, meet
from scale.writing import Written, write_data

__all__ = ["PROPOSED", "STEPS", "TODAY", "Outcome", "Scene", "scenes", "simulate_all"]

TODAY = Layout()
PROPOSED = Layout(
    part_bytes=128 * MB,
    paced=True,
    fan_in=128,
    compact=True,
    deletes=0,
    checks_per_s=5_000.0,
    questions=1,
    eager_parents=True,
)
_WRITES = Layout(part_bytes=128 * MB, paced=True)
STEPS: dict[str, Layout] = {
    "as it is": _WRITES,
    "metadata from the cached bytes, compact results": replace(_WRITES, compact=True),
    "and each rank deletes its own, after the decision": replace(_WRITES, compact=True, deletes=0),
    "and 64 deletes at a time instead, on the first rank": replace(_WRITES, compact=True, deletes=64),
    "and one question a look, 5,000/s": replace(
        _WRITES, compact=True, deletes=0, questions=1, checks_per_s=5_000.0
    ),
    "and parents look every 0.1 s": replace(PROPOSED, fan_in=64),
    "and fan_in=128": PROPOSED,
}


@dataclass(frozen=True, slots=True)
class Scene:
    """One save, to be simulated with one seed; `meets` is False where only the data counts."""

    table: str
    label: str
    job: Job
    layout: Layout
    seed: int
    meets: bool = True


@dataclass(frozen=True, slots=True)
class Outcome:
    """A scene's data phase and its meeting."""

    scene: Scene
    written: Written
    met: Met | None


def scenes(*, quick: bool) -> Iterator[Scene]:
    """Yield all scenes: the large ones with fewer seeds."""
    sizes = (8, 64, 512) if quick else (8, 512, 4096, 16_384)
    most = sizes[-1]
    for ranks in sizes:
        for mb in (8, 64, 128, 512):
            for how in ("", ", paced", ", in turns"):
                if ranks * (400 // mb + 2) > 500_000:
                    continue  # its floor alone is told
                layout = Layout(part_bytes=mb * MB, paced="paced" in how, in_turns="turns" in how)
                label = f"{mb} MB{how}"
                fails = not how and ranks > 4096  # and takes long
                for seed in range(1 if fails else _seeds(ranks, quick=quick)):
                    yield Scene("data", label, Job(ranks), layout, seed, meets=False)
    for partitions, ranks_per_file in ((1, 8), (16, 1)):
        layout = replace(_WRITES, partitions=partitions, ranks_per_file=ranks_per_file)
        label = f"128 MB, paced, {partitions} partitions, {ranks_per_file} ranks per file"
        for seed in range(2):
            yield Scene("data", label, Job(most), layout, seed, meets=False)
    for ranks in sizes:
        for label, layout in STEPS.items():
            for seed in range(_seeds(ranks, quick=quick)):
                yield Scene("steps", label, Job(ranks), layout, seed)
    for fan_in in (most, 16, 32, 64, 128, 256):
        for compact in (True, False):
            label = f"{'flat' if fan_in == most else fan_in}, {'compact' if compact else 'full'}"
            layout = replace(PROPOSED, fan_in=fan_in, compact=compact)
            for seed in range(2 if compact else 1):
                yield Scene("fan-in", label, Job(most), layout, seed)


def simulate_all(todo: Sequence[Scene], costs: MeetingCosts, processes: int = 2) -> list[Outcome]:
    """Simulate in several processes; the order is that of the scenes."""
    with ProcessPoolExecutor(processes) as pool:
        return list(pool.map(_simulate, todo, [costs] * len(todo), chunksize=1))


def _seeds(ranks: int, *, quick: bool) -> int:
    return 20 if ranks < 512 else 5 if ranks < 4096 and not quick else 2


def _simulate(scene: Scene, costs: MeetingCosts) -> Outcome:
    written = _written(scene.job, _data_only(scene.layout), scene.seed)
    met = (
        meet(scene.job, scene.layout, costs, ObjectCosts(), written.done_s, scene.seed)
        if scene.meets
        else None
    )
    return Outcome(scene, replace(written, done_s=[max(written.done_s)]), met)


def _data_only(layout: Layout) -> Layout:
    """The same for all that differ in how the ranks meet."""
    return Layout(
        layout.part_bytes, layout.parts_in_flight, layout.partitions, layout.ranks_per_file, layout.paced
    )


@lru_cache(maxsize=8)
def _written(job: Job, layout: Layout, seed: int) -> Written:
    return write_data(job, layout, ObjectCosts(), seed)


def spread(values: Sequence[float]) -> str:
    """Median and range."""
    middle, least, most = statistics.median(values), min(values), max(values)
    return f"{middle:.1f} ({least:.1f} - {most:.1f})"


def grouped(outcomes: Sequence[Outcome], table: str) -> Iterator[tuple[int, str, list[Any]]]:
    """Yield ranks, label and outcomes of all seeds, in order."""
    groups: dict[tuple[int, str], list[Outcome]] = {}
    for each in outcomes:
        if each.scene.table == table:
            groups.setdefault((each.scene.job.ranks, each.scene.label), []).append(each)
    for (ranks, label), found in groups.items():
        yield ranks, label, found
