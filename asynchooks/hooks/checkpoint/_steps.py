"""Checkpoints of the interval and of the last step: when they are due, what they are called, what is remembered.

The base of every hook that saves in this way, MMEngine's and MMCV's alike. Captures on the training thread and hands
the rest - persist, commit, pointer, prune, tell the listeners - to the background. Knows nothing of files, stores or
retention: that is the checkpoint package's.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from asynchooks.checkpoint import Snapshot, store_options
from asynchooks.distributed import is_first_rank
from asynchooks.execution import Effects, Hook, background
from asynchooks.hooks.checkpoint import _options
from asynchooks.hooks.checkpoint._books import Claims
from asynchooks.hooks.checkpoint._folder import Folder, Save, folder_url, open_folder
from asynchooks.hooks.checkpoint._warm import WarmUp

if TYPE_CHECKING:
    from asynchooks.execution._hook import BackgroundPart, OnError, WhenBusy

__all__ = ["StepSaving"]


class StepSaving(Hook):
    """Saves a checkpoint every so often and at the end; the arguments are those of `CheckpointHook`.

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
        interval: int = -1,
        by_epoch: bool = True,
        save_begin: int = 0,
        save_last: bool = True,
        max_keep_ckpts: int = -1,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        out_dir: str | os.PathLike[str] | None = None,
        filename_tmpl: str | None = None,
        backend_args: Mapping[str, Any] | None = None,
        file_client_args: Mapping[str, Any] | None = None,
        overlap: bool = True,
        when_busy: WhenBusy = "wait",
        on_error: OnError = "raise",
        deadline_s: float = 120.0,
    ) -> None:
        meaning = f"counting {'epochs' if by_epoch else 'iterations'}"
        self.interval = _options.check_count("interval", interval, least=-1, meaning="or -1 for never")
        self.save_begin = _options.check_count("save_begin", save_begin, least=0, meaning=meaning)
        self.max_keep_ckpts = _options.check_count(
            "max_keep_ckpts", max_keep_ckpts, least=-1, meaning="-1 for all"
        )
        self.by_epoch = by_epoch
        self.save_last = save_last
        self.save_optimizer = save_optimizer
        self.save_param_scheduler = save_param_scheduler
        self.overlap = overlap
        self.out_dir = None if out_dir is None else os.fspath(out_dir)
        self.filename_tmpl = _options.check_template(filename_tmpl, by_epoch=by_epoch)
        self.backend_args = store_options("CheckpointHook", backend_args, file_client_args)
        self.when_busy = _options.check_word("when_busy", when_busy, ("wait", "skip", "coalesce"))
        self.on_error = _options.check_word("on_error", on_error, ("raise", "warn"))
        self.deadline_s = _options.check_seconds("deadline_s", deadline_s)
        self._claims = Claims()
        self._warm_up = WarmUp()
        self._folder: Folder | None = None
        self._hub: Any = None  # of the run that trains
        self._is_training = True  # a loop of one's own may say nothing before its first step

    @property
    def will_save(self) -> bool:
        """Whether there will be a save at all."""
        return self.interval > 0 or self.save_last

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
        """Check that the store can be reached (else `StorageError`); take up what a resumed run remembers."""
        self._is_training = True
        self._warm_up = WarmUp()
        self._folder = None
        self._folder_of(runner)
        if self.max_keep_ckpts > 0:
            kept = list(runner.message_hub.get_info("keep_ckpt_ids") or ())
            runner.message_hub.update_info("keep_ckpt_ids", kept[-self.max_keep_ckpts :])

    @background
    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> BackgroundPart | None:
        """Save, where iterations are counted and one is due; the first time, see to warm memory for saves."""
        del batch_idx, data_batch, outputs
        self._is_training = True
        is_due = not self.by_epoch and self._is_due(runner.iter + 1, runner.max_iters)
        if is_due or getattr(runner, "wants_checkpoint", False):
            name = f"iter_{runner.iter + 1}.pth" if self.by_epoch else None
            return self._save_step(runner, {"epoch": runner.epoch, "iter": runner.iter + 1}, name)
        if not self._warm_up.is_done and self.will_save:
            self._warm_up.once(runner, save_optimizer=self.save_optimizer)
        return None

    @background
    def after_train_epoch(self, runner: Any) -> BackgroundPart | None:
        """Save, where epochs are counted and one is due."""
        self._is_training = True
        if self.by_epoch and self._is_due(runner.epoch + 1, runner.max_epochs):
            return self._save_step(runner, {"epoch": runner.epoch + 1, "iter": runner.iter})
        return None

    @background
    def after_train(self, runner: Any) -> BackgroundPart | None:
        """What is validated from now on is not part of the training."""
        self._is_training = False
        return None

    @background
    def after_run(self, runner: Any) -> BackgroundPart | None:
        """Let other runs have the folder, after the last save."""
        return None if self._folder is None or not is_first_rank() else self._folder.release

    def close(self) -> None:
        """Let other runs have the folder, after a run that failed."""
        folder, self._folder = self._folder, None
        if folder is not None and is_first_rank():
            folder.close()

    def _is_due(self, done: int, last: int | None) -> bool:
        since = done - self.save_begin
        is_interval = self.interval > 0 and since >= 0 and since % self.interval == 0
        return is_interval or (self.save_last and done == last)

    def _save_step(self, runner: Any, meta: dict[str, int], name: str | None = None) -> BackgroundPart | None:
        folder = self._folder_of(runner)
        self._claims.settle(runner.message_hub)
        entries = {"last_ckpt": folder.url_of(name)} if name else self._step_entries(runner, folder, meta)
        with self._claims.claim(runner.message_hub, entries) as claim:
            snapshot = self._capture(runner, meta)  # every rank takes part, and the first one has it
        if snapshot is None:
            return None
        save = Save(name or self._name(meta), snapshot, meta, keep=self.max_keep_ckpts)
        return claim.kept_by(folder.committing(runner, [save]))

    def _capture(self, runner: Any, meta: Mapping[str, int], *, is_full: bool = True) -> Snapshot | None:
        snapshot: Snapshot | None = runner.capture(
            save_optimizer=is_full and self.save_optimizer,
            save_param_scheduler=is_full and self.save_param_scheduler,
            meta=meta,
            overlap=self.overlap,
        )
        return snapshot

    def _number(self, meta: Mapping[str, int]) -> int:
        return meta["epoch" if self.by_epoch else "iter"]

    def _name(self, meta: Mapping[str, int]) -> str:
        return self.filename_tmpl.format(self._number(meta))

    def _step_entries(self, runner: Any, folder: Folder, meta: Mapping[str, int]) -> dict[str, Any]:
        entries: dict[str, Any] = {"last_ckpt": folder.url_of(self._name(meta))}
        if self.max_keep_ckpts > 0:
            number = self._number(meta)
            kept = [k for k in runner.message_hub.get_info("keep_ckpt_ids") or () if k != number]
            entries["keep_ckpt_ids"] = [*kept, number][-self.max_keep_ckpts :]
        return entries

    def _folder_of(self, runner: Any) -> Folder:
        """Return the folder of this run's checkpoints; the first time, check that the store takes them."""
        if self._folder is None:
            url = self.checkpoint_folder(runner)
            self._folder = open_folder(url, self.backend_args, runner, deadline_s=self.deadline_s)
            self._hub = runner.message_hub
        return self._folder
