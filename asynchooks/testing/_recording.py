"""An instrument that remembers, for tests and benchmarks."""

from __future__ import annotations

from asynchooks.instrument import Span
from asynchooks.trace import Recorder

__all__ = ["RecordingInstrument"]


class RecordingInstrument(Recorder):
    """A `Recorder` that can be asked for the spans of one kind."""

    def of(self, kind: str, hook: str | None = None) -> list[Span]:
        """Return the spans of a kind, of one hook or all."""
        return [s for s in self.spans if s.kind == kind and hook in (None, s.hook)]
