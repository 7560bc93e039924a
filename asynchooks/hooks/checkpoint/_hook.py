"""When a checkpoint is saved, and what the run remembers of it.

Captures on the training thread and hands the rest - persist, commit, pointer, prune, tell the listeners - to the
background. Knows nothing of files, stores or retention: that is the checkpoint package's.

MMEngine writes the file of a step a second time when its validation finds a new best, so that the file knows the
best score. Here the best checkpoint's own manifest says it, and a resumed run reads it there: one save less.
"""

from __future__ import annotations

import os
import re
import threading
import uuid
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from asynchooks.checkpoint import store_options
from asynchooks.errors import CaptureError, ConfigError
from asynchooks.execution import Effects, Hook, background
from asynchooks.hooks.checkpoint import _options
from asynchooks.hooks.checkpoint._best import AUTO, Improvement, Rules, improvements, plain_numbers
from asynchooks.hooks.checkpoint._books import Claims, recall
from asynchooks.hooks.checkpoint._folder import Folder, Save, is_first_rank
from asynchooks.hooks.checkpoint._publish import publish, published_pattern
from asynchooks.registry import HOOKS

if TYPE_CHECKING:
    from asynchooks.execution._hook import BackgroundPart, OnError, WhenBusy

__all__ = ["CheckpointHook"]


