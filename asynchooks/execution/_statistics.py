"""What happened, as a frozen value: counts, exposed and hidden time, lag, per hook and hook point."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["HookStatistics", "Statistics", "Tally"]


@dataclass(frozen=True, slots=True)
class HookStatistics:
    """One hook at one point.

    Attributes:
        hook: class name.
        point: hook point.
        invocations: times that its method was called.
        parts: background parts started or waiting so far, dropped ones included.
        exposed_s: seconds on the training thread: capture, barrier, backpressure (in sync mode also the
            background parts, which run inline there).
        capture_s: the capture's share of it.
        stage_s: the share spent waiting for a copy that a capture had left under way.
        barrier_s: the share spent waiting for earlier work.
        backpressure_s: the share spent waiting for room.
        hidden_s: seconds of background parts, from their start to their end.
        lag_steps: training steps between the capture and the end of the newest finished part.
        max_lag_steps: the largest such number.
        in_flight: background parts not finished now.
        finished: background parts that ended well.
        failed: background parts that raised or were cancelled.
        abandoned: invocations never started because of an earlier failure.
        skipped: invocations dropped for lack of room.
        coalesced: invocations replaced by a newer one before they started.
    """

    hook: str
    point: str
    invocations: int
    parts: int
    exposed_s: float
    capture_s: float
    stage_s: float
    barrier_s: float
    backpressure_s: float
    hidden_s: float
    lag_steps: int
    max_lag_steps: int
    in_flight: int
    finished: int
    failed: int
    abandoned: int
    skipped: int
    coalesced: int


@dataclass(frozen=True, slots=True)
class Statistics:
    """All hooks and points that were reached, in order of registration, and sums over them."""

    hooks: tuple[HookStatistics, ...]
    steps: int
    drain_s: float
    staged_bytes: int

    @property
    def exposed_s(self) -> float:
        """Seconds of the training thread: captures, barriers, backpressure, and drains."""
        return sum(h.exposed_s for h in self.hooks) + self.drain_s

    @property
    def hidden_s(self) -> float:
        """Seconds of background parts."""
        return sum(h.hidden_s for h in self.hooks)

    @property
    def in_flight(self) -> int:
        """Background parts not finished now."""
        return sum(h.in_flight for h in self.hooks)

    def of(self, hook: str, point: str | None = None) -> tuple[HookStatistics, ...]:
        """Return the rows of one hook's class name, at one point or all."""
        return tuple(h for h in self.hooks if h.hook == hook and point in (None, h.point))


@dataclass(slots=True)
class Tally:
    """The running counts behind a `HookStatistics`; nanoseconds, guarded by the flight's lock."""

    hook: str
    point: str
    invocations: int = 0
    parts: int = 0
    capture_ns: int = 0
    stage_ns: int = 0
    barrier_ns: int = 0
    backpressure_ns: int = 0
    inline_ns: int = 0
    hidden_ns: int = 0
    lag_steps: int = 0
    max_lag_steps: int = 0
    in_flight: int = 0
    finished: int = 0
    failed: int = 0
    abandoned: int = 0
    skipped: int = 0
    coalesced: int = 0

    def launched(self) -> None:
        """Book a background part, started or waiting."""
        self.parts += 1
        self.in_flight += 1

    def ended(self, elapsed_ns: int, lag_steps: int, *, completed: bool) -> None:
        """Book the end of a background part."""
        self.hidden_ns += elapsed_ns
        if completed:
            self.finished += 1
            self.lag_steps = lag_steps
            self.max_lag_steps = max(lag_steps, self.max_lag_steps)

    def frozen(self, firings: int = 0) -> HookStatistics:
        """Return the value now, with the calls that were counted by the plan alone."""
        return HookStatistics(
            hook=self.hook,
            point=self.point,
            invocations=self.invocations + firings,
            parts=self.parts,
            exposed_s=(
                self.capture_ns + self.stage_ns + self.barrier_ns + self.backpressure_ns + self.inline_ns
            )
            / 1e9,
            capture_s=self.capture_ns / 1e9,
            stage_s=self.stage_ns / 1e9,
            barrier_s=self.barrier_ns / 1e9,
            backpressure_s=self.backpressure_ns / 1e9,
            hidden_s=self.hidden_ns / 1e9,
            lag_steps=self.lag_steps,
            max_lag_steps=self.max_lag_steps,
            in_flight=self.in_flight,
            finished=self.finished,
            failed=self.failed,
            abandoned=self.abandoned,
            skipped=self.skipped,
            coalesced=self.coalesced,
        )
