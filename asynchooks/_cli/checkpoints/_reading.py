"""Reading checkpoints with a bar and bytes per second on a terminal, and one line for each elsewhere.

All of that goes to stderr: stdout is the result's. Decides between damaged and replaced or pruned meanwhile.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from asynchooks._cli.checkpoints._outcome import say
from asynchooks._cli.checkpoints._words import printable, size
from asynchooks.checkpoint import list_checkpoints, verify
from asynchooks.errors import CheckpointNotFoundError, CorruptCheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asynchooks._cli.checkpoints._places import Place
    from asynchooks.checkpoint import CheckpointInfo

__all__ = ["Finding", "reading", "verify_one"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What reading one checkpoint found.

    Attributes:
        info: the checkpoint.
        error: what differs from what was saved; None when nothing does.
        seconds: how long the reading took.
        is_gone: it was pruned or replaced while it was read, so that nothing is known and nothing is wrong.
    """

    info: CheckpointInfo
    error: str | None
    seconds: float
    is_gone: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether every byte is what was saved."""
        return self.error is None and not self.is_gone


@contextmanager
def reading(what: str, nbytes: int | None) -> Iterator[Callable[[int], None]]:
    """Show a reading of so many bytes; what is yielded is told how many more were read."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        say(what if nbytes is None else f"{what} ({size(nbytes)})")
        yield lambda _nbytes: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(escape(printable(what)), total=nbytes)
        yield lambda more: progress.advance(task, more)


def verify_one(place: Place, info: CheckpointInfo) -> Finding:
    """Verify one committed checkpoint of a folder in which a run may save and prune meanwhile."""
    start_s = time.perf_counter()
    error: str | None = None
    with reading(f"verifying {info.name}", info.nbytes) as progress:
        try:
            verify(place.url_of(info.name), progress=progress, storage_options=place.options)
        except CorruptCheckpointError as corrupt:
            error = str(corrupt)
        except CheckpointNotFoundError as missing:
            error = str(missing)
    is_gone = error is not None and not _is_there(place, info)
    return Finding(info, None if is_gone else error, time.perf_counter() - start_s, is_gone)


def _is_there(place: Place, info: CheckpointInfo) -> bool:
    committed = list_checkpoints(place.folder, storage_options=place.options)
    return any(one.save_id == info.save_id for one in committed)
