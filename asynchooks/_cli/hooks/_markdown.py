"""The catalogue as a table of the documentation, between two marks of a file that is otherwise written by hand."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from asynchooks._cli.hooks._catalogue import Entry, catalogue, paragraph_of
from asynchooks._cli.hooks._words import entry_effects_words, priority_words
from asynchooks.errors import ConfigError

__all__ = ["BEGIN", "END", "markdown", "update"]

BEGIN, END = "<!-- catalogue:begin -->", "<!-- catalogue:end -->"
_COLUMNS = ("hook", "priority", "blocks at", "captures for the background at", "effects", "does")


def markdown() -> str:
    """Return the tables of the built-in hooks: those of HOOKS, and MMCV's."""
    entries = [entry for entry in catalogue() if entry.is_builtin]
    own = [entry for entry in entries if "." not in entry.name]
    mmcv = [entry for entry in entries if "." in entry.name]
    tables = [_table(own)]
    if mmcv:
        tables += ["Of MMCV 1.x, for its runners (`asynchooks.registry.MMCV_HOOKS`):", _table(mmcv)]
    return "\n\n".join(tables)


def update(file: Path) -> bool:
    """Put the tables between the marks of a file; return whether that has changed it.

    Raises:
        ConfigError: the file has no such marks.
    """
    before = file.read_text(encoding="utf-8")
    head, begin, rest = before.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ConfigError(f"{file} has no {BEGIN} ... {END} to put the tables between.")
    after = f"{head}{BEGIN}\n{markdown()}\n{END}{tail}"
    if after != before:
        file.write_text(after, encoding="utf-8")
    return after != before


def _table(entries: Iterable[Entry]) -> str:
    rows = [_COLUMNS, tuple("---" for _ in _COLUMNS), *map(_row, entries)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(entry: Entry) -> tuple[str, ...]:
    touches = entry_effects_words(entry.effects, by_arguments=entry.by_arguments, quote="`")
    return (
        f"`{entry.name}`",
        priority_words(entry.priority),
        _points(entry.blocking),
        _points(entry.background),
        touches + ("; changes training state" if entry.changes_state else ""),
        _sentence(entry).replace("|", "\\|"),
    )


def _points(points: Iterable[str]) -> str:
    return ", ".join(f"`{point}`" for point in points) or "-"


def _sentence(entry: Entry) -> str:
    """Return the first sentence of the hook's documentation, and what it fires."""
    first = paragraph_of(entry.kind).partition(". ")[0].rstrip(".").replace("``", "`")
    fires = f"; fires {_points(entry.fires)}" if entry.fires else ""
    return first + fires
