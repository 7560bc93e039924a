"""TensorBoard's event file, and PyTorch's writer over it.

Writes the records itself: TensorBoard's own writer keeps a thread and a buffer that somebody has to close. One file
for everything, since TensorBoard reads only the newest file of a folder.
"""

from __future__ import annotations

import os
import socket
import time
from functools import cached_property
from pathlib import Path
from typing import Any

from asynchooks.visualization._append import AppendFile

__all__ = ["EventFile", "summary_writer"]


class EventFile:
    """Appends events, each with the operating system when the call returns; goes on in the same file after `close`.

    Has the methods of TensorBoard's ``EventFileWriter``.

    Args:
        folder: where the file is made, when the first event comes.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)

    def add_event(self, event: Any) -> None:
        """Append one ``Event``."""
        from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]

        if not self._file.path.exists():
            self._records.write(
                Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString()
            )
        self._records.write(event.SerializeToString())

    def get_logdir(self) -> str:
        """Return the folder."""
        return str(self._folder)

    def flush(self) -> None:
        """Nothing is held back between two events."""

    def close(self) -> None:
        """Close the file; the next event opens it again."""
        self._file.close()

    def reopen(self) -> None:
        """Nothing to do: the next event opens the file."""

    @cached_property
    def _file(self) -> AppendFile:
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{id(self)}"
        return AppendFile(self._folder / name)

    @cached_property
    def _records(self) -> Any:
        from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]

        return RecordWriter(self._file)


def summary_writer(events: EventFile) -> Any:
    """Return PyTorch's ``SummaryWriter``, for histograms, figures and graphs, whose events go to an event file."""
    from torch.utils.tensorboard.writer import FileWriter, SummaryWriter

    class Over(FileWriter):
        def __init__(self) -> None:
            self.event_writer = events

    class Writer(SummaryWriter):
        def _get_file_writer(self) -> Any:
            writer: Any = self.file_writer
            if writer is None:
                writer = Over()
                vars(self).update(file_writer=writer, all_writers={events.get_logdir(): writer})
            return writer

    return Writer(events.get_logdir())
