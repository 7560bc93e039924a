"""`EpochBasedRunner`: a turn of a phase is a pass over its loader."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from asynchooks.data import length_of
from asynchooks.errors import ConfigError
from asynchooks.registry import RUNNERS
from asynchooks.runner._data import BatchFeed
from asynchooks.runner._steps import switch_mode
from asynchooks.runner.mmcv._base import BaseRunner

__all__ = ["EpochBasedRunner"]


@RUNNERS.register_module()
class EpochBasedRunner(BaseRunner):
    """Trains for ``max_epochs`` passes over the data, in MMCV's manner; see `BaseRunner` for the arguments.

    The points of ``run``: ``before_run``; for each training epoch ``before_train_epoch``, its iterations,
    ``after_train_epoch``; for each validation the same with ``val``; ``after_run``. Beside MMCV's there are
    ``before_train`` and ``after_train`` around all of it, for hooks that know them. Nothing sleeps between epochs.
    """

    @property
    def by_epoch(self) -> bool:
        """True: the training counts epochs."""
        return True

    def run(
        self,
        data_loaders: Sequence[Any],
        workflow: Sequence[tuple[str, int]] = (("train", 1),),
        max_epochs: int | None = None,
        **options: Any,
    ) -> None:
        """Train, phase after phase, from where the run stands to ``max_epochs``.

        Args:
            data_loaders: one loader for each phase.
            workflow: pairs of a mode, "train" or "val", and epochs: ``[("train", 2), ("val", 1)]``. Only training
                epochs count for ``max_epochs``.
            max_epochs: wins over the constructor's.
            options: handed to the model's ``train_step``.

        Raises:
            TypeError, ValueError: the loaders or phases are wrong, or there is no ``max_epochs``.
            BackgroundHookError, ExceptionGroup: a background part of a hook failed.
        """
        if max_epochs is not None:
            self._max_epochs = max_epochs
        super().run(data_loaders, workflow, **options)

    def train(self, data_loader: Any, **options: Any) -> None:
        """Train for one epoch. Called by `run`."""
        switch_mode(self.model, "train")
        self.mode = "train"
        self.data_loader = data_loader
        feed = self._feed_of(data_loader)
        self._count_iterations(feed)
        self.call_hook("before_train_epoch")
        self._start_passes([feed])
        for batch in feed:
            self._inner_iter = feed.drawn - 1
            self._iterate(batch, "train", options)
            self._iter += 1
        feed.end_pass()
        self._is_epoch_done = True
        self.call_hook("after_train_epoch")
        self._is_epoch_done = False
        self._epoch += 1

    def val(self, data_loader: Any, **options: Any) -> None:
        """Validate once. Called by `run`."""
        del options  # the model's train_step takes them
        switch_mode(self.model, "eval")
        self.mode = "val"
        self.data_loader = data_loader
        self.call_hook("before_val_epoch")
        for index, batch in enumerate(data_loader):
            self._inner_iter = index
            self._iterate(batch, "val", {})
        self.call_hook("after_val_epoch")

    def save_checkpoint(  # type: ignore[override]  # MMCV's signature
        self,
        out_dir: str | os.PathLike[str] | None = None,
        filename_tmpl: str = "epoch_{}.pth",
        save_optimizer: bool = True,  # noqa: FBT001, FBT002
        meta: Mapping[str, Any] | None = None,
        create_symlink: bool = True,  # noqa: FBT001, FBT002
    ) -> None:
        """Save a checkpoint now and wait until it is committed; the epoch that runs is counted as done.

        Args:
            out_dir: folder or URL; the work folder where it is left out.
            filename_tmpl: name of the file, with a place for the epoch.
            save_optimizer: whether the optimizer's state is saved.
            meta: further entries of ``meta``.
            create_symlink: whether ``latest.pth`` in a local folder links to it.
        """
        numbers = {"epoch": self._epoch + 1, "iter": self._iter}
        name = filename_tmpl.format(numbers["epoch"])
        self._save(
            out_dir, name, numbers, save_optimizer=save_optimizer, meta=meta, create_symlink=create_symlink
        )

    def _begin(self) -> None:
        if self._max_epochs is None:
            raise ConfigError(f"{type(self).__name__} needs max_epochs, at construction or in run().")

    def _take_up_position(self) -> None:
        super()._take_up_position()
        workflow = self._workflow
        assert workflow is not None  # noqa: S101 - run() has made it
        for (mode, _), feed in zip(workflow.phases, workflow.feeds, strict=True):
            if mode == "train":
                self._count_iterations(feed)
                break

    def _run_phases(self, options: Mapping[str, Any]) -> None:
        workflow = self._workflow
        assert workflow is not None  # noqa: S101 - run() has made it
        for mode in workflow.remaining(self._is_done, lambda: self._epoch):
            getattr(self, mode)(workflow.feeds[workflow.index].loader, **options)

    def _is_done(self) -> bool:
        return self._epoch >= (self._max_epochs or 0) or self._is_stopping(settled=True)

    def _count_iterations(self, feed: BatchFeed) -> None:
        """Say how many there are in all: those that are done, and those that are left with epochs as they are now."""
        length = length_of(feed.loader)
        self._max_iters = None
        if length is not None and self._max_epochs is not None:
            iterations = self._max_epochs * length + feed.surplus(self._epoch, self._iter)
            self._max_iters = max(self._iter, iterations)

    def _resume_counters(self, epoch: int, iteration: int) -> None:
        del epoch, iteration  # an epoch starts anew
