"""Writes the entries of one run: text itself, numbers through visualizers; and keeps their remote copy.

Runs in the background only, one entry after the other.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

import anyio

from asynchooks.checkpoint import Mirror
from asynchooks.distributed import is_first_rank
from asynchooks.hooks.logger._text import TextLines
from asynchooks.visualization import LocalVisBackend, TensorboardVisBackend, Visualizer

__all__ = ["Entry", "Writer"]

_BACKENDS = {"json": LocalVisBackend, "tensorboard": TensorboardVisBackend}


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that a run says.

    Attributes:
        mode: "train", "val" or "test".
        step: iteration or epoch under which its numbers are filed.
        record: what the log processor captured; None for the preface alone.
        preface: a line said before.
        is_filed: whether the numbers go to the visualizers too, or the text alone.
        results: of a test, what is no number.
    """

    mode: str
    step: int
    record: Any
    preface: str | None = None
    is_filed: bool = True
    results: Mapping[str, Any] = field(default_factory=dict)


class Writer:
    """Where one run's entries go; what it needs of the run is taken when it is made.

    Args:
        logger: the run's logger, for the terminal.
        processor: makes numbers and lines of records.
        text: the text file, or None.
        shown: visualizers that receive the numbers: the run's, and one that this writer owns.
        own: the latter, or None.
        tests: receives the results of tests, in a file of their own, or None.
        mirror: the remote copy, or None.
        log_dir: folder of the log files; None where there is none.
        stem: name of the run's log files, without an ending.
        run: name of the run's folder in the remote copy.
        is_spoken: whether lines go to the terminal.
    """

    def __init__(
        self,
        logger: logging.Logger,
        processor: Any,
        text: TextLines | None,
        shown: Sequence[Any],
        own: Visualizer | None,
        tests: LocalVisBackend | None,
        mirror: Mirror | None,
        *,
        log_dir: Path | None,
        stem: str,
        run: str,
        is_spoken: bool,
    ) -> None:
        self._logger = logger
        self._processor = processor
        self._text = text
        self._shown = shown
        self._own = own
        self._tests = tests
        self._mirror = mirror
        self._log_dir = log_dir
        self._stem = stem
        self._run = run
        self._is_spoken = is_spoken

    @classmethod
    def of(cls, runner: Any, sinks: Sequence[str] | None, mirror: Mirror | None) -> Self:
        """Return the writer of a run. Called on the training thread; opens no file."""
        log_dir = getattr(runner, "log_dir", None)
        folder = None if log_dir is None or not is_first_rank() else Path(log_dir)
        visualizer = getattr(runner, "visualizer", None) if is_first_rank() else None
        names = (
            sinks if sinks is not None else ("terminal", "text", *(("json",) if visualizer is None else ()))
        )
        own = None if folder is None else _own(names, visualizer, folder)
        stem = str(getattr(runner, "timestamp", "log"))
        work_dir = getattr(runner, "work_dir", None)
        return cls(
            runner.logger,
            runner.log_processor,
            TextLines(folder / f"{stem}.log") if folder is not None and "text" in names else None,
            [each for each in (visualizer, own) if each is not None],
            own,
            None if folder is None else LocalVisBackend(folder, scalar_save_file=f"{stem}.json"),
            mirror if folder is not None else None,
            log_dir=folder,
            stem=stem,
            run=Path(work_dir or folder or ".").absolute().name,
            is_spoken="terminal" in names,
        )

    async def describe(self, config: Any) -> None:
        """Record the run's configuration."""
        await _all(partial(_in_thread, each.add_config, config) for each in self._shown)

    async def write(self, entry: Entry) -> None:
        """Say the entry, file its numbers, and copy the files when that is due.

        What one of them refuses does not keep the others from their record.
        """
        numbers, lines = await anyio.to_thread.run_sync(self._say, entry)
        steps: list[Callable[[], Awaitable[None]]] = []
        if self._text is not None:
            steps.append(partial(self._text.write, "\n".join(lines)))
        if numbers and entry.is_filed:
            steps += [partial(_in_thread, self._show, each, entry, numbers) for each in self._shown]
            if entry.mode == "test" and self._tests is not None:
                results = {**numbers, **entry.results}
                steps.append(partial(_in_thread, self._tests.add_scalars, results, entry.step))
        await _all(steps)
        if self._mirror is not None and self._log_dir is not None:
            await self._mirror.copy_if_due(self._log_dir, self._run)

    async def finish(self) -> None:
        """Close the files that are the writer's own, and bring the remote copy up to date."""
        if self._text is not None:
            await self._text.close()
        for owned in (self._own, self._tests):
            if owned is not None:
                await _in_thread(owned.close)
        if self._mirror is not None and self._log_dir is not None:
            await self._mirror.finish(self._log_dir, self._run, self._logger)

    def close(self) -> None:
        """`finish`, when nothing runs in the background any more. Blocks; this thread may have an event loop."""
        with ThreadPoolExecutor(1) as thread:
            thread.submit(anyio.run, self.finish).result()

    def _say(self, entry: Entry) -> tuple[dict[str, Any], list[str]]:
        """Read the numbers, which may wait for a device; write the lines. In a worker thread."""
        lines = [] if entry.preface is None else [entry.preface]
        numbers: dict[str, Any] = {}
        if entry.record is not None:
            numbers, line = self._processor.format(entry.record)
            lines.append(line)
        for line in lines if self._is_spoken else ():
            self._logger.info(line)
        return numbers, lines

    def _show(self, visualizer: Any, entry: Entry, numbers: Mapping[str, Any]) -> None:
        scalars = {"mode": entry.mode, **numbers}
        visualizer.add_scalars(scalars, step=entry.step, file_path=f"{self._stem}.json")


def _own(sinks: Sequence[str], visualizer: Any, folder: Path) -> Visualizer | None:
    """Return a visualizer for what the sinks name and the run's own visualizer does not have."""
    present = tuple(getattr(visualizer, "backends", {}).values())
    needed = [kind for name, kind in _BACKENDS.items() if name in sinks]
    missing = [kind() for kind in needed if not any(isinstance(each, kind) for each in present)]
    return Visualizer(vis_backends=missing, save_dir=folder) if missing else None


async def _in_thread(function: Callable[..., object], *arguments: Any) -> None:
    await anyio.to_thread.run_sync(function, *arguments)


async def _all(steps: Any) -> None:
    failures: list[Exception] = []
    for step in steps:
        try:
            await step()
        except Exception as error:  # noqa: BLE001 - raised below, when every step was done
            failures.append(error)
    if len(failures) > 1:
        raise ExceptionGroup("several log sinks failed", failures)
    if failures:
        raise failures[0]
