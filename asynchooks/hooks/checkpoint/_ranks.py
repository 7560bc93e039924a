"""What the ranks of a run agree on before they save together: the form, an id of the session, where they meet."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from asynchooks.checkpoint import Party
from asynchooks.distributed import broadcast_object, open_rendezvous, world_size
from asynchooks.errors import ConfigError
from asynchooks.optim import is_sharded

if TYPE_CHECKING:
    from asynchooks.execution._hook import WhenBusy

__all__ = ["Form", "check_when_busy", "form_for", "open_party"]

Form: TypeAlias = Literal["single", "sharded"]


def form_for(runner: Any, wanted: Form | None) -> Form:
    """Return the form of a run's checkpoints: what was asked for, or that of its model."""
    if wanted is not None:
        return wanted
    model = getattr(runner, "model", None)
    return "sharded" if model is not None and is_sharded(model) else "single"


def check_when_busy(when_busy: WhenBusy, form: Form) -> None:
    """Refuse a save that one rank may leave out and another not.

    Raises:
        ConfigError: it may.
    """
    if form == "sharded" and when_busy != "wait" and world_size() > 1:
        raise ConfigError(
            f"CheckpointHook(when_busy={when_busy!r}): a sharded checkpoint needs every rank, and a rank "
            "without room would leave its part out. Give 'wait'."
        )


def open_party(url: str, *, deadline_s: float) -> Party | None:
    """Return the ranks that save shards into a folder together; None for a process alone. A collective.

    Args:
        url: the folder, without credentials: it stands in the store through which ranks meet, and in messages.
        deadline_s: a rank whose process stands still for so long is lost.
    """
    if world_size() == 1:
        return None
    session, name = broadcast_object((uuid.uuid4().hex, f"checkpoints/{url}"))
    return Party(open_rendezvous(name, deadline_s=deadline_s), session)
