"""Parts for tests, shipped: gates, recording instruments, faulty stores, embedded servers."""

from asynchooks.testing._gate import Gate
from asynchooks.testing._recording import RecordingInstrument

__all__ = ["Gate", "RecordingInstrument"]
