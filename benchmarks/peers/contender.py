"""What every way to save looks like to the measurement."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from peers.case import PlaceKind

__all__ = ["Contender", "Pending", "Place"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a contender saves: a folder that is there, or an S3 URL whose options are in the environment too."""

    kind: PlaceKind
    url: str
    options: dict[str, str] = field(repr=False)

    @property
    def is_remote(self) -> bool:
        """Whether it is S3."""
        return self.kind in ("s3", "slow-s3")

    def at(self, name: str) -> str:
        """Return the path or URL of something in it."""
        return f"{self.url}/{name}"


class Pending:
    """A save on its way. Marked by any thread, asked by the training thread.

    Args:
        poll: says whether the save is over, where the contender has no callback for it; asked after each step.
    """

    def __init__(self, poll: Callable[[], bool] | None = None) -> None:
        self._poll = poll
        self.claimed_at: float | None = None
        self.is_over = False
        self.error: BaseException | None = None
        self.parts: dict[str, float] = {}

    def claim(self) -> None:
        """The contender says that the checkpoint is saved, now."""
        if self.claimed_at is None:
            self.claimed_at = time.perf_counter()

    def end(self, error: BaseException | None = None) -> None:
        """Nothing of this save is left to do."""
        self.claim()
        self.error = error
        self.is_over = True

    def ask(self) -> bool:
        """Return whether the save is over."""
        if not self.is_over and self._poll is not None and self._poll():
            self.end()
        return self.is_over


class Contender:
    """One way to save. Making one loads its libraries; `open` starts what it needs.

    Attributes:
        syncs: whether what it calls saved survives a power cut.
        lacks: what else it does not do, for the reader of the JSON file.
        loads_remotely: whether `load` reads an S3 place itself; the others are given the server's own folder.
    """

    syncs: ClassVar[bool] = False
    lacks: ClassVar[str] = ""
    loads_remotely: ClassVar[bool] = False

    def __init__(self, place: Place) -> None:
        self.place = place

    @classmethod
    def refusal(cls, place: Place) -> str:
        """Return why it cannot save there at all; empty when it can."""
        del place
        return ""

    def open(self, state: dict[str, Any]) -> None:
        """Start threads and processes. Called once, before the first save."""

    def save(self, state: dict[str, Any], step: int) -> Pending:
        """Save the state as it is now. Called on the training thread, which it blocks as long as it must."""
        raise NotImplementedError

    def after_step(self) -> None:
        """Called after each step."""

    def updating(self) -> AbstractContextManager[object]:
        """Return what an update of the state has to be done in; entering waits where the copy is not finished."""
        return nullcontext()

    def load(self, step: int, like: dict[str, Any]) -> dict[str, Any] | None:
        """Return the state of a save that is over; None where there is nothing to load.

        Args:
            step: which.
            like: a state of the same shapes, which must not change.
        """
        raise NotImplementedError

    def files(self, step: int) -> list[Path]:
        """Return the files and folders of a save on a local place, in the order in which to sync them."""
        path = Path(self.place.at(self.name_of(step)))
        if path.is_dir():
            return [*(file for file in sorted(path.rglob("*"))), path, path.parent]
        return [path, path.parent]

    def name_of(self, step: int) -> str:
        """Return the name of a save in its place."""
        return f"iter_{step}.pth"

    def close(self) -> None:
        """End threads and processes."""
