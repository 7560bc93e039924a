"""``list``: the committed checkpoints of a folder, and why everything else there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asynchooks._cli.checkpoints._outcome import Outcome
from asynchooks._cli.checkpoints._places import Place
from asynchooks._cli.checkpoints._reading import verify_one
from asynchooks._cli.checkpoints._words import (
    checkpoint_facts,
    count,
    metric_words,
    print_json,
    print_line,
    print_table,
    short_id,
    size,
    time_words,
)
from asynchooks.checkpoint import inspect_folder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asynchooks._cli.checkpoints._reading import Finding
    from asynchooks.checkpoint import CheckpointInfo, FolderContents

__all__ = ["list_folder", "others_facts", "print_others"]


def list_folder(url: str, options: Mapping[str, Any], *, verify: bool, as_json: bool) -> Outcome:
    """Print what lies in a folder."""
    contents = inspect_folder(url, storage_options=options)
    place = Place(url, options, contents)
    findings = {info.save_id: verify_one(place, info) for info in contents.checkpoints if verify}
    if as_json:
        print_json(_facts(contents, findings))
    else:
        _print(contents, findings)
    is_damaged = any(other.kind == "damaged" for other in contents.others)
    is_damaged = is_damaged or any(finding.error is not None for finding in findings.values())
    return Outcome.PROBLEM if is_damaged or not contents.checkpoints else Outcome.FINE


def others_facts(contents: FolderContents) -> list[dict[str, Any]]:
    """The files of a folder that belong to no checkpoint, for ``--json``."""
    return [
        {
            "name": other.name,
            "bytes": other.nbytes,
            "modified": None if other.modified is None else other.modified.isoformat(),
            "kind": other.kind,
            "reason": other.reason,
        }
        for other in contents.others
    ]


def print_others(contents: FolderContents, *, kinds: tuple[str, ...]) -> None:
    """Print the files of a folder that belong to no checkpoint."""
    print_table(
        ("not committed", "size", "modified (UTC)", "kind", "why"),
        [
            (other.name, size(other.nbytes), time_words(other.modified), other.kind, other.reason)
            for other in contents.others
            if other.kind in kinds
        ],
        right=("size",),
    )


def _print(contents: FolderContents, findings: Mapping[str, Finding]) -> None:
    if contents.checkpoints:
        columns = (
            "name",
            "step",
            "epoch",
            "metrics",
            "size",
            "layout",
            "created (UTC)",
            "run",
            "group",
            "pointer",
            "verified",
        )
        rows = [_row(contents, info, findings.get(info.save_id)) for info in contents.checkpoints]
        print_table(columns, rows, right=("step", "epoch", "size"))
        print_line("")
    if contents.others:
        print_others(contents, kinds=("damaged", "unfinished", "foreign"))
        print_line("")
    for finding in findings.values():
        if finding.error is not None:
            print_line(f"damaged: {finding.error}")
    print_line(_total(contents))
    for hint in _hints(contents):
        print_line(hint)


def _row(contents: FolderContents, info: CheckpointInfo, finding: Finding | None) -> tuple[str, ...]:
    return (
        info.name,
        str(info.step),
        "" if info.epoch is None else str(info.epoch),
        metric_words(info.metrics),
        size(info.nbytes),
        _layout(info),
        time_words(info.created),
        short_id(info.run_id),
        info.group,
        ", ".join(_pointers(contents, info)),
        "" if finding is None else "gone" if finding.is_gone else "yes" if finding.is_whole else "DAMAGED",
    )


def _layout(info: CheckpointInfo) -> str:
    """Of a sharded one; a single file needs no word."""
    if info.layout == "single":
        return ""
    return f"sharded: {count(info.nfiles, 'file')}, {count(info.world_size, 'rank')}"


def _pointers(contents: FolderContents, info: CheckpointInfo) -> list[str]:
    return [pointer for pointer, name in contents.pointers.items() if name == info.name]


def _total(contents: FolderContents) -> str:
    committed = sum(info.nbytes for info in contents.checkpoints)
    others = sum(other.nbytes for other in contents.others)
    parts = [f"{count(len(contents.checkpoints), 'committed checkpoint')} ({size(committed)})"]
    if contents.others:
        parts.append(f"{count(len(contents.others), 'other file')} ({size(others)})")
    return f"{contents.url}: {', '.join(parts)}, {size(contents.nbytes)} in all."


def _hints(contents: FolderContents) -> list[str]:
    kinds = {other.kind for other in contents.others}
    hints: list[str] = []
    if not contents.checkpoints:
        hints.append("Nothing is committed here. A run's folder is the one that holds last_checkpoint.")
    if "damaged" in kinds:
        hints.append("Something is damaged: `restore-check` says what a run would resume from.")
    if "unfinished" in kinds:
        hints.append("What killed runs left, once it is a day old, `sweep` removes.")
    return hints


def _facts(contents: FolderContents, findings: Mapping[str, Finding]) -> dict[str, Any]:
    return {
        "url": contents.url,
        "checkpoints": [
            checkpoint_facts(info)
            | {
                "pointers": _pointers(contents, info),
                "verified": _verified(findings.get(info.save_id)),
            }
            for info in contents.checkpoints
        ],
        "pointers": dict(contents.pointers),
        "others": others_facts(contents),
        "bytes": contents.nbytes,
    }


def _verified(finding: Finding | None) -> bool | None:
    return None if finding is None or finding.is_gone else finding.is_whole
