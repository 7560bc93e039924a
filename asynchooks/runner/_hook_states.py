"""The state of hooks in a checkpoint: what a hook counts or remembers goes on where it was.

A hook takes part by having ``state_dict()`` and ``load_state_dict(state)``; what is in it follows the rules of every
checkpoint: plain types and tensors.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["hook_states", "load_hook_states"]

logger = logging.getLogger(__name__)


def hook_states(hooks: Iterable[object]) -> dict[str, Any]:
    """Return the states of those hooks that have one, by class name; the second of a class is ``Name#2``."""
    return {name: hook.state_dict() for name, hook in _with_state(hooks)}


def load_hook_states(hooks: Iterable[object], states: Mapping[str, Any]) -> None:
    """Give each hook the state that `hook_states` took of it; a hook without one starts anew."""
    left = dict(states)
    for name, hook in _with_state(hooks):
        if name in left:
            hook.load_state_dict(left.pop(name))
    if left:
        logger.warning("the checkpoint holds the state of hooks that this run has not: %s", ", ".join(left))


def _with_state(hooks: Iterable[object]) -> Iterator[tuple[str, Any]]:
    seen: Counter[str] = Counter()
    for hook in hooks:
        if callable(getattr(hook, "state_dict", None)) and callable(getattr(hook, "load_state_dict", None)):
            name = type(hook).__name__
            seen[name] += 1
            yield (name if seen[name] == 1 else f"{name}#{seen[name]}"), hook
