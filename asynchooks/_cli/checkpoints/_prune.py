"""``prune``: shows what a retention policy would delete and why the rest stays, asks, deletes.

What is deleted is at most what was shown, whatever a run saves in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from asynchooks._cli.checkpoints._consent import check_can_ask, is_confirmed
from asynchooks._cli.checkpoints._interrupt import uninterrupted
from asynchooks._cli.checkpoints._outcome import Outcome
from asynchooks._cli.checkpoints._reading import reading
from asynchooks._cli.checkpoints._words import (
    checkpoint_facts,
    count,
    metric_words,
    print_json,
    print_line,
    print_table,
    short_id,
    size,
)
from asynchooks.checkpoint import KeepAny, KeepBest, KeepEvery, KeepLast, list_checkpoints, prune
from asynchooks.errors import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from asynchooks._cli.checkpoints._options import Best
    from asynchooks.checkpoint import CheckpointInfo, RetentionPolicy, Verdict

__all__ = ["Pruning", "policy_of", "prune_folder"]


@dataclass(frozen=True, slots=True)
class Pruning:
    """What a user asked for."""

    url: str
    options: Mapping[str, Any]
    policy: RetentionPolicy
    metrics: Sequence[str]
    run: str | None
    group: str | None


@dataclass(frozen=True, slots=True)
class _KeepUnseen:
    """Keeps what the user was not shown as going."""

    seen: frozenset[str]

    def keeps(self, checkpoints: Sequence[CheckpointInfo]) -> frozenset[str]:
        return frozenset(info.save_id for info in checkpoints) - self.seen

    def __or__(self, other: RetentionPolicy) -> RetentionPolicy:
        return KeepAny((self, other))


def policy_of(
    *, last: int | None, steps: int | None, epochs: int | None, best: Sequence[Best]
) -> RetentionPolicy:
    """Return what the ``--keep-...`` options say together: what any of them keeps stays."""
    policies: list[RetentionPolicy] = []
    if last is not None:
        policies.append(KeepLast(last))
    if steps is not None:
        policies.append(KeepEvery(steps=steps))
    if epochs is not None:
        policies.append(KeepEvery(epochs=epochs))
    policies += [KeepBest(one.metric, one.rule, one.n) for one in best]
    return KeepAny(tuple(policies))


def prune_folder(pruning: Pruning, *, dry_run: bool, yes: bool, as_json: bool) -> Outcome:
    """Judge, show, ask, delete."""
    check_can_ask(dry_run=dry_run, yes=yes, as_json=as_json)
    infos = list_checkpoints(pruning.url, storage_options=pruning.options)
    run_id = _run_id(pruning.run, infos)
    _check_known("--group", pruning.group, {info.group for info in infos})
    mine = [info for info in infos if run_id in (None, info.run_id) and pruning.group in (None, info.group)]
    for metric in pruning.metrics:
        _check_known("--keep-best", metric, {name for info in mine for name in info.metrics})
    verdicts = _prune(pruning, pruning.policy, run_id, dry_run=True)
    going = [verdict.info for verdict in verdicts if verdict.goes]
    if not as_json:
        _print(verdicts)
    deleted: list[CheckpointInfo] = []
    if going and not dry_run and is_confirmed(f"Delete {_total(going)}?", yes=yes):
        deleted = _delete(pruning, run_id, going)
    if as_json:
        print_json(_facts(verdicts, deleted, dry_run=dry_run))
    else:
        print_line(_said(going, deleted, dry_run=dry_run))
    return Outcome.FINE


def _prune(pruning: Pruning, policy: RetentionPolicy, run_id: str | None, **options: Any) -> list[Verdict]:
    return prune(
        pruning.url,
        policy,
        run_id=run_id,
        group=pruning.group,
        storage_options=pruning.options,
        **options,
    )


def _delete(pruning: Pruning, run_id: str | None, going: Sequence[CheckpointInfo]) -> list[CheckpointInfo]:
    """Delete what was shown; a Ctrl-C stops between two checkpoints."""
    policy = pruning.policy | _KeepUnseen(frozenset(info.save_id for info in going))
    with uninterrupted() as stop_here, reading("verifying what stays", None) as advance:

        def progress(nbytes: int) -> None:
            stop_here()
            advance(nbytes)

        verdicts = _prune(pruning, policy, run_id, progress=progress)
    return [verdict.info for verdict in verdicts if verdict.goes]


def _run_id(start: str | None, infos: Sequence[CheckpointInfo]) -> str | None:
    """The run whose id begins so."""
    if start is None:
        return None
    known = {info.run_id for info in infos}
    found = [run_id for run_id in known if run_id == start] or [
        run_id for run_id in known if run_id.startswith(start)
    ]
    if len(found) > 1:
        raise typer.BadParameter(
            f"{start!r} begins the ids of {len(found)} runs: {', '.join(sorted(found))}.", param_hint="--run"
        )
    if not found:
        _check_known("--run", start, known)
    return found[0]


def _check_known(option: str, name: str | None, known: Collection[str]) -> None:
    if name is None or name in known:
        return
    here = ", ".join(sorted(known)) or "none"
    raise typer.BadParameter(
        f"no checkpoint here has {name!r}; known: {here}.{did_you_mean(name, known)}", param_hint=option
    )


def _print(verdicts: Sequence[Verdict]) -> None:
    print_table(
        ("", "name", "step", "epoch", "metrics", "size", "run", "group", "because"),
        [
            (
                "goes" if verdict.goes else "stays",
                verdict.info.name,
                str(verdict.info.step),
                "" if verdict.info.epoch is None else str(verdict.info.epoch),
                metric_words(verdict.info.metrics),
                size(verdict.info.nbytes),
                short_id(verdict.info.run_id),
                verdict.info.group,
                "nothing keeps it" if verdict.goes else ", ".join(verdict.kept_by),
            )
            for verdict in verdicts
        ],
        right=("step", "epoch", "size"),
    )
    print_line("")


def _said(going: Sequence[CheckpointInfo], deleted: Sequence[CheckpointInfo], *, dry_run: bool) -> str:
    if not going:
        return "Nothing to delete."
    if dry_run:
        return f"Would delete {_total(going)}."
    return f"Deleted {_total(deleted)}." if deleted else "Nothing was deleted."


def _total(infos: Sequence[CheckpointInfo]) -> str:
    return f"{count(len(infos), 'checkpoint')} ({size(sum(info.nbytes for info in infos))})"


def _facts(
    verdicts: Sequence[Verdict], deleted: Sequence[CheckpointInfo], *, dry_run: bool
) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "checkpoints": [
            checkpoint_facts(verdict.info) | {"goes": verdict.goes, "kept_by": list(verdict.kept_by)}
            for verdict in verdicts
        ],
        "deleted": [info.name for info in deleted],
    }
