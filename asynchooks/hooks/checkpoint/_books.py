"""What the run remembers of its checkpoints, in the message hub, so that every checkpoint carries it along.

Keys: ``last_ckpt``, ``keep_ckpt_ids``, ``best_score``, ``best_ckpt`` (with ``_{metric}`` where there are several).
They are written before the capture, so they may name a file that is not durable yet, or never will be.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
        is_kept: whether the save is committed, whatever fails afterwards.
        has_ended: whether there is nothing more to come of it.
    """

    number: int
    entries: Mapping[str, Any]
    before: dict[str, Any]
    is_kept: bool = False
    has_ended: bool = False
    _part: weakref.ref[BackgroundPart] | None = None

    @property
    def is_lost(self) -> bool:
        """Whether the save failed, or was dropped before it started."""
        is_dropped = self._part is not None and self._part() is None
        return (self.has_ended or is_dropped) and not self.is_kept

    def hang_on(self, part: BackgroundPart) -> None:
        """Have the claim lost when the executor drops the part that saves."""
        self._part = weakref.ref(part)

    def keep(self) -> None:
        """Say that the save is committed. Any thread."""
        self.is_kept = True

    def end(self) -> None:
        """Say that the save is over: what is not committed by now is lost. Any thread."""
        self.has_ended = True

    def withdraw(self, hub: Any, standing: Mapping[str, Claim]) -> None:
        """Take the entries back; of one that was replaced since, so that it does not come back either.

        Args:
            hub: where they were written.
            standing: by entry, the claim that came next and is not lost.
        """
        for key, value in self.entries.items():
            later = standing.get(key)
            if later is not None:
                if later.before[key] == value:
                    later.before[key] = self.before[key]
            elif hub.get_info(key) == value:
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
    def claim(self, hub: Any, *entries: Mapping[str, Any]) -> Iterator[list[Claim]]:
        """Write the entries of each save to the hub, for a capture; take them back when there is no capture."""
        claims = [self._write(hub, each) for each in entries]
        try:
            yield claims
        except BaseException:
            for claim in reversed(claims):
                claim.withdraw(hub, {})
            # the other ranks are to hear of it
            claims = [Claim(claim.number, {}, {}, has_ended=True) for claim in claims]
            raise
        finally:
            self._open += claims

    def _write(self, hub: Any, entries: Mapping[str, Any]) -> Claim:
        self._made += 1
        claim = Claim(self._made, entries, {key: hub.get_info(key) for key in entries})
        hub.update_info_dict(entries)
        return claim

    def settle(self, hub: Any) -> None:
        """Take back, newest first, what was claimed for saves that will never be committed. A collective."""
        lost = {claim.number: claim.is_lost for claim in self._open}
        kept = {claim.number for claim in self._open if claim.is_kept}
        verdicts = broadcast_object({n: is_lost for n, is_lost in lost.items() if is_lost or n in kept})
        standing: dict[str, Claim] = {}
        for claim in reversed(self._open):
            if verdicts.get(claim.number):
                claim.withdraw(hub, standing)
            else:
                standing.update(dict.fromkeys(claim.entries, claim))
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
