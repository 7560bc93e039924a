"""Memory for the first save, made warm while training goes on."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from asynchooks.distributed import is_first_rank
from asynchooks.errors import CaptureError

if TYPE_CHECKING:
    from asynchooks.hooks.checkpoint._ranks import Form

__all__ = ["WarmUp"]


class WarmUp:
    """Makes memory for captures warm, once, when the optimizer has its state.

    In a thread and not in a background part: it is no save, so it stands in no statistics of saves.

    Attributes:
        is_done: whether it was begun.
    """

    def __init__(self) -> None:
        self.is_done = False

    def once(self, runner: Any, *, form: Form, save_optimizer: bool) -> None:
        """Begin, the first time that this is called. Training thread; does not wait."""
        if self.is_done:
            return
        self.is_done = True
        if runner.executor.mode == "sync" or (form == "single" and not is_first_rank()):
            return
        in_form = {} if form == "single" else {"form": form}
        make = runner.prepare_capture(**in_form, save_optimizer=save_optimizer)

        def prepare() -> None:
            try:
                make()
            except CaptureError as error:  # the save will tell, if there is no memory by then either
                runner.logger.debug("CheckpointHook: %s", error)

        if make is not None:
            threading.Thread(target=prepare, name="asynchooks prepare").start()
