"""Where log records go besides the terminal: JSON lines and TensorBoard event files.

A sink appends, one record at a time, and every record is with the operating system when its write returns:
whatever ends the run, what was written stays readable. A file is opened for its first record, and again after
`close`; one that nobody closes is closed with its sink. Runs in the background only; order is the caller's.
"""

from __future__ import annotations

import json
import math
import os
import socket
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import aiofiles
import anyio

__all__ = ["JsonLines", "Record", "Sink", "TensorboardEvents", "TextLines"]


@dataclass(frozen=True, slots=True)
class Record:
    """One set of numbers.

    Attributes:
        mode: "train", "val" or "test".
        step: iteration or epoch that they belong to.
        numbers: name to value; values are numbers, or for a test whatever JSON can hold. Empty where there is only
            text.
        text: the lines as they stand on the terminal.
    """

    mode: str
    step: int
    numbers: Mapping[str, Any]
    text: str = ""


class Sink(Protocol):
    """Receives records, one after the other, on the event loop."""

    async def write(self, record: Record) -> None:
        """Append one record; returns when the operating system has it."""

    async def close(self) -> None:
        """Close what is open."""


class _Lines:
    """A text file to which whole lines are appended."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: Any = None
        self._closing: Callable[[], object] | None = None

    async def append(self, text: str) -> None:
        if self._file is None:
            await anyio.Path(self._path.parent).mkdir(parents=True, exist_ok=True)
            self._file = await aiofiles.open(self._path, "a", buffering=1, encoding="utf-8")
            self._closing = weakref.finalize(self, self._file._file.close)  # noqa: SLF001 - the plain file inside
        await self._file.write(text)

    async def close(self) -> None:
        """Close the file; the next line opens it again."""
        if self._closing is not None:
            await anyio.to_thread.run_sync(self._closing)
            self._file = self._closing = None


class TextLines(_Lines):
    """The lines as they stand on the terminal, with the time."""

    async def write(self, record: Record) -> None:
        """Append the lines."""
        now = time.strftime("%Y/%m/%d %H:%M:%S")
        await self.append("".join(f"{now} {line}\n" for line in record.text.splitlines()))


class JsonLines(_Lines):
    """One JSON object per record and line: the numbers, ``mode`` and ``step``.

    Standard JSON: a number that is not finite is written as a string, ``"nan"``.
    """

    async def write(self, record: Record) -> None:
        """Append one line."""
        if not record.numbers:
            return
        numbers = {name: _finite(value) for name, value in record.numbers.items()}
        line = json.dumps({"mode": record.mode, **numbers, "step": record.step}, default=_plain)
        await self.append(line + "\n")


class TensorboardEvents:
    """One event file of scalars, named ``{mode}/{name}``, as TensorBoard reads it.

    Writes the records itself: TensorBoard's own writer keeps a thread and a buffer that somebody has to close.
    """

    def __init__(self, folder: Path) -> None:
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
        self._path = folder / name

    async def write(self, record: Record) -> None:
        """Append one event."""
        if not record.numbers:
            return
        await anyio.to_thread.run_sync(self._append, record)

    async def close(self) -> None:
        """Nothing is open between two records."""

    def _append(self, record: Record) -> None:
        from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]
        from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
        from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]

        events = []
        if not self._path.exists():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            events.append(Event(wall_time=time.time(), file_version="brain.Event:2"))
        values = [
            Summary.Value(tag=f"{record.mode}/{name}", simple_value=float(value))
            for name, value in record.numbers.items()
            if isinstance(value, int | float)
        ]
        events.append(Event(wall_time=time.time(), step=record.step, summary=Summary(value=values)))
        with self._path.open("ab") as file:
            writer = RecordWriter(file)
            for event in events:
                writer.write(event.SerializeToString())
            file.flush()


def _finite(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _plain(value: Any) -> Any:
    """Return what JSON can hold of a value that it does not know."""
    for method in ("tolist", "item"):
        if hasattr(value, method):
            return getattr(value, method)()
    return str(value)
