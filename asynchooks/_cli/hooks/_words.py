"""Hooks, shapes, effects and waits in words, for the terminal and for the documentation. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from asynchooks.execution import priority_name

if TYPE_CHECKING:
    from asynchooks.execution import Effects
    from asynchooks.execution._explain import Cause

__all__ = ["SHAPES", "cause_words", "effects_words", "entry_effects_words", "priority_words"]

SHAPES = {
    "blocking": "blocking",
    "capture": "capture, then background",
    "async": "background",
    "worker": "background, in a worker thread",
}


def priority_words(priority: int) -> str:
    """``LOW (70)``; the number alone where it has no name."""
    name = priority_name(priority)
    return name if name == str(priority) else f"{name} ({priority})"


def effects_words(effects: Effects | None, *, quote: str = "") -> str:
    """``writes a, b; reads c``, ``nothing outside the process``, or ``effects unknown``."""
    if effects is None:
        return "effects unknown"
    parts = [
        f"{verb} {', '.join(f'{quote}{name}{quote}' for name in sorted(names))}"
        for verb, names in (("writes", effects.writes), ("reads", effects.reads))
        if names
    ]
    return "; ".join(parts) or "nothing outside the process"


def entry_effects_words(effects: Effects | None, *, by_arguments: bool, quote: str = "") -> str:
    """What a hook touches; where its arguments decide, what it touches by default."""
    if not by_arguments:
        return effects_words(effects, quote=quote)
    return "by arguments" if effects is None else f"{effects_words(effects, quote=quote)} (by arguments)"


def cause_words(causes: Sequence[Cause]) -> str:
    """``its own earlier parts (rule 1), CheckpointHook (after_train_iter; both touch checkpoints: rule 2)``."""
    return ", ".join(
        f"{cause.why} (rule {cause.rule})"
        if cause.is_own
        else f"{cause.hook} ({', '.join(cause.points)}; {cause.why}: rule {cause.rule})"
        for cause in causes
    )
