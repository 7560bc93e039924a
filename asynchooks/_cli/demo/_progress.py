"""What the demo shows while it runs: one line per run, with a bar on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from rich.console import Console

__all__ = ["Display"]


class Display:
    """Progress of the demo's phases; a context manager. On anything but a terminal, one line per phase.

    Redrawn twice per second: each redraw is Python work that takes the GIL from the training, in every mode alike.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description:<40}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            refresh_per_second=2,
        )

    def phase(self, name: str, steps: int) -> Callable[[], None]:
        """Begin a phase; what is returned is called after each of its steps."""
        if not self._console.is_terminal:
            self._console.print(f"{name}: {steps} steps", highlight=False)
            return lambda: None
        task = self._progress.add_task(name, total=steps)
        return lambda: self._progress.advance(task)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._progress.stop()
