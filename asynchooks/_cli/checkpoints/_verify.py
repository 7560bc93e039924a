"""``verify``: whether every byte of a checkpoint is what was saved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from asynchooks._cli.checkpoints._outcome import Outcome
from asynchooks._cli.checkpoints._places import look_at
from asynchooks._cli.checkpoints._reading import verify_one
from asynchooks._cli.checkpoints._words import count, print_json, print_line, size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asynchooks._cli.checkpoints._places import Place
    from asynchooks._cli.checkpoints._reading import Finding
    from asynchooks.checkpoint import CheckpointInfo

__all__ = ["verify_at"]


def verify_at(url: str, options: Mapping[str, Any], *, every: bool, latest: bool, as_json: bool) -> Outcome:
    """Verify one checkpoint, or those of a folder, and print what is found of each."""
    place = look_at(url, options)
    if place.name is not None and (every or latest):
        raise typer.BadParameter(
            f"{place.name} is one checkpoint; --all and --latest are for its folder.", param_hint="URL"
        )
    findings: list[Finding] = []
    for info in _chosen(place, latest=latest):
        finding = verify_one(place, info)
        findings.append(finding)
        if not as_json:
            print_line(_line(finding))
    lost = _lost(place, latest=latest)
    if as_json:
        print_json(_facts(place, findings, lost))
    else:
        for name, reason in lost:
            print_line(f"DAMAGED  {name}  {reason}")
        print_line(_summary(place, findings, lost))
    is_fine = any(finding.is_whole for finding in findings) and not lost
    return Outcome.FINE if is_fine and not any(finding.error for finding in findings) else Outcome.PROBLEM


def _chosen(place: Place, *, latest: bool) -> Sequence[CheckpointInfo]:
    if place.name is not None:
        return [] if place.checkpoint is None else [place.checkpoint]
    return place.contents.checkpoints[-1:] if latest else place.contents.checkpoints


def _lost(place: Place, *, latest: bool) -> list[tuple[str, str]]:
    """What was a checkpoint and is not even committed any more; or the named file that is none."""
    if place.name is not None:
        return [] if place.other is None else [(place.name, f"{place.other.reason} ({place.other.kind})")]
    if latest:
        return []
    return [(other.name, other.reason) for other in place.contents.others if other.kind == "damaged"]


def _line(finding: Finding) -> str:
    info = finding.info
    if finding.is_gone:
        return f"gone     {info.name}  step {info.step}  pruned or replaced meanwhile"
    if finding.error is not None:
        return f"DAMAGED  {info.name}  step {info.step}  {finding.error}"
    speed = size(int(info.nbytes / max(finding.seconds, 1e-9)))
    return f"ok       {info.name}  step {info.step}  {size(info.nbytes)}, {speed}/s"


def _summary(place: Place, findings: Sequence[Finding], lost: Sequence[tuple[str, str]]) -> str:
    if not findings and not lost:
        return f"no committed checkpoint in {place.contents.url}: nothing to verify."
    damaged = [finding.info.name for finding in findings if finding.error is not None]
    damaged += [name for name, _ in lost]
    whole = sum(finding.is_whole for finding in findings)
    said = f"{count(whole, 'checkpoint')} whole"
    return f"{said}, {len(damaged)} damaged: {', '.join(damaged)}." if damaged else f"{said}."


def _facts(place: Place, findings: Sequence[Finding], lost: Sequence[tuple[str, str]]) -> dict[str, Any]:
    return {
        "url": place.contents.url,
        "checkpoints": [
            {
                "name": finding.info.name,
                "step": finding.info.step,
                "bytes": finding.info.nbytes,
                "status": "gone" if finding.is_gone else "whole" if finding.is_whole else "damaged",
                "error": finding.error,
                "seconds": round(finding.seconds, 3),
            }
            for finding in findings
        ],
        "not_committed": [{"name": name, "error": reason} for name, reason in lost],
    }
