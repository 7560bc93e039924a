"""``sweep``: shows what killed runs left, asks, removes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asynchooks._cli.checkpoints._consent import check_can_ask, is_confirmed
from asynchooks._cli.checkpoints._interrupt import uninterrupted
from asynchooks._cli.checkpoints._outcome import Outcome
from asynchooks._cli.checkpoints._words import count, print_json, print_line, print_table, size, time_words
from asynchooks.checkpoint import inspect_folder, sweep

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asynchooks.checkpoint import OtherFile

__all__ = ["sweep_folder"]


def sweep_folder(
    url: str, options: Mapping[str, Any], older_than_s: float, *, dry_run: bool, yes: bool, as_json: bool
) -> Outcome:
    """Find leftovers, show, ask, remove; a first Ctrl-C waits until what has begun is done."""
    check_can_ask(dry_run=dry_run, yes=yes, as_json=as_json)
    others = {other.name: other for other in inspect_folder(url, storage_options=options).others}
    found = sweep(url, older_than_s=older_than_s, dry_run=True, storage_options=options)
    if found and not as_json:
        _print(found, others)
    removed: list[str] = []
    if found and not dry_run and is_confirmed(f"Remove {count(len(found), 'file')}?", yes=yes):
        with uninterrupted():
            removed = sweep(url, older_than_s=older_than_s, storage_options=options)
    if as_json:
        print_json(
            {"dry_run": dry_run, "leftovers": [_facts(name, others) for name in found], "removed": removed}
        )
    else:
        print_line(_said(found, removed, dry_run=dry_run))
    return Outcome.FINE


def _print(found: Sequence[str], others: Mapping[str, OtherFile]) -> None:
    print_table(
        ("leftover", "size", "modified (UTC)", "what it is"),
        [
            (name, size(other.nbytes), time_words(other.modified), other.reason)
            if (other := others.get(name)) is not None
            else (name, "", "", "")
            for name in found
        ],
        right=("size",),
    )
    print_line("")


def _facts(name: str, others: Mapping[str, OtherFile]) -> dict[str, Any]:
    other = others.get(name)
    return {
        "name": name,
        "bytes": None if other is None else other.nbytes,
        "reason": None if other is None else other.reason,
    }


def _said(found: Sequence[str], removed: Sequence[str], *, dry_run: bool) -> str:
    if not found:
        return "No leftovers that old."
    if dry_run:
        return f"Would remove {count(len(found), 'file')}."
    return f"Removed {count(len(removed), 'file')}." if removed else "Nothing was removed."
