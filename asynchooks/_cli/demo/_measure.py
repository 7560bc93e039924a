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

from asynchooks._cli.demo._clock import VALIDATION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asynchooks.instrument import Span

__all__ = ["Arm", "Baseline", "Block", "measure_arm", "measure_baseline", "measure_block", "saving_captures"]

_SAVING_HOOK = "CheckpointHook"
_STANDSTILL = frozenset({"capture", "barrier", "backpressure"})


@dataclass(frozen=True, slots=True)
class Block:
    """A stretch of pure compute.

    Attributes:
        steps: steps that were timed: all but the first, which allocates.
        loop_s: seconds of the loop for them, validation included.
        step_s: the shortest step: what the machine can do when it is left alone.
        validation_s: mean validation.
    """

    steps: int
    loop_s: float
    step_s: float
    validation_s: float


@dataclass(frozen=True, slots=True)
class Baseline:
    """Pure compute: the same training without hooks that do I/O, in blocks around the other runs.

    Attributes:
        steps_per_s: speed of all blocks together, validation included.
        validation_s: mean validation of all blocks.
        block_steps_per_s: the speed of each block, in the order in which they ran; their spread is the noise.
    """

    steps_per_s: float
    validation_s: float
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
    validation_s = statistics.mean(block.validation_s for block in blocks)
    return Baseline(speed, validation_s, tuple(block.steps / block.loop_s for block in blocks))


def measure_block(spans: Sequence[Span], *, loop_ns: tuple[int, int]) -> Block:
    """Return the numbers of a stretch of pure compute, from its spans and the loop's start and end."""
    steps, validations = _split(spans)
    return Block(
        steps=len(steps),
        loop_s=(loop_ns[1] - loop_ns[0]) / 1e9,
        step_s=min(step.duration_s for step in steps),
        validation_s=statistics.mean(each.duration_s for each in validations),
    )


def measure_arm(mode: str, spans: Sequence[Span], *, end_ns: int, validation_s: float) -> Arm:
    """Return the numbers of one run.

    Args:
        mode: "sync" or "async".
        spans: all spans of the run, its steps included; the last step is saved.
        end_ns: when everything was committed and the run returned.
        validation_s: a validation in pure compute; in a run there may be none without a save in flight.
    """
    steps, validations = _split(spans)
    saves = [capture.start_ns for capture in saving_captures(spans)]
    flights = [
        span
        for span in spans
        if span.kind == "background" and span.hook == _SAVING_HOOK and span.point != "after_run"
        if span.end_ns > min(saves)
    ]
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
        inflation_s=_inflation_s(
            steps, flights, _within(validations, loop_start_ns, loop_end_ns), validation_s
        ),
        lag_steps=statistics.median([int(str(flight.detail["lag_steps"])) for flight in in_loop] or [0]),
        end_s=(end_ns - loop_end_ns) / 1e9,
        wall_s=(end_ns - steps[0].start_ns) / 1e9,
    )


def saving_captures(spans: Sequence[Span]) -> list[Span]:
    """Return the captures of checkpoints. The hook's others, which prepare and end a run, hold no bytes."""
    return [
        span
        for span in spans
        if span.kind == "capture" and span.hook == _SAVING_HOOK and span.detail.get("bytes", 1)
    ]


def _split(spans: Sequence[Span]) -> tuple[list[Span], list[Span]]:
    """Return the training steps and the validations, in order of time."""
    timed = sorted((span for span in spans if span.kind == "step"), key=lambda span: span.start_ns)
    return [s for s in timed if s.hook != VALIDATION], [s for s in timed if s.hook == VALIDATION]


def _within(spans: Sequence[Span], start_ns: int, end_ns: int) -> list[Span]:
    return [span for span in spans if start_ns <= span.start_ns and span.end_ns <= end_ns]


def _inflation_s(
    steps: Sequence[Span], flights: Sequence[Span], validations: Sequence[Span], validation_s: float
) -> float | None:
    busy = [step.duration_s for step in steps if _overlaps(step, flights)]
    quiet = [step.duration_s for step in steps if not _overlaps(step, flights)]
    if not quiet:
        return None
    lost_s = sum(busy) - statistics.mean(quiet) * len(busy)
    return lost_s + sum(each.duration_s - validation_s for each in validations if _overlaps(each, flights))


def _overlaps(span: Span, flights: Sequence[Span]) -> bool:
    return any(span.start_ns < flight.end_ns and flight.start_ns < span.end_ns for flight in flights)


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