@HOOKS.register_module()
class CheckpointHook(Hook):
    """Saves checkpoints: every so often, the last one, and the best ones.

    Args:
        interval: a checkpoint every so many epochs or iterations; -1 for none but those that other arguments ask
            for.
        by_epoch: whether ``interval`` and ``save_begin`` count epochs (else iterations).
        save_optimizer: whether the optimizer's state is saved.
        save_param_scheduler: whether the schedulers' states are saved.
        out_dir: folder or URL (``s3://bucket/prefix``); the name of the run's folder is appended where it differs.
            None is the run's folder.
        max_keep_ckpts: how many interval checkpoints are kept; -1 keeps all.
        save_last: whether the last epoch or iteration is saved in any case.
        save_best: metric, or list of metrics, whose best checkpoint is kept; ``"auto"`` takes the first metric of
            the first validation.
        rule: "greater", "less" or None (inferred from the name) for all metrics, or a list, one for each.
        greater_keys: names, or parts of names, of metrics of which more is better.
        less_keys: the same where less is better.
        file_client_args: old name of ``backend_args``.
        filename_tmpl: file name with one place for the number; ``"epoch_{}.pth"`` or ``"iter_{}.pth"``.
        backend_args: fsspec's options for the store.
        published_keys: keys of the checkpoint that are written, after training, to ``{name}-{sha8}.pth``.
        save_begin: the first epoch or iteration at which the interval may save.
        save_best_full: whether best checkpoints hold optimizer and schedulers too, so that a run can resume from one.
        overlap: whether what only the optimizer's step changes is copied while training goes on, until that step.
            False copies all at once: for a model whose forward writes its parameters past autograd (``.data``).
        when_busy: what a save does when there is no room for it: "wait", "skip" or "coalesce".
        on_error: what a failed save does: "raise" in the training thread, or "warn".
        deadline_s: longest time without progress of any call to the store, after which the save fails.

    Raises:
        UnknownOptionError: an argument that there is not, with the one that was meant.
        ConfigError, TypeError, UnknownNameError: a wrong value.
    """

    priority = "VERY_LOW"
    effects = Effects(writes={"checkpoints"})
    changes_state = False
    fires = ("after_save_checkpoint",)

    def __init__(
        self,
        interval: int = -1,
        by_epoch: bool = True,  # noqa: FBT001, FBT002 - MMEngine's order of arguments
        save_optimizer: bool = True,  # noqa: FBT001, FBT002
        save_param_scheduler: bool = True,  # noqa: FBT001, FBT002
        out_dir: str | os.PathLike[str] | None = None,
        max_keep_ckpts: int = -1,
        save_last: bool = True,  # noqa: FBT001, FBT002
        save_best: str | Sequence[str] | None = None,
        rule: str | Sequence[str | None] | None = None,
        greater_keys: str | Sequence[str] | None = None,
        less_keys: str | Sequence[str] | None = None,
        file_client_args: Mapping[str, Any] | None = None,
        filename_tmpl: str | None = None,
        backend_args: Mapping[str, Any] | None = None,
        published_keys: str | Sequence[str] | None = None,
        save_begin: int = 0,
        *,
        save_best_full: bool = False,
        overlap: bool = True,
        when_busy: WhenBusy = "wait",
        on_error: OnError = "raise",
        deadline_s: float = 120.0,
        **unknown: Any,
    ) -> None:
        _options.reject_unknown(unknown, CheckpointHook)
        meaning = f"counting {'epochs' if by_epoch else 'iterations'}"
        self.interval = _options.check_count("interval", interval, least=-1, meaning="or -1 for never")
        self.save_begin = _options.check_count("save_begin", save_begin, least=0, meaning=meaning)
        self.max_keep_ckpts = _options.check_count(
            "max_keep_ckpts", max_keep_ckpts, least=-1, meaning="-1 for all"
        )
        self.by_epoch = by_epoch
        self.save_optimizer = save_optimizer
        self.save_param_scheduler = save_param_scheduler
        self.save_last = save_last
        self.save_best_full = save_best_full
        self.overlap = overlap
        self.out_dir = None if out_dir is None else os.fspath(out_dir)
        self.backend_args = store_options("CheckpointHook", backend_args, file_client_args)
        self.filename_tmpl = _options.check_template(filename_tmpl, by_epoch=by_epoch)
        self.published_keys = _options.published(published_keys)
        self.when_busy = _options.check_word("when_busy", when_busy, ("wait", "skip", "coalesce"))
        self.on_error = _options.check_word("on_error", on_error, ("raise", "warn"))
        self.deadline_s = _options.check_seconds("deadline_s", deadline_s)
        self._rules = Rules.checked(rule, greater_keys, less_keys)
        metrics = _options.metric_names(save_best)
        if rule is not None and not metrics:
            raise ConfigError(f"CheckpointHook(rule={rule!r}): a rule needs the metric, in save_best.")
        self._is_auto = metrics == (AUTO,)
        self._bests = self._rules.apply(metrics) if metrics and not self._is_auto else ()
        self._folder: Folder | None = None
        self._may_save_best = True
        self._is_prepared = False
        self._resumed_at = 0
        self._claims = Claims()

    @property
    def saves_best(self) -> bool:
        """Whether a best checkpoint is kept."""
        return self._is_auto or bool(self._bests)

    def checkpoint_folder(self, runner: Any) -> str:
        """Return the folder or URL of a run's checkpoints.

        Raises:
            ConfigError: neither the hook nor the run names one.
        """
        work_dir = getattr(runner, "work_dir", None)
        if self.out_dir is None and work_dir is None:
            raise ConfigError(
                "CheckpointHook: there is no folder to save to; give out_dir, or the run a work_dir."
            )
        if work_dir is None or self.out_dir in (None, work_dir):
            return str(self.out_dir or work_dir)
        return f"{self.out_dir.rstrip('/')}/{Path(work_dir).absolute().name}"

    def before_run(self, runner: Any) -> None:
        """A validation on its own, outside of training, chooses no best checkpoint."""
        del runner
        self._may_save_best = False

    def before_train(self, runner: Any) -> None:
        """Check that the store can be reached, and take up what a resumed run remembers.

        Raises:
            StorageError: the store refuses or is not there; nothing has been trained yet.
        """
        self._may_save_best = True
        self._is_prepared = False
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
        if self.by_epoch:
            self._prepare(runner)
            return None
        self._may_save_best = True
        done = runner.iter + 1
        if self._is_due(done) or (self.save_last and done == runner.max_iters):
            return self._save_step(runner, {"epoch": runner.epoch, "iter": done})
        self._prepare(runner)
        return None

    @background
    def after_train_epoch(self, runner: Any) -> BackgroundPart | None:
        """Save, where epochs are counted and one is due."""
        self._may_save_best = True
        if not self.by_epoch:
            return None
        done = runner.epoch + 1
        if self._is_due(done) or (self.save_last and done == runner.max_epochs):
            return self._save_step(runner, {"epoch": done, "iter": runner.iter})
        return None

    @background
    def after_val_epoch(self, runner: Any, metrics: Mapping[str, Any] | None = None) -> BackgroundPart | None:
        """Save the best checkpoint of each metric that has become better."""
        if not self.saves_best or not self._may_save_best:
            return None
        if not metrics:
            runner.logger.warning(
                "CheckpointHook: the validation has no metrics, so there is no best checkpoint."
            )
            return None
        folder = self._folder_of(runner)
        better = self._judge(runner, folder, metrics)
        return self._save_best(runner, folder, better, metrics) if better else None

    @background
    def after_train(self, runner: Any) -> BackgroundPart | None:
        """Publish the last and the best checkpoints, where keys to publish were given."""
        self._may_save_best = False
        folder, keys, hub = self._folder, self.published_keys, runner.message_hub
        if not keys or folder is None or not is_first_rank():
            return None
        addresses: list[tuple[str | None, re.Pattern[str] | None]] = [
            (hub.get_info(b.path_key), published_pattern(b.prefix, self.filename_tmpl)) for b in self._bests
        ]
        if self.save_last:
            addresses.insert(0, (hub.get_info("last_ckpt"), None))
        jobs = [
            partial(
                publish, url, keys, superseded=superseded, options=self.backend_args, logger=runner.logger
            )
            for url, superseded in addresses
            if url is not None
        ]

        async def publish_all() -> None:
            for job in jobs:
                await anyio.to_thread.run_sync(job)

        return publish_all

    @background
    def after_run(self, runner: Any) -> BackgroundPart | None:
        """Let other runs have the folder, after the last save."""
        del runner
        return None if self._folder is None or not is_first_rank() else self._folder.release

    def _is_due(self, done: int) -> bool:
        since = done - self.save_begin
        return self.interval > 0 and since >= 0 and since % self.interval == 0

    def _prepare(self, runner: Any) -> None:
        """Have memory made warm for the first save, now that the optimizer has its state.

        In a thread and not in a background part: it is no save, so it stands in no statistics of saves.
        """
        if self._is_prepared:
            return
        self._is_prepared = True
        will_save = self.interval > 0 or self.save_last or self.saves_best
        if not will_save or not is_first_rank() or runner.executor.mode == "sync":
            return
        make = runner.prepare_capture(save_optimizer=self.save_optimizer)

        def prepare() -> None:
            try:
                make()
            except CaptureError as error:  # the save will tell, if there is no memory by then either
                runner.logger.debug("CheckpointHook: %s", error)

        if make is not None:
            threading.Thread(target=prepare, name="asynchooks prepare").start()

    def _save_step(self, runner: Any, meta: dict[str, int]) -> BackgroundPart | None:
        folder = self._folder_of(runner)
        name = self._name(meta)
        self._claims.settle(runner.message_hub)
        with self._claims.claim(runner.message_hub, self._step_entries(runner, folder, meta)) as claim:
            if not is_first_rank():
                return None
            snapshot = runner.capture(
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler,
                meta=meta,
                overlap=self.overlap,
            )
        return claim.kept_by(
            folder.committing(runner, [Save(name, snapshot, meta, keep=self.max_keep_ckpts)])
        )

    def _save_best(
        self, runner: Any, folder: Folder, better: Sequence[Improvement], metrics: Mapping[str, Any]
    ) -> BackgroundPart | None:
        """Save what has become better and, as MMEngine does once a run has saved, the step that it belongs to."""
        meta = {"epoch": runner.epoch, "iter": runner.iter}
        hub = runner.message_hub
        name = self._name(meta)
        last = hub.get_info("last_ckpt")
        with_step = last is not None and last != folder.url_of(name)
        entries = self._step_entries(runner, folder, meta) if with_step else {}
        for each in better:
            entries[each.best.score_key] = each.score
            entries[each.best.path_key] = folder.url_of(each.best.prefix + name)
        is_full = with_step or self.save_best_full
        with self._claims.claim(hub, entries) as claim:
            if not is_first_rank():
                return None
            snapshot = runner.capture(
                save_optimizer=is_full and self.save_optimizer,
                save_param_scheduler=is_full and self.save_param_scheduler,
                meta=meta,
                overlap=self.overlap,
            )
        weights = snapshot if self.save_best_full else snapshot.without("optimizer", "param_schedulers")
        numbers = plain_numbers(metrics)
        saves = [Save(e.best.prefix + name, weights, meta, best=e.best, metrics=numbers) for e in better]
        if with_step:
            saves.append(Save(name, snapshot, meta, keep=self.max_keep_ckpts, metrics=numbers))
        return claim.kept_by(folder.committing(runner, saves))

    def _judge(self, runner: Any, folder: Folder, metrics: Mapping[str, Any]) -> list[Improvement]:
        if self._is_auto and not self._bests:
            self._bests = self._rules.apply([next(iter(metrics))])
        self._claims.settle(runner.message_hub)
        if self._resumed_at:
            recall(runner.message_hub, folder, self._bests, self._resumed_at)
            self._resumed_at = 0
        scores = {best.metric: runner.message_hub.get_info(best.score_key) for best in self._bests}
        better, remarks = improvements(self._bests, metrics, scores)
        for remark in remarks:
            runner.logger.warning("CheckpointHook: %s; no best checkpoint is chosen by it.", remark)
        return better

    def _name(self, meta: Mapping[str, int]) -> str:
        return self.filename_tmpl.format(meta["epoch" if self.by_epoch else "iter"])

    def _step_entries(self, runner: Any, folder: Folder, meta: Mapping[str, int]) -> dict[str, Any]:
        entries: dict[str, Any] = {"last_ckpt": folder.url_of(self._name(meta))}
        if self.max_keep_ckpts > 0:
            number = meta["epoch" if self.by_epoch else "iter"]
            kept = [k for k in runner.message_hub.get_info("keep_ckpt_ids") or () if k != number]
            entries["keep_ckpt_ids"] = [*kept, number][-self.max_keep_ckpts :]
        return entries

    def _folder_of(self, runner: Any) -> Folder:
        """Return the folder of this run's checkpoints; the first time, check that the store takes them."""
        if self._folder is None:
            hub = runner.message_hub
            if hub.get_info("run_id") is None:
                hub.update_info("run_id", uuid.uuid4().hex)
            folder = Folder(
                self.checkpoint_folder(runner),
                self.backend_args,
                hub.get_info("run_id"),
                deadline_s=self.deadline_s,
            )
            if is_first_rank():
                folder.check()
            self._resumed_at = runner.iter
            self._folder = folder
        return self._folder
