"""Sizes, times, names and tables as a person reads them; the same facts as JSON.

Names come from a store that anybody may have written to: what is not printable is shown as an escape.
"""

from __future__ import annotations

import json
import math
import sys
from typing import TYPE_CHECKING, Any

import typer
from rich import box
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from asynchooks.checkpoint import CheckpointInfo

__all__ = [
    "checkpoint_facts",
    "count",
    "metric_words",
    "print_json",
    "print_line",
    "print_table",
    "printable",
    "short_id",
    "size",
    "time_words",
]

_WIDTH_OF_A_FILE = 10_000
_SHORT_ID = 8


def printable(text: str) -> str:
    """The text with everything that could steer a terminal as an escape."""
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode("ascii") for sign in text
    )


def size(nbytes: int) -> str:
    """A length such as ``1.2 GB``."""
    return decimal(nbytes)


def count(number: int, noun: str) -> str:
    """``1 checkpoint``, ``2 checkpoints``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def time_words(moment: datetime | None) -> str:
    """A moment to the second, in the zone that it is in (the package's are UTC)."""
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}"


def short_id(identifier: str) -> str:
    """Enough of a run's id to name it with ``--run``."""
    return identifier[:_SHORT_ID]


def metric_words(metrics: Mapping[str, float]) -> str:
    """``acc=0.91 loss=0.25``."""
    return " ".join(f"{key}={value:.5g}" for key, value in metrics.items())


def checkpoint_facts(info: CheckpointInfo) -> dict[str, Any]:
    """One checkpoint for ``--json``; a metric that is not finite is a string, as in the manifest."""
    return {
        "name": info.name,
        "url": info.url,
        "step": info.step,
        "epoch": info.epoch,
        "metrics": {
            key: value if math.isfinite(value) else str(value) for key, value in info.metrics.items()
        },
        "bytes": info.nbytes,
        "created": info.created.isoformat(),
        "run_id": info.run_id,
        "save_id": info.save_id,
        "group": info.group,
        "saved_as": info.saved_as,
        "layout": info.layout,
        "files": info.nfiles,
        "world_size": info.world_size,
    }


def print_json(document: Mapping[str, Any]) -> None:
    """Print the one JSON document of a command."""
    typer.echo(json.dumps(document, indent=1, allow_nan=False))


def print_line(text: str) -> None:
    """Print a line of the result."""
    typer.echo(printable(text))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """Print a table without its empty columns; in a file or a pipe, each row is one line.

    Args:
        columns: their headings.
        rows: a text for each of them; without rows there is no table.
        right: which of them are numbers.
    """
    if not rows:
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    shown = [index for index, _ in enumerate(columns) if any(row[index] for row in rows)]
    for index in shown:
        heading = columns[index]
        table.add_column(heading, justify="right" if heading in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(row[index])) for index in shown))
    Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH_OF_A_FILE).print(table)
