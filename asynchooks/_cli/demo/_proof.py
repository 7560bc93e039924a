"""The demo's end: what must be equal between the two runs is compared, from the store alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asynchooks._cli.demo._equality import compare_tensors
from asynchooks.checkpoint import list_checkpoints, open_store, restore

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Claim", "files_below", "prove_same_files", "prove_same_tensors"]


@dataclass(frozen=True, slots=True)
class Claim:
    """One thing that the demo proves, or fails to.

    Attributes:
        holds: whether it is true.
        text: what was compared and what came out.
    """

    holds: bool
    text: str


def prove_same_tensors(one_url: str, other_url: str, what: str, options: Mapping[str, Any]) -> Claim:
    """Compare two checkpoints bit by bit: weights, optimizer, schedulers, random numbers."""
    comparison = compare_tensors(_content(one_url, options), _content(other_url, options))
    if comparison.differences:
        shown = ", ".join(comparison.differences[:3])
        return Claim(
            holds=False, text=f"{what}: {len(comparison.differences)} tensors differ, such as {shown}"
        )
    return Claim(
        holds=True,
        text=f"{what}: {comparison.tensors} tensors, {comparison.nbytes / 1e6:.0f} MB, every bit equal",
    )


def _content(url: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what must be equal: all but the message hub, which holds how long each step took."""
    content = restore(url, storage_options=options)
    return {key: value for key, value in content.items() if key != "message_hub"}


def prove_same_files(one_url: str, other_url: str, options: Mapping[str, Any]) -> Claim:
    """Compare the names of everything that is left in two runs' folders."""
    left, right = files_below(one_url, options), files_below(other_url, options)
    if left != right:
        return Claim(holds=False, text=f"different files are left: {', '.join(sorted(left ^ right))}")
    committed = [info.name for info in list_checkpoints(one_url, storage_options=options)]
    return Claim(
        holds=True, text=f"the same {len(left)} files are left after pruning, with {', '.join(committed)}"
    )


def files_below(url: str, options: Mapping[str, Any]) -> frozenset[str]:
    """Return the names of all visible files in a run's folder."""
    return frozenset(open_store(url, dict(options)).entries())
