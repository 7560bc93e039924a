"""The state of a training whose loop is somebody else's: what hooks need beside the executor."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from asynchooks import checkpoint as checkpoints
from asynchooks.data import length_of
from asynchooks.errors import UnknownOptionError, did_you_mean
from asynchooks.execution import HookExecutor, current_executor
from asynchooks.optim import OptimWrapper
from asynchooks.runner._context import RunContext
from asynchooks.runner._log_processor import LogProcessor
from asynchooks.runner._random import restore_rng
from asynchooks.runner._taking_up import check_content
from asynchooks.runner._visualizer import visualizer_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from torch import nn

__all__ = ["TrainState"]


class TrainState(RunContext):
    """The context of `HookExecutor.fire` in a loop of one's own.

    Counts its iterations and epochs itself: after every firing of ``after_train_iter`` and
    ``after_train_epoch``.

    Args:
        model: the model that is trained.
        optimizer: its torch optimizer.
        optim_wrapper: an optimizer wrapper, in place of ``optimizer``.
        param_schedulers: schedulers, torch's own or `asynchooks.optim.ParamScheduler`; for several optimizers, a
            dict of lists.
        train_dataloader: loader, for hooks that want its length.
        val_dataloader: the same for validation.
        test_dataloader: the same for test.
        max_epochs: epochs of the whole training, where known.
        max_iters: iterations of the whole training, where known.
        work_dir: folder for logs and checkpoints.
        experiment_name: name of the training.
        seed: seed of the training, to note it in checkpoints.
        log_processor: makes the log lines.
        visualizer: a `Visualizer` or its dict, for hooks that show something; who makes it closes it.

    Example:
        >>> state = TrainState(model=model, optimizer=optimizer)
        >>> with HookExecutor(hooks) as executor:
        ...     for step, batch in enumerate(loader):
        ...         executor.fire("before_train_iter", state, batch_idx=step, data_batch=batch)
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        optim_wrapper: Any = None,
        param_schedulers: Sequence[Any] | Mapping[str, Sequence[Any]] = (),
        train_dataloader: Any = None,
        val_dataloader: Any = None,
        test_dataloader: Any = None,
        max_epochs: int | None = None,
        max_iters: int | None = None,
        work_dir: str | os.PathLike[str] = "work_dir",
        experiment_name: str | None = None,
        seed: int | None = None,
        log_processor: LogProcessor | None = None,
        visualizer: Any = None,
        **unknown: Any,
    ) -> None:
        for name in unknown:
            known = list(TrainState.__init__.__annotations__)
            raise UnknownOptionError(f"TrainState takes no argument {name!r}.{did_you_mean(name, known)}")
        super().__init__(work_dir, experiment_name)
        self.model = model
        self.optim_wrapper = optim_wrapper if optimizer is None else OptimWrapper(optimizer)
        several = hasattr(param_schedulers, "items")
        self.param_schedulers = dict(param_schedulers) if several else list(param_schedulers)
        self.train_dataloader = train_dataloader
        self.val_dataloader = val_dataloader
        self.test_dataloader = test_dataloader
        self.seed = seed
        self.log_processor = log_processor or LogProcessor()
        if visualizer is not None:
            self.visualizer = visualizer_of(self, visualizer)
        self._max_epochs = max_epochs
        self._max_iters = max_iters
        self._epoch = 0
        self._iter = 0

    @property
    def epoch(self) -> int:
        """Epochs completed."""
        return self._epoch

    @property
    def iter(self) -> int:
        """Iterations completed."""
        return self._iter

    @property
    def max_epochs(self) -> int | None:
        """Epochs of the whole training, or None."""
        return self._max_epochs

    @property
    def max_iters(self) -> int | None:
        """Iterations of the whole training, or None."""
        length = length_of(self.train_dataloader)
        if self._max_iters is None and self._max_epochs is not None and length is not None:
            return self._max_epochs * length
        return self._max_iters

    @property
    def by_epoch(self) -> bool:
        """Whether the training counts epochs: whether ``max_epochs`` was given."""
        return self._max_epochs is not None

    @property
    def executor(self) -> HookExecutor | None:
        """The executor that was entered last on this thread."""
        return current_executor()

    def hook_point_fired(self, point: str) -> None:
        """Count on. Called by the executor after a firing."""
        if point == "after_train_iter":
            self._iter += 1
        elif point == "after_train_epoch":
            self._epoch += 1

    def resume(
        self, url: str | os.PathLike[str], *, storage_options: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Continue from a checkpoint: weights, optimizer, schedulers, counters, random numbers.

        Inside of an executor it fires ``after_load_checkpoint`` first, so that hooks take up what is theirs.
        Where the batches go on is the loop's own matter; ``iter`` says how many were done.

        Args:
            url: one checkpoint.
            storage_options: fsspec's options for the store.

        Raises:
            ForeignCheckpointError: it does not fit.
        """
        address = os.fspath(url)
        content = check_content(
            checkpoints.restore(address, map_location="cpu", storage_options=dict(storage_options or {})),
            address,
        )
        if self.executor is not None:
            self.is_resuming = True
            try:
                self.executor.fire("after_load_checkpoint", self, checkpoint=content)
            finally:
                self.is_resuming = False
        self.take_up(content, address)
        return content

    def _position(self) -> None:
        return None  # the counters of `meta` say it; where the batches go on is the loop's own matter

    def _load_position(self, checkpoint: Mapping[str, Any]) -> None:
        meta = checkpoint.get("meta", {})
        self._epoch, self._iter = meta.get("epoch", 0), meta.get("iter", 0)
        if "resume" in checkpoint:
            restore_rng(checkpoint["resume"]["rng"])
