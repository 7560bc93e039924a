"""Keeps what an executor reports: the instrument behind timelines, benchmarks and tests.

Decides how much is kept: the newest spans, up to a limit, so that a run of any length stays flat in memory.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asynchooks.instrument import Span

__all__ = ["Recorder"]


class Recorder:
    """An `Instrument` that records spans and counts. Safe on any thread.

    Args:
        max_spans: how many of the newest spans are kept.
    """

    def __init__(self, *, max_spans: int = 100_000) -> None:
        if max_spans < 1:
            raise ValueError(f"Recorder(max_spans=...) is a positive number, not {max_spans!r}.")
        self._spans: deque[Span] = deque(maxlen=max_spans)
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def record(self, span: Span) -> None:
        """Keep a span."""
        with self._lock:
            self._spans.append(span)

    def count(self, name: str, amount: int = 1) -> None:
        """Add to a counter."""
        with self._lock:
            self._counts[name] += amount

    @property
    def spans(self) -> tuple[Span, ...]:
        """What was recorded so far, in the order in which the work ended."""
        with self._lock:
            return tuple(self._spans)

    @property
    def counts(self) -> Mapping[str, int]:
        """A copy of the counters."""
        with self._lock:
            return dict(self._counts)
