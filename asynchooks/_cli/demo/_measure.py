"""From spans to the numbers of the table. Pure: reads no clock, knows no runner.

Decides what counts as what. *Exposed* is the time that the training thread stands still for hooks. *Inflation*
is what steps lose while a save is in flight, against the median step of the same run with nothing in flight. A
save's *lag* is the number of steps between its capture and its commit.
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
        step_s: median step.
    """

    steps: int
    loop_s: float
    step_s: float


@dataclass(frozen=True, slots=True)
class Baseline:
    """Pure compute: the same training without hooks that do I/O, in blocks around the other runs.

    Attributes:
        steps: steps that one full run has.
        loop_s: seconds of the loop for that many steps, from the mean of the blocks.
        block_steps_per_s: the speed of each block, in the order in which they ran; their spread is the noise.
    """

    steps: int
    loop_s: float
    block_steps_per_s: tuple[float, ...]

    @property
    def steps_per_s(self) -> float:
        """Speed of the loop."""
        return self.steps / self.loop_s

    @property
    def noise(self) -> float:
        """Largest distance of a block's speed from the mean, as a share of it."""
        return max(abs(speed / self.steps_per_s - 1) for speed in self.block_steps_per_s)


@dataclass(frozen=True, slots=True)
class Arm:
    """One run with checkpoints, measured.

    Attributes:
        mode: "sync" or "async".
        steps: training steps.
        saves: committed checkpoints, best ones included.
        loop_s: seconds from the first step to the end of the loop.
        final_wait_s: seconds from the end of the loop until everything was committed: once per run.
        exposed_s: seconds of the loop in which the training thread stood still for hooks.
        inflation_s: seconds that steps lost while a save was in flight; None where every step had one.
        lag_steps: median steps between capture and commit.
        step_s: median step with nothing in flight, or of all steps where there is none.
    """

    mode: str
    steps: int
    saves: int
    loop_s: float
    final_wait_s: float
    exposed_s: float
    inflation_s: float | None
    lag_steps: float
    step_s: float

    @property
    def steps_per_s(self) -> float:
        """Speed of the loop."""
        return self.steps / self.loop_s

    @property
    def own_share(self) -> float | None:
        """Share of the loop that was neither exposed nor inflation: pure compute by the run's own quiet steps."""
        return None if self.inflation_s is None else 1 - (self.exposed_s + self.inflation_s) / self.loop_s

    @property
    def wall_s(self) -> float:
        """Seconds of the whole run: the loop and the wait at its end."""
        return self.loop_s + self.final_wait_s


def measure_baseline(steps: int, blocks: Sequence[Block]) -> Baseline:
    """Return the baseline of a run of ``steps`` steps."""
    seconds_per_step = sum(block.loop_s for block in blocks) / sum(block.steps for block in blocks)
    return Baseline(steps, steps * seconds_per_step, tuple(block.steps / block.loop_s for block in blocks))


def measure_arm(mode: str, spans: Sequence[Span], *, loop_ns: tuple[int, int], end_ns: int) -> Arm:
    """Return the numbers of one run.

    Args:
        mode: "sync" or "async".
        spans: all spans of the run, its steps included.
        loop_ns: start of the first step and end of the loop.
        end_ns: when everything was committed and the run returned.
    """
    start_ns, loop_end_ns = loop_ns
    steps = [span for span in spans if span.kind == "step"]
    flights = [span for span in spans if span.kind == "background" and span.hook == _SAVING_HOOK]
    busy = [step.duration_s for step in steps if any(_overlap(step, flight) for flight in flights)]
    idle = [step.duration_s for step in steps if not any(_overlap(step, flight) for flight in flights)]
    step_s = statistics.median(idle or busy)
    return Arm(
        mode=mode,
        steps=len(steps),
        saves=sum(flight.detail["ok"] is True for flight in flights),
        loop_s=(loop_end_ns - start_ns) / 1e9,
        final_wait_s=(end_ns - loop_end_ns) / 1e9,
        exposed_s=_exposed_s(spans, start_ns, loop_end_ns),
        inflation_s=sum(busy) - step_s * len(busy) if idle else None,
        lag_steps=statistics.median([_lag_steps(flight) for flight in flights] or [0]),
        step_s=step_s,
    )


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


def _lag_steps(flight: Span) -> int:
    return int(str(flight.detail["lag_steps"]))


def _overlap(one: Span, other: Span) -> bool:
    return one.start_ns < other.end_ns and other.start_ns < one.end_ns
