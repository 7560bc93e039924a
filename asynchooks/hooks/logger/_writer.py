"""Writes the entries of one run, each to all sinks, and keeps their remote copy. Runs in the background only."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import anyio
import torch.distributed

from asynchooks.checkpoint import Mirror
from asynchooks.hooks.logger._sinks import JsonLines, Record, Sink, TensorboardEvents, TextLines

__all__ = ["Entry", "Writer"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that a run says.

    Attributes:
        mode: "train", "val" or "test".
        step: iteration or epoch under which its numbers are filed.
        record: what the log processor captured; None for the preface alone.
        preface: a line said before.
        is_filed: whether the numbers go to the files too, or the text alone.
    """

    mode: str
    step: int
    record: Any
    preface: str | None = None
    is_filed: bool = True


class Writer:
    """Where one run's entries go; what it needs of the run is taken when it is made."""

    def __init__(
        self,
        logger: logging.Logger,
        processor: Any,
        sinks: Sequence[Sink],
        mirror: Mirror | None,
        *,
        log_dir: Path | None,
        run: str,
        is_spoken: bool,
    ) -> None:
        self._logger = logger
        self._processor = processor
        self._sinks = sinks
        self._mirror = mirror
        self._log_dir = log_dir
        self._run = run
        self._is_spoken = is_spoken

    @classmethod
    def of(cls, runner: Any, sinks: Sequence[str], mirror: Mirror | None) -> Self:
        """Return the writer of a run. Called on the training thread; opens no file."""
        log_dir = getattr(runner, "log_dir", None)
        folder = None if log_dir is None else Path(log_dir)
        files: list[Sink] = []
        if not _is_first_rank():
            folder = None
        if folder is not None and "text" in sinks:
            files.append(TextLines(folder / f"{runner.timestamp}.log"))
        if folder is not None and "json" in sinks:
            files.append(JsonLines(folder / f"{runner.timestamp}.json"))
        if folder is not None and "tensorboard" in sinks:
            files.append(TensorboardEvents(folder / "tensorboard"))
        work_dir = getattr(runner, "work_dir", None)
        return cls(
            runner.logger,
            runner.log_processor,
            files,
            mirror if folder is not None else None,
            log_dir=folder,
            run=Path(work_dir or folder or ".").absolute().name,
            is_spoken="terminal" in sinks,
        )

    async def write(self, entry: Entry) -> None:
        """Say the entry, file its numbers, and copy the files when that is due.

        What one sink refuses does not keep the others from their record.
        """
        record = await anyio.to_thread.run_sync(self._say, entry)
        failures: list[Exception] = []
        for sink in self._sinks:
            try:
                await sink.write(record)
            except Exception as error:  # noqa: BLE001 - raised below, when every sink had its record
                failures.append(error)
        if self._mirror is not None and self._log_dir is not None and not failures:
            await self._mirror.copy_if_due(self._log_dir, self._run)
        if len(failures) > 1:
            raise ExceptionGroup("several log sinks failed", failures)
        if failures:
            raise failures[0]

    async def finish(self) -> None:
        """Close the files, and bring the remote copy up to date."""
        for sink in self._sinks:
            await sink.close()
        if self._mirror is not None and self._log_dir is not None:
            await self._mirror.finish(self._log_dir, self._run, self._logger)

    def _say(self, entry: Entry) -> Record:
        """Read the numbers, which may wait for a device; write the lines. In a worker thread."""
        lines = [] if entry.preface is None else [entry.preface]
        numbers: Mapping[str, Any] = {}
        if entry.record is not None:
            numbers, line = self._processor.format(entry.record)
            lines.append(line)
        for line in lines if self._is_spoken else ():
            self._logger.info(line)
        return Record(entry.mode, entry.step, dict(numbers) if entry.is_filed else {}, "\n".join(lines))


def _is_first_rank() -> bool:
    distributed = torch.distributed
    return not (distributed.is_available() and distributed.is_initialized()) or distributed.get_rank() == 0
