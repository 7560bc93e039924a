"""An instrument that remembers, for tests and benchmarks."""

from __future__ import annotations

from collections import Counter

from asynchooks.instrument import Span

__all__ = ["RecordingInstrument"]


class RecordingInstrument:
    """Keeps every span and count; appending is safe on any thread."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.counts: Counter[str] = Counter()

    def record(self, span: Span) -> None:
        """Keep a span."""
        self.spans.append(span)

    def count(self, name: str, amount: int = 1) -> None:
        """Add to a counter."""
        self.counts[name] += amount

    def of(self, kind: str, hook: str | None = None) -> list[Span]:
        """Return the spans of a kind, of one hook or all."""
        return [s for s in self.spans if s.kind == kind and hook in (None, s.hook)]
