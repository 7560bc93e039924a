"""What every hook that saves checkpoints has: where they go, in which form, what they are called, how one is taken.

Captures on the training thread. Where the run has ranks, a capture takes all of them, and so does each step here that
decides something: the ranks decide alike. Knows nothing of files, stores or retention: that is the checkpoint
package's.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from asynchooks.checkpoint import ShardSnapshot, Snapshot, store_options
from asynchooks.execution import Effects, Hook, background
from asynchooks.hooks.checkpoint import _options
from asynchooks.hooks.checkpoint._books import Claims
from asynchooks.hooks.checkpoint._opening import folder_url, open_folder
from asynchooks.hooks.checkpoint._ranks import check_when_busy, form_for
from asynchooks.hooks.checkpoint._warm import WarmUp

if TYPE_CHECKING:
    from asynchooks.execution._hook import BackgroundPart, OnError, WhenBusy
    from asynchooks.hooks.checkpoint._folder import Folder
    from asynchooks.hooks.checkpoint._ranks import Form

__all__ = ["Saving"]


class Saving(Hook):
    """The arguments of `CheckpointHook` that say where and how checkpoints are saved.

    Raises:
        ConfigError, TypeError, UnknownOptionError, UnsafePathError: a wrong value.
    """

    priority = "VERY_LOW"
    effects = Effects(writes={"checkpoints"})
    changes_state = False
    fires = ("after_save_checkpoint",)

    def __init__(
        self,
        *,
        by_epoch: bool = True,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        out_dir: str | os.PathLike[str] | None = None,
        filename_tmpl: str | None = None,
        backend_args: Mapping[str, Any] | None = None,
        file_client_args: Mapping[str, Any] | None = None,
        format: Form | None = None,  # noqa: A002 - the field's word
        overlap: bool = True,
        when_busy: WhenBusy = "wait",
        on_error: OnError = "raise",
        deadline_s: float = 120.0,
    ) -> None:
        self.by_epoch = by_epoch
        self.save_optimizer = save_optimizer
        self.save_param_scheduler = save_param_scheduler
        self.overlap = overlap
        self.out_dir = None if out_dir is None else os.fspath(out_dir)
        self.filename_tmpl = _options.check_template(filename_tmpl, by_epoch=by_epoch)
        self.backend_args = store_options("CheckpointHook", backend_args, file_client_args)
        self.format: Form | None = (
            None if format is None else _options.check_word("format", format, ("single", "sharded"))
        )
        self.when_busy = _options.check_word("when_busy", when_busy, ("wait", "skip", "coalesce"))
        self.on_error = _options.check_word("on_error", on_error, ("raise", "warn"))
        self.deadline_s = _options.check_seconds("deadline_s", deadline_s)
        self._claims = Claims()
        self._warm_up = WarmUp()
        self._form: Literal["single", "sharded"] = self.format or "single"
        self._folder: Folder | None = None
        self._hub: Any = None  # of the run that trains
        self._is_training = True  # a loop of one's own may say nothing before its first step

    @property
    def last_ckpt(self) -> str | None:
        """Address of the newest checkpoint of a step, durable or still on its way; None before there is one."""
        return None if self._hub is None else self._hub.get_info("last_ckpt")

    def checkpoint_folder(self, runner: Any) -> str:
        """Return the folder or URL of a run's checkpoints.

        Raises:
            ConfigError: neither the hook nor the run names one.
        """
        return folder_url(self.out_dir, getattr(runner, "work_dir", None))

    def before_run(self, runner: Any) -> None:
        """A validation outside of training saves nothing."""
        self._is_training = False

    def before_train(self, runner: Any) -> None:
        """Check that the store can be reached (else `StorageError`)."""
        self._is_training = True
        self._warm_up = WarmUp()
        self._folder = None
        self._folder_of(runner)

    @background
    def after_train(self, runner: Any) -> BackgroundPart | None:
        """What is validated from now on is not part of the training."""
        self._is_training = False
        return None

    @background
    def after_run(self, runner: Any) -> BackgroundPart | None:
        """Let other runs have the folder, after the last save."""
        return None if self._folder is None else self._folder.release

    def close(self) -> None:
        """Let other runs have the folder, after a run that failed."""
        folder, self._folder = self._folder, None
        if folder is not None:
            folder.close()

    def _capture(
        self, runner: Any, meta: Mapping[str, int], *, is_full: bool = True
    ) -> Snapshot | ShardSnapshot | None:
        """Take a copy, all ranks together; None on a rank that has nothing to write."""
        form = {} if self._form == "single" else {"form": self._form}
        snapshot: Snapshot | ShardSnapshot | None = runner.capture(
            **form,
            save_optimizer=is_full and self.save_optimizer,
            save_param_scheduler=is_full and self.save_param_scheduler,
            meta=meta,
            overlap=self.overlap,
        )
        return snapshot

    def _number(self, meta: Mapping[str, int]) -> int:
        return meta["epoch" if self.by_epoch else "iter"]

    def _name(self, meta: Mapping[str, int]) -> str:
        return self._in_form(self.filename_tmpl.format(self._number(meta)))

    def _in_form(self, name: str) -> str:
        """The name of a file, or of a folder, which is no ``.pth``."""
        return name if self._form == "single" else name.removesuffix(".pth")

    def _folder_of(self, runner: Any) -> Folder:
        """Return the folder of this run's checkpoints; the first time, check that the store takes them."""
        if self._folder is None:
            self._form = form_for(runner, self.format)
            check_when_busy(self.when_busy, self._form)
            url = self.checkpoint_folder(runner)
            self._folder = open_folder(
                url, self.backend_args, runner, form=self._form, deadline_s=self.deadline_s
            )
            self._hub = runner.message_hub
        return self._folder
