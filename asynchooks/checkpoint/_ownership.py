"""One writer per folder: a claim that is renewed right before anything becomes visible.

Decides who may write. A process that provably lives keeps other runs off. A run that goes on in a new process takes
its folder over, which fences its predecessor: that one's next renewal fails, before its data is visible. So
does another run where nothing tells whether the owner lives, with a warning: to refuse would block every restart
after a crash, and the loser hears of it before it does any harm.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING

from asynchooks.checkpoint._content import Content
from asynchooks.checkpoint._manifest import temporary_name
from asynchooks.checkpoint._owner import OWNER_FILE, Owner
from asynchooks.checkpoint._process import is_running, this_process, writer_id
from asynchooks.checkpoint._storage import owner_file
from asynchooks.errors import CheckpointConflictError

if TYPE_CHECKING:
    from asynchooks.checkpoint._storage import OwnerFile, Store

__all__ = ["Ownership"]

logger = logging.getLogger(__name__)

_ATTEMPTS = 5
_ADVICE = (
    "Two runs in one folder would replace and prune each other's checkpoints: give each its own folder, or end "
    "the other one first."
)


class Ownership:
    """This process's claim of a folder for one run. Methods block; they may be called from any thread.

    Several of one process share the folder. What was claimed before a fork is not the child's.

    Args:
        store: the folder.
        run_id: the run that writes there.
    """

    def __init__(self, store: Store, run_id: str) -> None:
        self._store = store
        self._run_id = run_id
        self._file: OwnerFile | None = None
        self._pid = 0
        self._lock = threading.Lock()

    def claim(self) -> None:
        """Claim the folder; nothing happens when this has claimed it before.

        Raises:
            CheckpointConflictError: another process owns it and lives, or this one was forked from its owner.
            StorageError: the store refuses.
        """
        self._refuse_forked()
        with self._lock:
            if self._file is None:
                self._claim()

    def probe(self) -> None:
        """Write, list and delete a file: whether the store takes them is known before there is anything to lose.

        Raises:
            StorageError: it does not.
        """
        name = temporary_name(uuid.uuid4().hex)
        self._store.put(name, Content.of(b"asynchooks writes here"))
        self._store.entries()
        self._store.delete(name)

    def renew(self, step: int) -> None:
        """Make sure of the claim. Called once per save, before what is saved is visible.

        Raises:
            CheckpointConflictError: another process has taken the folder; nothing more may be written there.
            StorageError: the store refuses.
        """
        self._refuse_forked()
        with self._lock:
            if self._file is None:
                self._claim()
            assert self._file is not None  # noqa: S101 - for the type
            for _ in range(_ATTEMPTS):
                is_held = self._file.hold()
                found = _owner(self._file.read())
                if not is_held or (found is not None and found.writer_id != writer_id()):
                    raise self._conflict(found, "has taken the folder over")
                # a write whose answer was lost, or another checkpointer of this process: read again
                if self._file.write(self._me(step).to_json()):
                    return
            raise self._conflict(None, "keeps changing the owner file")

    def release(self) -> None:
        """Say that this run is done with the folder; a lost claim, or none, is no error."""
        with self._lock:
            file, self._file = self._file, None
            if file is None or self._pid != os.getpid():
                return
            try:
                found = _owner(file.read())
                if found is not None and found.writer_id == writer_id() and file.hold():
                    file.write(replace(found, released=True, renewed_s=time.time()).to_json())
            finally:
                file.let_go()

    def _claim(self) -> None:
        file = owner_file(self._store, OWNER_FILE)
        try:
            self._take(file)
        except BaseException:
            file.let_go()
            raise
        self._file, self._pid = file, os.getpid()
        # a claim that is dropped, and not released, keeps nobody off
        weakref.finalize(self, file.let_go).atexit = False

    def _take(self, file: OwnerFile) -> None:
        for _ in range(_ATTEMPTS):
            is_held = file.hold()
            found = _owner(file.read())
            if not is_held:
                raise self._conflict(found, "is writing there")
            if found is not None and not found.released and found.writer_id != writer_id():
                self._take_over(found)
            if file.write(self._me(None).to_json()):
                return
        raise self._conflict(None, "keeps changing the owner file")

    def _take_over(self, found: Owner) -> None:
        """Raise or tell of it, where another process has not released the folder."""
        lives = is_running(found.process)
        if found.run_id != self._run_id and lives:
            raise self._conflict(found, "is writing there")
        if found.run_id != self._run_id or lives:
            logger.warning(
                "run %s takes over %s from %s, which never released it%s; if it still runs, its next save fails",
                self._run_id,
                self._store.url,
                found,
                "" if lives is None else " and lives" if lives else " and is gone",
            )

    def _refuse_forked(self) -> None:
        if self._file is not None and self._pid != os.getpid():
            raise CheckpointConflictError(
                f"{self._store.url} belongs to process {self._pid}, of which this one (process {os.getpid()}) was "
                "forked. Save in that process, or make a new Checkpointer, with another folder, in this one."
            )

    def _conflict(self, found: Owner | None, what: str) -> CheckpointConflictError:
        who = "another process" if found is None else str(found)
        return CheckpointConflictError(
            f"{self._store.url}: {who} {what}. This is run {self._run_id} (process {os.getpid()}). {_ADVICE}"
        )

    def _me(self, step: int | None) -> Owner:
        return Owner(self._run_id, writer_id(), this_process(), time.time(), step)


def _owner(text: bytes | None) -> Owner | None:
    return None if text is None else Owner.from_json(text)
