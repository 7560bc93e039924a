"""One line of a terminal that is drawn again and again, and gives way to log lines."""

from __future__ import annotations

import logging
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["Line"]

_ERASE = "\r\x1b[2K"


class Line:
    """The line.

    Attributes:
        is_watched: whether somebody sees it: whether this is a terminal that can redraw.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._is_shown = False
        self.is_watched = console.is_terminal and not console.is_dumb_terminal

    def draw(self, renderable: Table) -> None:
        """Draw in place of the line before. Called in a worker thread."""
        with self._console.capture() as captured:
            self._console.print(renderable, no_wrap=True, overflow="ellipsis", crop=True)
        self._is_shown = True
        self._write(_ERASE + captured.get().split("\n", 1)[0] + "\r")

    def clear(self) -> None:
        """Leave an empty line, if one is drawn."""
        if self._is_shown:
            self._is_shown = False
            self._write(_ERASE)

    def make_way_for(self, logger: logging.Logger) -> None:
        """Have the logger's terminal handlers clear the line before they write."""
        for handler in _handlers(logger):
            if isinstance(handler, logging.StreamHandler) and not isinstance(handler.stream, _GivesWay):
                stream = handler.stream
                if getattr(stream, "isatty", bool)():
                    handler.setStream(_GivesWay(stream, self))

    def _write(self, text: str) -> None:
        self._console.file.write(text)
        self._console.file.flush()


def _handlers(logger: logging.Logger | None) -> list[logging.Handler]:
    """Return the handlers that a logger's records reach."""
    handlers: list[logging.Handler] = []
    while logger is not None:
        handlers += logger.handlers
        logger = logger.parent if logger.propagate else None
    return handlers


class _GivesWay:
    """A text stream that clears the progress line before it writes."""

    def __init__(self, stream: Any, line: Line) -> None:
        self._stream = stream
        self._line = line

    def write(self, text: str) -> int:
        """Write below whatever was logged before."""
        self._line.clear()
        return int(self._stream.write(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
