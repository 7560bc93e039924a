"""Checkpoints of the interval and of the last step: when they are due, and what is remembered of them.

The base of every hook that saves in this way, MMEngine's and MMCV's alike. What follows a capture - persist, commit,
pointer, prune, tell the listeners - is the background's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asynchooks.execution import background
from asynchooks.hooks.checkpoint import _options
from asynchooks.hooks.checkpoint._folder import Folder, Save
from asynchooks.hooks.checkpoint._saving import Saving

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asynchooks.execution._hook import BackgroundPart

__all__ = ["StepSaving"]


class StepSaving(Saving):
    """Saves a checkpoint every so often and at the end; the arguments are those of `CheckpointHook`.

    Raises:
        ConfigError, TypeError, UnknownOptionError, UnsafePathError: a wrong value.
    """

    def __init__(
        self,
        *,
        interval: int = -1,
        by_epoch: bool = True,
        save_begin: int = 0,
        save_last: bool = True,
        max_keep_ckpts: int = -1,
        **options: Any,
    ) -> None:
        super().__init__(by_epoch=by_epoch, **options)
        meaning = f"counting {'epochs' if by_epoch else 'iterations'}"
        self.interval = _options.check_count("interval", interval, least=-1, meaning="or -1 for never")
        self.save_begin = _options.check_count("save_begin", save_begin, least=0, meaning=meaning)
        self.max_keep_ckpts = _options.check_count(
            "max_keep_ckpts", max_keep_ckpts, least=-1, meaning="-1 for all"
        )
        self.save_last = save_last

    @property
    def will_save(self) -> bool:
        """Whether there will be a save at all."""
        return self.interval > 0 or self.save_last

    def before_train(self, runner: Any) -> None:
        """Check that the store can be reached (else `StorageError`); take up what a resumed run remembers."""
        super().before_train(runner)
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
            name = self._in_form(f"iter_{runner.iter + 1}.pth") if self.by_epoch else None
            return self._save_step(runner, {"epoch": runner.epoch, "iter": runner.iter + 1}, name)
        if not self._warm_up.is_done and self.will_save:
            self._warm_up.once(runner, form=self._form, save_optimizer=self.save_optimizer)
        return None

    @background
    def after_train_epoch(self, runner: Any) -> BackgroundPart | None:
        """Save, where epochs are counted and one is due."""
        self._is_training = True
        if self.by_epoch and self._is_due(runner.epoch + 1, runner.max_epochs):
            return self._save_step(runner, {"epoch": runner.epoch + 1, "iter": runner.iter})
        return None

    def _is_due(self, done: int, last: int | None) -> bool:
        since = done - self.save_begin
        is_interval = self.interval > 0 and since >= 0 and since % self.interval == 0
        return is_interval or (self.save_last and done == last)

    def _save_step(self, runner: Any, meta: dict[str, int], name: str | None = None) -> BackgroundPart | None:
        folder = self._folder_of(runner)
        self._claims.settle(runner.message_hub)
        entries = {"last_ckpt": folder.url_of(name)} if name else self._step_entries(runner, folder, meta)
        with self._claims.claim(runner.message_hub, entries) as (claim,):
            snapshot = self._capture(runner, meta)
        if snapshot is None:
            return None
        save = Save(name or self._name(meta), snapshot, meta, claim, keep=self.max_keep_ckpts)
        return folder.committing(runner, [save])

    def _step_entries(self, runner: Any, folder: Folder, meta: Mapping[str, int]) -> dict[str, Any]:
        entries: dict[str, Any] = {"last_ckpt": folder.url_of(self._name(meta))}
        if self.max_keep_ckpts > 0:
            number = self._number(meta)
            kept = [k for k in runner.message_hub.get_info("keep_ckpt_ids") or () if k != number]
            entries["keep_ckpt_ids"] = [*kept, number][-self.max_keep_ckpts :]
        return entries
