"""Spans and counters: what the executor and the checkpoint path tell to whoever listens.

Decides the one shape in which time is reported. Knows nothing of who listens: the timeline, a test and the
benchmarks do. With no instrument, the reporting code is not reached at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Instrument", "Span", "SpanKind"]

SpanKind: TypeAlias = Literal[
    "step",  # training thread: one training step, reported by whoever times the loop
    "capture",  # training thread: a consistent view is taken
    "barrier",  # training thread: waits for named in-flight work
    "backpressure",  # training thread: waits for room
    "drain",  # training thread: waits for everything
    "background",  # background: a background part, from its start to its end
    "stage",  # training thread, inside a capture: device -> host copy
    "persist",  # background, inside a part: bytes to the store, invisible
    "commit",  # background: made visible
    "prune",  # background: deleted by retention
]


@dataclass(frozen=True, slots=True)
class Span:
    """One timed piece of work, reported when it has ended.

    Attributes:
        kind: what was done, see `SpanKind`.
        hook: class name of the hook, or the component (``"checkpointer"``) where no hook is known.
        point: hook point, or an empty string.
        start_ns: `time.perf_counter_ns` at the start.
        end_ns: the same clock at the end.
        step: training steps fired when the span started.
        detail: what is useful to a reader, JSON-serializable: bytes, file name, what was waited for.
    """

    kind: SpanKind
    hook: str
    point: str
    start_ns: int
    end_ns: int
    step: int = 0
    detail: Mapping[str, object] = field(default_factory=dict)

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return (self.end_ns - self.start_ns) / 1e9


class Instrument(Protocol):
    """Receives spans and counts. Called on the thread where the work ended; must not block."""

    def record(self, span: Span) -> None:
        """Receive one ended span."""

    def count(self, name: str, amount: int = 1) -> None:
        """Receive a counter's increment, such as ``"checkpoint.bytes"``."""
