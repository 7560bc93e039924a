"""Which checkpoints stay: policies as values, and the rule that some always do.

Pure: it sees the committed checkpoints and answers; it deletes nothing and reads no clock. A checkpoint is
kept when any policy keeps it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from asynchooks.checkpoint._manifest import CheckpointInfo

__all__ = ["KeepAll", "KeepAny", "KeepBest", "KeepEvery", "KeepLast", "RetentionPolicy", "Verdict", "judge"]


class RetentionPolicy(Protocol):
    """Chooses what to keep."""

    def keeps(self, checkpoints: Sequence[CheckpointInfo]) -> frozenset[str]:
        """The save ids to keep, of committed checkpoints given oldest first; depends on nothing else."""

    def __or__(self, other: RetentionPolicy) -> RetentionPolicy:
        """Keep what either keeps."""


class _Combinable:
    """Gives a policy its ``|``."""

    __slots__ = ()

    def __or__(self: RetentionPolicy, other: RetentionPolicy) -> KeepAny:
        return KeepAny((self, other))


@dataclass(frozen=True, slots=True)
class KeepAny(_Combinable):
    """Keeps what any of its policies keeps; what ``|`` makes."""

    policies: tuple[RetentionPolicy, ...]

    def keeps(self, checkpoints: Sequence[CheckpointInfo]) -> frozenset[str]:
        """The union."""
        return frozenset[str]().union(*(policy.keeps(checkpoints) for policy in self.policies))


@dataclass(frozen=True, slots=True)
class KeepAll(_Combinable):
    """Keeps everything."""

    def keeps(self, checkpoints: Sequence[CheckpointInfo]) -> frozenset[str]:
        """All of them."""
        return frozenset(info.save_id for info in checkpoints)


@dataclass(frozen=True, slots=True)
class KeepLast(_Combinable):
    """Keeps the newest `n`."""

    n: int

    def __post_init__(self) -> None:
        _check_count("KeepLast", self.n)

    def keeps(self, checkpoints: Sequence[CheckpointInfo]) -> frozenset[str]:
        """The last `n` of the sequence."""
        return frozenset(info.save_id for info in checkpoints[-self.n :])


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepEvery(_Combinable):
    """Keeps those whose step, or whose epoch, is a multiple."""

    steps: int | None = None
    epochs: int | None = None

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("KeepEvery takes either steps=... or epochs=...")
        _check_count("KeepEvery", self.steps if self.epochs is None else self.epochs)

    def keeps(self, checkpoints: Sequence[CheckpointInfo]) -> frozenset[str]:
        """Those at a multiple; a checkpoint without an epoch is at no multiple of epochs."""
        if self.steps is not None:
            return frozenset(info.save_id for info in checkpoints if info.step % self.steps == 0)
        every = self.epochs or 1
        return frozenset(
            info.save_id for info in checkpoints if info.epoch is not None and info.epoch % every == 0
        )


@dataclass(frozen=True, slots=True)
class KeepBest(_Combinable):
    """Keeps the `n` best by a metric; of equals the earlier. A missing or NaN value is never best."""

    metric: str
    rule: Literal["greater", "less"]
    n: int = 1

    def __post_init__(self) -> None:
        _check_count("KeepBest", self.n)
        if self.rule not in ("greater", "less"):
            raise ValueError(f"KeepBest's rule is 'greater' or 'less', not {self.rule!r}")

    def keeps(self, checkpoints: Sequence[CheckpointInfo]) -> frozenset[str]:
        """The first `n` in the order of the metric."""
        sign = -1.0 if self.rule == "greater" else 1.0
        measured = [
            (sign * value, position, info.save_id)
            for position, info in enumerate(checkpoints)
            if not math.isnan(value := info.metrics.get(self.metric, math.nan))
        ]
        return frozenset(save_id for _, _, save_id in sorted(measured)[: self.n])


@dataclass(frozen=True, slots=True)
class Verdict:
    """What retention says of one checkpoint.

    Attributes:
        info: the checkpoint.
        kept_by: what speaks for it: policies, "newest", a pointer. When nothing does, it goes.
    """

    info: CheckpointInfo
    kept_by: tuple[str, ...]

    @property
    def goes(self) -> bool:
        """Whether it may be deleted."""
        return not self.kept_by


def judge(
    policy: RetentionPolicy,
    checkpoints: Sequence[CheckpointInfo],
    *,
    protected: Mapping[str, str] | None = None,
) -> tuple[Verdict, ...]:
    """A verdict on each checkpoint, in their order: the newest and what is protected stay with any policy.

    Args:
        policy: what to keep.
        checkpoints: the committed checkpoints of one run and group, oldest first.
        protected: names that stay, and why.
    """
    kept = [(_words(part), part.keeps(checkpoints)) for part in _parts(policy)]
    verdicts: list[Verdict] = []
    for info in checkpoints:
        kept_by = ["newest"] if info is checkpoints[-1] else []
        if protected and info.name in protected:
            kept_by.append(protected[info.name])
        kept_by += [name for name, save_ids in kept if info.save_id in save_ids]
        verdicts.append(Verdict(info, tuple(kept_by)))
    return tuple(verdicts)


def _parts(policy: RetentionPolicy) -> Iterator[RetentionPolicy]:
    if isinstance(policy, KeepAny):
        for part in policy.policies:
            yield from _parts(part)
    else:
        yield policy


def _words(policy: RetentionPolicy) -> str:
    text = str(policy)
    for unset in ("steps=None, ", ", epochs=None"):
        text = text.replace(unset, "")
    return text


def _check_count(policy: str, n: object) -> None:
    if not isinstance(n, int) or isinstance(n, bool) or n < 1:
        raise ValueError(f"{policy} takes a whole number of at least 1, not {n!r}")
