"""What the ranks of a run agree on while they train: failures, the end of the training, a request to leave.

One vote per iteration, read one iteration later, so that no step waits for it; where all come to a stop anyway, at a
drain and after a validation, the answer is waited for. Knows no hook and no loop.
"""

from __future__ import annotations

from typing import Any

from asynchooks.distributed import Votes, control_group, gather_objects, rank
from asynchooks.errors import RankFailedError

__all__ = ["Together"]

_FAILED, _STOP, _LEAVE = 1, 2, 4


class Together:
    """An `Agreement` over ranks. Training thread; constructing it is a collective, and so is each answer.

    Attributes:
        wants_stop: this rank wants the training to end.
        wants_leave: this rank was asked to end at once. May be set by a signal handler.
        is_stopping: all ranks end the training.
        is_leaving: all ranks leave after this iteration.
    """

    points = frozenset({"after_train_iter"})

    def __init__(self) -> None:
        self._votes = Votes(control_group())
        self.begin()

    def begin(self) -> None:
        """Forget what was wanted: another training begins."""
        self.wants_stop = self.wants_leave = self.is_stopping = self.is_leaving = False
        self._has_failed = False

    def is_due(self, place: str, *, has_failed: bool) -> bool:
        """Whether something has failed on any rank, as far as all ranks know."""
        self._cast(has_failed=has_failed)
        if place not in self.points:
            self._take(self._votes.settle())
        is_due, self._has_failed = self._has_failed, False
        return is_due

    def joint(self, own: Exception | None) -> Exception | None:
        """Return this rank's own failure, or one that names the ranks that have failed and how."""
        texts = gather_objects(None if own is None else _text(own))
        if own is not None:
            own.add_note(f"on rank {rank()}")
            return own
        failed = [(number, text) for number, text in enumerate(texts) if text is not None]
        if not failed:
            return None  # it was raised before, and the training went on
        told = "; ".join(f"rank {number}: {text}" for number, text in failed)
        return RankFailedError(
            f"a hook has failed on another rank, so all ranks stop: {told}", rank=failed[0][0]
        )

    def stops(self, wanted: bool, *, settled: bool) -> bool:  # noqa: FBT001 - the runner's flag
        """Say whether this rank wants the training to end, and return whether it ends: the same on every rank.

        ``settled`` waits until all have said; otherwise it is what they said an iteration ago.
        """
        self.wants_stop = self.wants_stop or wanted
        if settled:
            self.settle()
        return self.is_stopping

    def settle(self) -> None:
        """Have all ranks know what any of them wants now; waits for all."""
        self._cast(has_failed=False)
        self._take(self._votes.settle())

    def _cast(self, *, has_failed: bool) -> None:
        flags = _FAILED * has_failed | _STOP * self.wants_stop | _LEAVE * self.wants_leave
        self._take(self._votes.cast(flags))

    def _take(self, agreed: int) -> None:
        self._has_failed = self._has_failed or bool(agreed & _FAILED)
        self.is_stopping = self.is_stopping or bool(agreed & _STOP)
        self.is_leaving = self.is_leaving or bool(agreed & _LEAVE)


def _text(error: Any) -> str:
    return (
        f"{type(error).__name__}: {error}"
        if not isinstance(error, ExceptionGroup)
        else "; ".join(_text(each) for each in error.exceptions)
    )
