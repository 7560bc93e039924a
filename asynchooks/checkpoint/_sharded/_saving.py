"""One rank's part in a sharded save: it writes its data, arrives, learns what became of it, departs.

Decides the order between the ranks, and what a rank may delete of a save that failed: its own data file, where it is
known that nobody commits it any more. How the first rank commits is the checkpointer's.
"""

from __future__ import annotations

import logging
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from asynchooks.checkpoint._content import digest
from asynchooks.checkpoint._sharded._datafile import data_name, write_data
from asynchooks.checkpoint._sharded._results import Teller, Told
from asynchooks.checkpoint._storage import Share, nesting, shared
from asynchooks.distributed import Rendezvous
from asynchooks.errors import CheckpointError, DistributedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
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

    @classmethod
    def alone(cls) -> Party:
        """A process without ranks."""
        return cls(Rendezvous(None, rank=0, world_size=1, name="alone"), uuid.uuid4().hex)


Commit: TypeAlias = "Callable[[Sequence[File], bytes, str], bytes]"
"""First rank: commits the data files, with these bytes of `.metadata`, as this save id; returns what all are told."""


def take_part(
    party: Party,
    store: Store,
    shards: ShardSnapshot,
    *,
    name: str,
    what: str,
    progress: Progress,
    span: Callable[[int], AbstractContextManager[None]],
    claim: Callable[[], None],
    commit: Commit,
) -> bytes:
    """Take part in one save of all ranks; return what the first one says of it. Worker thread; blocks.

    Args:
        party: the ranks.
        store: the run's folder.
        shards: what this rank writes.
        name: of the checkpoint.
        what: names the save in messages.
        span: of the persisting, given the file's length.
        claim: called on the first rank before anything is written; what it raises fails the save on all ranks.
        progress: told what the store has taken, and of 1 now and then while this rank waits; what it raises before
            the commit stops the save, on all ranks.
        commit: called on the first rank when all data is durable.

    Raises:
        CheckpointError: this rank could not write or commit.
        RankFailedError, RankLostError: another one could not, or died.
    """
    meeting = party.meeting
    folder = shared(nesting(store).folder(name), Share(meeting.rank, meeting.world_size))
    with meeting.round(what) as round_:
        save_id = digest([f"{party.session}/{name}/{round_.number}".encode()])
        own = data_name(meeting.rank, save_id)

        def progress_here(nbytes: int) -> None:
            progress(nbytes)
            round_.beat()

        with _clearing(folder, own, party):
            if meeting.is_first:
                claim()
            shards.wait()  # first: laying out reads what is strided, and pickles what objects hold
            content, lengths = shards.lay_out()
            with span(content.nbytes):
                file = write_data(folder, own, content, nfiles=meeting.world_size + 1, progress=progress_here)
            payload = party.teller.tell(file, lengths)
            payloads = round_.arrive(payload, progress=lambda _: progress(1))
        if payloads is not None:
            files, metadata = party.told.gather(payloads, shards.plan, what, save_id)
            round_.decide(commit(files, metadata, save_id))
        with _hearing(folder, own, party):
            decision = round_.decision(progress=lambda _: progress(1))
        party.teller.heard()
        return decision


@contextmanager
def _clearing(folder: Store, own: str, party: Party) -> Iterator[None]:
    """Where the save has failed before its commit, delete this rank's data file: nobody else's, nobody reads it.

    This rank's own failure is one before it has arrived. What it hears of another's says whether it came so early.
    """
    try:
        yield
    except BaseException as error:
        party.teller.forget()
        if getattr(error, "is_early", not isinstance(error, DistributedError)):
            try:
                folder.delete(own)
            except CheckpointError as failed:
                logger.debug("could not delete %s: %s", own, failed)
        raise


@contextmanager
def _hearing(folder: Store, own: str, party: Party) -> Iterator[None]:
    """`_clearing`, of a rank that has arrived: what ends it now ends nobody else, and the save may be committed."""
    try:
        yield
    except DistributedError:
        with _clearing(folder, own, party):
            raise
    except BaseException:
        party.teller.forget()
        raise
