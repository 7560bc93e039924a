"""From spans to the numbers of the table. Pure: reads no clock, knows no runner.

Decides what counts as what. The *loop* is timed from the step before the first save to the last step: whole cycles
of a save, a validation and the steps to the next save, in every mode alike. *Exposed* is the time that the training
thread stands still for hooks. *Inflation* is what steps lose while a save is in flight, against the mean step of the
same run with nothing in flight (means of both, so that a machine's hiccups cancel out). What comes after the last
step, the last save above all, comes once per run.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asynchooks.instrument import Span

__all__ = ["Arm", "Baseline", "Block", "measure_arm", "measure_baseline"]

_SAVING_HOOK = "CheckpointHook"
_STANDSTILL = frozenset({"capture", "barrier", "backpressure"})


@dataclass(frozen=True, slots=True)
class Block:
    """A stretch of pure compute.

    Attributes:
        steps: steps that were timed: all but the first, which allocates.
        loop_s: seconds of the loop for them, validation included.
        step_s: the shortest step: what the machine can do when it is left alone.
    """

    steps: int
    loop_s: float
    step_s: float


@dataclass(frozen=True, slots=True)
class Baseline:
    """Pure compute: the same training without hooks that do I/O, in blocks around the other runs.

    Attributes:
        steps_per_s: speed of all blocks together, validation included.
        block_steps_per_s: the speed of each block, in the order in which they ran; their spread is the noise.
    """

    steps_per_s: float
    block_steps_per_s: tuple[float, ...]

    @property
    def noise(self) -> float:
        """Largest distance of a block's speed from the mean, as a share of it."""
        return max(abs(speed / self.steps_per_s - 1) for speed in self.block_steps_per_s)


@dataclass(frozen=True, slots=True)
class Arm:
    """One run with checkpoints, measured.

    Attributes:
        mode: "sync" or "async".
        committed: committed checkpoints of the whole run, best ones included.
        steps: steps of the loop.
        saves: checkpoints that the loop pays for: the last ones come after it.
        loop_s: seconds of the loop.
        exposed_s: seconds of the loop in which the training thread stood still for hooks.
        inflation_s: seconds that steps lost while a save was in flight; None where every step had one.
        lag_steps: median steps between capture and commit, of the loop's saves.
        end_s: seconds from the last step until everything was committed.
        wall_s: seconds of the whole run after its first step.
    """

    mode: str
    committed: int
    steps: int
    saves: int
    loop_s: float
    exposed_s: float
    inflation_s: float | None
    lag_steps: float
    end_s: float
    wall_s: float

    @property
    def steps_per_s(self) -> float:
        """Speed of the loop."""
        return self.steps / self.loop_s

    @property
    def own_share(self) -> float | None:
        """Share of the loop that was neither exposed nor inflation: pure compute by the run's own quiet steps."""
        return None if self.inflation_s is None else 1 - (self.exposed_s + self.inflation_s) / self.loop_s


def measure_baseline(blocks: Sequence[Block]) -> Baseline:
    """Return the baseline from its blocks."""
    speed = sum(block.steps for block in blocks) / sum(block.loop_s for block in blocks)
    return Baseline(speed, tuple(block.steps / block.loop_s for block in blocks))


def measure_arm(mode: str, spans: Sequence[Span], *, end_ns: int) -> Arm:
    """Return the numbers of one run.

    Args:
        mode: "sync" or "async".
        spans: all spans of the run, its steps included; the last step is saved.
        end_ns: when everything was committed and the run returned.
    """
    steps = sorted((span for span in spans if span.kind == "step"), key=lambda span: span.start_ns)
    flights = [span for span in spans if span.kind == "background" and span.hook == _SAVING_HOOK]
    saves = [span.start_ns for span in spans if span.kind == "capture" and span.hook == _SAVING_HOOK]
    loop_start_ns = max(step.end_ns for step in steps if step.end_ns <= min(saves))
    loop_end_ns = steps[-1].end_ns
    in_loop = [flight for flight in flights if flight.start_ns < loop_end_ns]
    return Arm(
        mode=mode,
        committed=sum(flight.detail["ok"] is True for flight in flights),
        steps=sum(step.start_ns >= loop_start_ns for step in steps),
        saves=sum(start_ns < loop_end_ns for start_ns in saves),
        loop_s=(loop_end_ns - loop_start_ns) / 1e9,
        exposed_s=_exposed_s(spans, loop_start_ns, loop_end_ns),
        inflation_s=_inflation_s(steps, flights),
        lag_steps=statistics.median([int(str(flight.detail["lag_steps"])) for flight in in_loop] or [0]),
        end_s=(end_ns - loop_end_ns) / 1e9,
        wall_s=(end_ns - steps[0].start_ns) / 1e9,
    )


def _inflation_s(steps: Sequence[Span], flights: Sequence[Span]) -> float | None:
    busy: list[float] = []
    quiet: list[float] = []
    for step in steps:
        is_busy = any(step.start_ns < flight.end_ns and flight.start_ns < step.end_ns for flight in flights)
        (busy if is_busy else quiet).append(step.duration_s)
    return sum(busy) - statistics.mean(quiet) * len(busy) if quiet else None


def _exposed_s(spans: Sequence[Span], start_ns: int, end_ns: int) -> float:
    """Return the length of the union of all standstills: one may lie inside another."""
    standstills = sorted(
        (max(span.start_ns, start_ns), min(span.end_ns, end_ns)) for span in spans if span.kind in _STANDSTILL
    )
    total, covered_to = 0, start_ns
    for first, last in standstills:
        total += max(0, last - max(first, covered_to))
        covered_to = max(covered_to, last)
    return total / 1e9
