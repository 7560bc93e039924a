"""One rank's part in a sharded save: it writes its data, arrives, learns what became of it, departs.

Decides the order between the ranks, and what a rank may delete of a save that failed: its own data file, where it is
known that nobody commits it any more. How the first rank commits is the checkpointer's.
"""

from __future__ import annotations

import logging
import threading
import uuid
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from anyio import CancelScope, to_thread

from asynchooks.checkpoint._content import digest
from asynchooks.checkpoint._sharded._datafile import data_name, write_data
from asynchooks.checkpoint._sharded._results import Teller, Told
from asynchooks.checkpoint._storage import Share, Stopped, nesting, shared
from asynchooks.distributed import Rendezvous, Round
from asynchooks.errors import CheckpointError, DistributedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from asynchooks.checkpoint._files import File
    from asynchooks.checkpoint._sharded._snapshot import ShardSnapshot
    from asynchooks.checkpoint._storage import Progress, Store

__all__ = ["Party", "take_part"]

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Party:
    """The ranks that save together. One for each checkpointer.

    Attributes:
        meeting: where they meet.
        session: an id that all ranks have, and that is never used twice; save ids are derived from it.
    """

    meeting: Rendezvous
    session: str
    teller: Teller = field(default_factory=Teller)
    told: Told = field(default_factory=Told)
    _held: Round | None = field(default=None, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    @contextmanager
    def holding(self, round_: Round) -> Iterator[None]:
        """While this rank does what a store may hold for ever: others can be told by `give_up`. Worker thread."""
        with self._lock:
            self._held = round_
        try:
            yield
        finally:
            with self._lock:
                if self._held is round_:
                    self._held = None

    @asynccontextmanager
    async def place(self, what: str) -> AsyncIterator[Place]:
        """Take the next place among the saves of all ranks; given up without a part in it, the others are told so.

        Event loop; every rank in the same order. Without it, a rank whose save is cancelled while it waits for its
        turn would come to the next one in its place.

        Args:
            what: names the save in messages; the same on every rank.
        """
        place = Place(self, what, self.meeting.reserve())
        try:
            yield place
        except BaseException as error:
            cause = error if isinstance(error, Exception) else Stopped()
            with CancelScope(shield=True):
                await to_thread.run_sync(partial(self.meeting.skip, what, cause, number=place.number))
            raise

    def give_up(self, error: BaseException) -> None:
        """Tell the others that this rank's thread is held by its store and left behind. Another thread; is quick.

        Without it they would wait for as long as this process lives.
        """
        with self._lock:
            held, self._held = self._held, None
        if held is not None:
            held.give_up(error)

    @classmethod
    def alone(cls) -> Party:
        """A process without ranks."""
        return cls(Rendezvous(None, rank=0, world_size=1, name="alone"), uuid.uuid4().hex)


@dataclass(frozen=True, slots=True)
class Place:
    """One save's place among those of a party."""

    party: Party
    what: str
    number: int


Commit: TypeAlias = "Callable[[Sequence[File], bytes, str], bytes]"
"""First rank: commits the data files, with these bytes of `.metadata`, as this save id; returns what all are told."""


def take_part(
    place: Place,
    store: Store,
    shards: ShardSnapshot,
    *,
    name: str,
    progress: Progress,
    span: Callable[[int], AbstractContextManager[None]],
    claim: Callable[[], None],
    commit: Commit,
    decided: Callable[[], None],
) -> bytes:
    """Take part in one save of all ranks; return what the first one says of it. Worker thread; blocks.

    Args:
        place: the save's among those of all ranks.
        store: the run's folder.
        shards: what this rank writes.
        name: of the checkpoint.
        span: of the persisting, given the file's length.
        claim: called on the first rank before anything is written; what it raises fails the save on all ranks.
        progress: told what the store has taken, and of 1 now and then while this rank waits; what it raises before
            the commit stops the save, on all ranks.
        commit: called on the first rank when all data is durable.
        decided: called when it is known what became of the save: what follows waits for other ranks, never for long.

    Raises:
        CheckpointError: this rank could not write or commit.
        RankFailedError, RankLostError: another one could not, or died.
    """
    party, what = place.party, place.what
    meeting = party.meeting
    folder = shared(nesting(store).folder(name), Share(meeting.rank, meeting.world_size))
    with meeting.round(what, number=place.number) as round_:
        save_id = digest([f"{party.session}/{name}/{round_.number}".encode()])
        own = data_name(meeting.rank, save_id)

        def progress_here(nbytes: int) -> None:
            progress(nbytes)
            round_.beat()

        with _clearing(folder, own, party, round_), party.holding(round_):
            if meeting.is_first:
                claim()
            shards.wait()  # first: laying out reads what is strided, and pickles what objects hold
            content, lengths = shards.lay_out()
            with span(content.nbytes):
                file = write_data(folder, own, content, nfiles=meeting.world_size + 1, progress=progress_here)
            progress(0)  # the store may have held this thread for so long that nobody waits for it any more
            payload = party.teller.tell(file, lengths)
            payloads = round_.arrive(payload, progress=lambda _: progress(1))
        with _hearing(folder, own, party, round_):
            if payloads is not None:
                with party.holding(round_):
                    files, metadata = party.told.gather(payloads, shards.plan, what, save_id)
                    committed = commit(files, metadata, save_id)
                round_.decide(committed)
            decision = round_.decision(progress=lambda _: progress(1))
        party.teller.heard()
        decided()
        return decision


@contextmanager
def _clearing(folder: Store, own: str, party: Party, round_: Round) -> Iterator[None]:
    """Where the save has failed before its commit, delete this rank's data file: nobody else's, nobody reads it.

    This rank's own failure is one before it has arrived. What it hears of another's says whether it came so early.
    """
    try:
        yield
    except BaseException as error:
        party.teller.forget()
        round_.give_up(error)  # before the store is asked for more: the others need not wait for that
        if getattr(error, "is_early", not isinstance(error, DistributedError)):
            try:
                folder.delete(own)
            except CheckpointError as failed:
                logger.debug("could not delete %s: %s", own, failed)
        raise


@contextmanager
def _hearing(folder: Store, own: str, party: Party, round_: Round) -> Iterator[None]:
    """`_clearing`, of a rank that has arrived: what ends it now ends nobody else, and the save may be committed."""
    try:
        yield
    except DistributedError:
        with _clearing(folder, own, party, round_):
            raise
    except BaseException:
        party.teller.forget()
        raise
