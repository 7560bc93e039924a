"""What the run remembers of its checkpoints, in the message hub, so that every checkpoint carries it along.

Keys: ``last_ckpt``, ``keep_ckpt_ids``, ``best_score``, ``best_ckpt`` (with ``_{metric}`` where there are several).
They are written before the capture, so they may name a file that is not durable yet, or never will be.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from asynchooks.distributed import broadcast_object, found_by_first

if TYPE_CHECKING:
    from asynchooks.execution._hook import BackgroundPart
    from asynchooks.hooks.checkpoint._best import Best
    from asynchooks.hooks.checkpoint._folder import Folder

__all__ = ["Claim", "Claims", "recall"]


@dataclass(slots=True, eq=False)
class Claim:
    """Entries that say that a save has happened, while it is still to happen.

    Attributes:
        number: the same on every rank.
        entries: what was written.
        before: what stood there before.
        part: the save; dead once the executor has dropped it.
        state: "open", "kept" when the save is committed, "lost" when it failed.
    """

    number: int
    entries: Mapping[str, Any]
    before: Mapping[str, Any]
    part: weakref.ref[BackgroundPart] | None = None
    state: Literal["open", "kept", "lost"] = "open"

    @property
    def is_lost(self) -> bool:
        """Whether the save failed, or was dropped before it started."""
        is_dropped = self.part is not None and self.part() is None
        return self.state == "lost" or (self.state == "open" and is_dropped)

    def kept_by(self, save: BackgroundPart) -> BackgroundPart:
        """Return the save as a background part that keeps the claim when it is committed."""

        async def save_and_keep() -> None:
            try:
                await save()
            except BaseException:
                self.state = "lost"
                raise
            self.state = "kept"

        self.part = weakref.ref(save_and_keep)
        return save_and_keep

    def withdraw(self, hub: Any) -> None:
        """Take the entries back, those that nothing has replaced since."""
        for key, value in self.entries.items():
            if hub.get_info(key) != value:
                continue
            if self.before[key] is None:
                hub.pop_info(key)
            else:
                hub.update_info(key, self.before[key])


class Claims:
    """The claims that are not settled yet. Training thread only; every rank of a run makes the same ones.

    A save may be skipped or replaced for lack of room, or fail with a warning. The next one must not compare its
    score with that of a checkpoint that does not exist. What became of a save the first rank knows, which commits:
    its word counts on all, so that all decide alike.
    """

    def __init__(self) -> None:
        self._open: list[Claim] = []
        self._made = 0

    @contextmanager
    def claim(self, hub: Any, entries: Mapping[str, Any]) -> Iterator[Claim]:
        """Write entries to the hub for a capture; take them back when it fails, or there is no room for it."""
        self._made += 1
        claim = Claim(self._made, entries, {key: hub.get_info(key) for key in entries})
        hub.update_info_dict(entries)
        try:
            yield claim
        except BaseException:
            claim.withdraw(hub)
            self._open.append(Claim(claim.number, {}, {}, state="lost"))  # the other ranks are to hear of it
            raise
        self._open.append(claim)

    def settle(self, hub: Any) -> None:
        """Take back, newest first, what was claimed for saves that will never be committed. A collective."""
        settled = {claim.number: claim.is_lost for claim in self._open}
        kept = {claim.number for claim in self._open if claim.state == "kept"}
        verdicts = broadcast_object({n: is_lost for n, is_lost in settled.items() if is_lost or n in kept})
        for claim in reversed(self._open):
            if verdicts.get(claim.number):
                claim.withdraw(hub)
        self._open = [claim for claim in self._open if claim.number not in verdicts]


def recall(hub: Any, folder: Folder, bests: Sequence[Best], resumed_at: int) -> None:
    """Take up best scores that the resumed checkpoint is too old to know, from the best checkpoints themselves.

    A best checkpoint of a step after the resumed one belongs to what is trained again, and is left out. A collective.
    """
    for info in found_by_first("list the checkpoints", folder.committed):
        for best in bests:
            if info.group != best.prefix or info.step > resumed_at or best.metric not in info.metrics:
                continue
            score = info.metrics[best.metric]
            if best.improves(score, hub.get_info(best.score_key)):
                hub.update_info_dict({best.score_key: score, best.path_key: info.url})
