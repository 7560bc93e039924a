"""The order of things: which invocation may start, which must wait, which is abandoned. Pure.

Events come in (`invoked`, `asked_again`, `finished`, `failed`, `replaced`, `acknowledged`), decisions go out
(`Start`, `Wait`, `Abandon`). Knows no thread, clock or event loop: every interleaving is enumerated in a test.
Program order is the order of the invocations' keys; an invocation that arrives late (fired from a background
part) takes its place among those that have not started.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from asynchooks.execution._effects import Effects, conflict

__all__ = ["Abandon", "Decision", "Invocation", "Key", "Order", "Ordering", "Scoreboard", "Start", "Wait"]

Key: TypeAlias = tuple[int, ...]
Ordering: TypeAlias = Literal["priority", "strict"]
Order: TypeAlias = Literal["priority", "strict", "inline"]


@dataclass(frozen=True, slots=True)
class Invocation:
    """One call of a hook at one firing, as far as order is concerned.

    Attributes:
        key: place in program order; no two invocations share one.
        hook: identity of the hook instance.
        firing: identity of the firing.
        priority: 0 (first) to 100.
        effects: what it touches, or None for unknown.
        immediate: a blocking method on the training thread after which nothing comes so far; it leaves the board
            the moment it may start.
        heard_by: the hooks that listen to the points that it may fire while it runs.
    """

    key: Key
    hook: int
    firing: int
    priority: int
    effects: Effects | None
    immediate: bool = False
    heard_by: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Start:
    """The invocation may start now."""

    key: Key


@dataclass(frozen=True, slots=True)
class Wait:
    """The invocation must wait until these have finished."""

    key: Key
    blockers: frozenset[Key]


@dataclass(frozen=True, slots=True)
class Abandon:
    """The invocation must never start, because what it had to follow has failed."""

    key: Key
    because: Key


Decision: TypeAlias = Start | Wait | Abandon


@dataclass(slots=True)
class _Entry:
    invocation: Invocation
    blockers: set[Key] = field(default_factory=set)
    started: bool = False


class Scoreboard:
    """Decides by the rules of the execution contract; see `must_precede`."""

    def __init__(self, order: Order = "priority") -> None:
        self._order = order
        self._entries: dict[Key, _Entry] = {}
        self._failed: dict[Key, tuple[Invocation, Key]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: Key) -> bool:
        return key in self._entries

    @property
    def poisoned(self) -> bool:
        """Whether a failure has not been acknowledged yet."""
        return bool(self._failed)

    def must_precede(self, first: Invocation, second: Invocation) -> bool:
        """Whether ``first``, earlier in program order, must be finished before ``second`` starts."""
        if self._order == "inline" or first.hook == second.hook or second.hook in first.heard_by:
            return True
        if first.effects is not None and second.effects is not None:
            return conflict(first.effects, second.effects)
        if self._order == "strict":
            return True
        return first.firing == second.firing and first.priority != second.priority

    def root_failure(self, invocation: Invocation) -> Key | None:
        """Return the unacknowledged failure that the invocation would have had to follow, if any."""
        for failed, root in self._failed.values():
            if failed.key < invocation.key and self.must_precede(failed, invocation):
                return root
        return None

    def invoked(self, invocation: Invocation) -> list[Decision]:
        """Place an invocation; decide whether it starts, waits or is abandoned."""
        root = self.root_failure(invocation)
        if root is not None:
            return self._abandon(invocation, root)
        entry = _Entry(invocation)
        for other in self._entries.values():
            if other.invocation.key < invocation.key:
                if self.must_precede(other.invocation, invocation):
                    entry.blockers.add(other.invocation.key)
            elif not other.started and self.must_precede(invocation, other.invocation):
                other.blockers.add(invocation.key)
        if entry.blockers:
            self._entries[invocation.key] = entry
            return [Wait(invocation.key, frozenset(entry.blockers))]
        return [self._start(entry)]

    def asked_again(self, key: Key) -> list[Decision]:
        """An invocation that might have started has not done so, and others were placed before it meanwhile."""
        return self.invoked(self._entries.pop(key).invocation)

    def finished(self, key: Key) -> list[Decision]:
        """An invocation has finished (or failed where failures only warn); decide who may start."""
        self._entries.pop(key)
        return self._release(key)

    def replaced(self, key: Key) -> list[Decision]:
        """An invocation that had not started was dropped on purpose; nobody needs to wait for it."""
        if self._entries[key].started:
            raise ValueError(f"invocation {key} has started and cannot be replaced")
        return self.finished(key)

    def failed(self, key: Key) -> list[Decision]:
        """An invocation has failed or was cancelled; abandon what had to follow it."""
        entry = self._entries.pop(key)
        return self._poison(entry.invocation, root=key)

    def acknowledged(self, root: Key) -> None:
        """A failure has been raised; what is invoked from now on does not follow it."""
        self._failed = {k: v for k, v in self._failed.items() if v[1] != root}

    def before(self, key: Key) -> frozenset[Key]:
        """Return what has to finish before an invocation on the board may, directly or not."""
        found: set[Key] = set()
        waiting = [key]
        for each in waiting:  # grows while it is walked
            entry = self._entries.get(each)
            new = set() if entry is None else entry.blockers - found
            found |= new
            waiting += new
        return frozenset(found)

    def has_started(self, key: Key) -> bool:
        """Whether an invocation on the board has started."""
        return self._entries[key].started

    def _start(self, entry: _Entry) -> Start:
        entry.started = True
        key = entry.invocation.key
        if entry.invocation.immediate:
            self._entries.pop(key, None)
        else:
            self._entries[key] = entry
        return Start(key)

    def _release(self, key: Key) -> list[Decision]:
        decisions: list[Decision] = []
        for entry in sorted(self._entries.values(), key=lambda e: e.invocation.key):
            if key in entry.blockers:
                entry.blockers.discard(key)
                if not entry.blockers:
                    decisions.append(self._start(entry))
        return decisions

    def _poison(self, invocation: Invocation, root: Key) -> list[Decision]:
        self._failed[invocation.key] = (invocation, root)
        decisions: list[Decision] = []
        for entry in sorted(self._entries.values(), key=lambda e: e.invocation.key):
            if invocation.key in entry.blockers and entry.invocation.key in self._entries:
                del self._entries[entry.invocation.key]
                decisions += self._abandon(entry.invocation, root)
        return decisions

    def _abandon(self, invocation: Invocation, root: Key) -> list[Decision]:
        return [Abandon(invocation.key, root), *self._poison(invocation, root)]
