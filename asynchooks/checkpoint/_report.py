"""What is told of a save that is committed: one line, and what is odd about it.

Decides what is odd: tensors that are bit-identical to those of the step before, and what a guarded load will refuse.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from asynchooks.checkpoint._catalog import info_of

if TYPE_CHECKING:
    from asynchooks.checkpoint._manifest import CheckpointInfo, Manifest
    from asynchooks.checkpoint._request import Request
    from asynchooks.checkpoint._storage import Store

__all__ = ["Report"]

logger = logging.getLogger(__name__)


class Report:
    """Of the saves into one store, one after the other."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._previous: Manifest | None = None
        self._warned_unsafe = False

    def tell(self, request: Request, manifest: Manifest) -> CheckpointInfo:
        """Log that it is saved, and what is odd; return its description."""
        if request.snapshot.unsafe and not self._warned_unsafe:
            self._warned_unsafe = True
            logger.warning(
                "step %d: %s holds what torch.load(weights_only=True) refuses, so that restoring it needs "
                "weights_only=False: %s",
                request.step,
                request.name,
                "; ".join(request.snapshot.unsafe),
            )
        before, self._previous = self._previous, manifest
        if (
            before is not None
            and manifest.tensors
            and before.tensors == manifest.tensors
            and before.step != manifest.step
        ):
            logger.warning(
                "step %d: %s holds bit-identical tensors to %s of step %d: nothing was trained between them, "
                "or the state was captured wrongly",
                manifest.step,
                manifest.name,
                before.name,
                before.step,
            )
        info = info_of(self._store, manifest)
        logger.info("step %d: saved %s (%d bytes)", info.step, info.url, info.nbytes)
        return info
