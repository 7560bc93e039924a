"""`IterBasedRunner`: a turn of a phase is one iteration, on the next batch of an endless loader."""

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

__all__ = ["IterBasedRunner", "IterLoader"]


class IterLoader:
    """A loader that begins anew when it ends. What it has not itself, it asks of the loader.

    Args:
        dataloader: a loader, or what draws its batches.
    """

    def __init__(self, dataloader: Any) -> None:
        self._feed = dataloader if isinstance(dataloader, BatchFeed) else BatchFeed(dataloader)
        self._dataloader = self._feed.loader

    @property
    def epoch(self) -> int:
        """Passes completed; a pass counts when the next batch is asked for."""
        return self._feed.passes

    def __iter__(self) -> IterLoader:
        return self

    def __next__(self) -> Any:
        return self._feed.next_of_any_pass()

    def __len__(self) -> int:
        return len(self._dataloader)  # type: ignore[arg-type]  # a TypeError where it has none

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._dataloader, name)


@RUNNERS.register_module()
class IterBasedRunner(BaseRunner):
    """Trains for ``max_iters`` iterations, in MMCV's manner; see `BaseRunner` for the arguments.

    The points of ``run``: ``before_run``, ``before_train_epoch``; the iterations; ``after_train_epoch``,
    ``after_run``. MMCV calls ``before_epoch`` and ``after_epoch`` around the iterations, and so never a hook's own
    ``before_train_epoch``; here a hook's ``before_epoch`` serves that point, as ever, and one that has the other
    method is called too. Checkpoints store the iteration that their names say.
    """

    @property
    def by_epoch(self) -> bool:
        """False: the training counts iterations."""
        return False

    def run(
        self,
        data_loaders: Sequence[Any],
        workflow: Sequence[tuple[str, int]] = (("train", 1),),
        max_iters: int | None = None,
        **options: Any,
    ) -> None:
        """Train, phase after phase, from where the run stands to ``max_iters``.

        Args:
            data_loaders: one loader for each phase.
            workflow: pairs of a mode, "train" or "val", and iterations: ``[("train", 1000), ("val", 100)]``.
            max_iters: wins over the constructor's.
            options: handed to the model's steps.

        Raises:
            TypeError, ValueError: the loaders or phases are wrong, or there is no ``max_iters``.
            BackgroundHookError, ExceptionGroup: a background part of a hook failed.
        """
        if max_iters is not None:
            self._max_iters = max_iters
        super().run(data_loaders, workflow, **options)

    def train(self, data_loader: Any, **options: Any) -> None:
        """Train for one iteration. Called by `run`."""
        if self.mode != "train" or not self.model.training:
            switch_mode(self.model, "train")
        self.mode = "train"
        self.data_loader = data_loader
        self._epoch = data_loader.epoch
        self._iterate(next(data_loader), "train", options)
        self._inner_iter += 1
        self._iter += 1

    def val(self, data_loader: Any, **options: Any) -> None:
        """Validate for one iteration. Called by `run`."""
        if self.mode != "val" or self.model.training:
            switch_mode(self.model, "eval")
        self.mode = "val"
        self.data_loader = data_loader
        self._iterate(next(data_loader), "val", options)
        self._inner_iter += 1

    def save_checkpoint(  # type: ignore[override]  # MMCV's signature
        self,
        out_dir: str | os.PathLike[str] | None = None,
        filename_tmpl: str = "iter_{}.pth",
        meta: Mapping[str, Any] | None = None,
        save_optimizer: bool = True,  # noqa: FBT001, FBT002
        create_symlink: bool = True,  # noqa: FBT001, FBT002
    ) -> None:
        """Save a checkpoint now and wait until it is committed; the iteration that runs is counted as done.

        Args:
            out_dir: folder or URL; the work folder where it is left out.
            filename_tmpl: name of the file, with a place for the iteration.
            meta: further entries of ``meta``.
            save_optimizer: whether the optimizer's state is saved.
            create_symlink: whether ``latest.pth`` in a local folder links to it.
        """
        numbers = {"epoch": self._epoch, "iter": self._iter + 1}
        name = filename_tmpl.format(numbers["iter"])
        self._save(
            out_dir, name, numbers, save_optimizer=save_optimizer, meta=meta, create_symlink=create_symlink
        )

    def _begin(self) -> None:
        if self._max_iters is None:
            raise ConfigError(f"{type(self).__name__} needs max_iters, at construction or in run().")

    def _run_phases(self, options: Mapping[str, Any]) -> None:
        workflow = self._workflow
        assert workflow is not None  # noqa: S101 - run() has made it
        loaders = [IterLoader(feed) for feed in workflow.feeds]
        index = workflow.loader_index("train")
        self.mode = None
        self.data_loader = loaders[index or 0]
        self.call_hook("before_train_epoch")
        self._start_passes([feed for feed in workflow.feeds if feed.is_resumed])
        for mode in workflow.remaining(self._is_done, lambda: self._iter):
            if not workflow.repeats:
                self._inner_iter = 0
            getattr(self, mode)(loaders[workflow.index], **options)
        self.call_hook("after_train_epoch")

    def _is_done(self) -> bool:
        return self._iter >= (self._max_iters or 0) or self._is_stopping(settled=self.mode != "train")

    def _resume_counters(self, epoch: int, iteration: int) -> None:
        self._inner_iter = iteration
        self._counted = (epoch, iteration)

    def _take_up_position(self) -> None:
        counted, self._counted = self._counted, None
        super()._take_up_position()
        index = None if self._workflow is None else self._workflow.loader_index("train")
        if counted is None or index is None or self._workflow is None:
            return
        feed = self._workflow.feeds[index]
        length = length_of(feed.loader)
        if length:
            feed.skip_to(counted[1] // length, counted[1] % length)

    _counted: tuple[int, int] | None = None
