"""What MMCV's two runners share: their parts, what hooks read of them, and the order of a run.

The executor, the checkpoints, the message hub and the feed of batches are those of `Runner`; here are MMCV's names
for them. What one turn of a phase is, an epoch or an iteration, is decided by the two runners.
"""

from __future__ import annotations

import inspect
import logging
import os
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from asynchooks import distributed
from asynchooks.errors import ConfigError, UnknownOptionError, did_you_mean
from asynchooks.execution import HookExecutor
from asynchooks.execution._convention import MMCV_GENERIC
from asynchooks.optim import momentum_in, unwrapped
from asynchooks.runner._data import BatchFeed
from asynchooks.runner._log_processor import LogProcessor
from asynchooks.runner._random import restore_rng, rng_state
from asynchooks.runner._steps import device_of, switch_mode, to_device
from asynchooks.runner._visualizer import visualizer_of
from asynchooks.runner.mmcv._hooks import HookRegistration
from asynchooks.runner.mmcv._log_buffer import LogBuffer
from asynchooks.runner.mmcv._optimizers import checked_optimizer, wrapped
from asynchooks.runner.mmcv._resume import SavedRun
from asynchooks.runner.mmcv._steps import train_outputs, val_outputs
from asynchooks.runner.mmcv._workflow import Workflow, checked_workflow

if TYPE_CHECKING:
    from asynchooks.instrument import Instrument

__all__ = ["BaseRunner"]

StepContext = Callable[[], AbstractContextManager[Any]]

_EXTRA_POINTS = ("flush_log", *dict.fromkeys(MMCV_GENERIC.values()))


class BaseRunner(SavedRun, HookRegistration):
    """Trains a model in MMCV's manner: the optimizer's steps, schedules, checkpoints and logs are hooks.

    Args:
        model: a module with ``train_step(data, optimizer)`` and ``val_step(data, optimizer)`` that return
            ``dict(loss=..., log_vars=..., num_samples=...)``, or a plain one whose ``forward(batch)`` returns a loss.
        batch_processor: not supported; MMCV itself has deprecated it.
        optimizer: a torch optimizer, several in a dict by name, or a dict such as ``dict(type="SGD", lr=0.1)``.
        work_dir: folder (or URL) for logs and checkpoints, or None.
        logger: the run's logger; one of its own where it is left out.
        meta: notes on the run, which its checkpoints keep under ``meta``.
        max_iters: iterations of the whole run.
        max_epochs: epochs of the whole run; either of the two.
        log_processor: makes the log lines of `asynchooks.hooks.LoggerHook`.
        visualizer: for hooks that show images; a Visualizer or its dict. None is no visualizer.
        mode, ordering, max_in_flight, staging_budget, grace_period, instrument, points: the executor's, see
            `HookExecutor`.
        storage_options: fsspec's options for checkpoints that are loaded or resumed.

    Attributes:
        mode: "train" or "val", whatever runs or ran last.
        data_loader: the loader of the phase that runs.
        data_batch: the batch of the iteration that runs.
        outputs: what the step returned.
        inner_iter: the iteration inside of its epoch, or inside of its phase.
        log_buffer: what models and hooks report of each iteration.
        stop_training: set by a hook to end the training at the next turn; on any rank, to end it on all, where
            iterations are counted two later.
        step_context: makes the context in which a training step runs, such as an autocast.

    Raises:
        TypeError: model, optimizer, logger, meta or work_dir is none.
        ValueError: both limits are given, or another argument is wrong.
    """

    def __init__(
        self,
        model: nn.Module,
        batch_processor: Any = None,
        optimizer: Any = None,
        work_dir: str | os.PathLike[str] | None = None,
        logger: logging.Logger | None = None,
        meta: Mapping[str, Any] | None = None,
        max_iters: int | None = None,
        max_epochs: int | None = None,
        *,
        log_processor: LogProcessor | None = None,
        visualizer: Any = None,
        mode: Literal["async", "sync"] = "async",
        ordering: Literal["priority", "strict"] = "priority",
        max_in_flight: int = 32,
        staging_budget: int = 4 * 2**30,
        grace_period: float = 60.0,
        instrument: Instrument | None = None,
        points: Sequence[str] = (),
        storage_options: Mapping[str, Any] | None = None,
        **unknown: Any,
    ) -> None:
        _check_arguments(type(self), model, batch_processor, logger, meta, unknown)
        executor = HookExecutor(
            mode=mode,
            ordering=ordering,
            max_in_flight=max_in_flight,
            staging_budget=staging_budget,
            grace_period=grace_period,
            instrument=instrument,
            points=(*_EXTRA_POINTS, *points),
        )
        super().__init__(work_dir, executor=executor, meta=meta, storage_options=storage_options)
        self.model = model
        self.logger = self.logger if logger is None else logger
        self.log_buffer = LogBuffer()
        self.log_processor = log_processor or LogProcessor()
        self.visualizer = None if visualizer is None else visualizer_of(self, visualizer)
        self._optimizer = checked_optimizer(optimizer, model)
        self.optim_wrapper = wrapped(self._optimizer)
        if max_epochs is not None and max_iters is not None:
            raise ConfigError("Give max_epochs or max_iters, not both.")
        self._max_epochs = _checked_limit("max_epochs", max_epochs)
        self._max_iters = _checked_limit("max_iters", max_iters)
        self.mode: str | None = None
        self.data_loader: Any = None
        self.outputs: Any = None
        self.step_context: StepContext = nullcontext
        self.stop_training = False
        self._device = device_of(model)

    # ---- what hooks read ----

    @property
    def optimizer(self) -> Any:
        """The optimizer, several by name, or None."""
        return self._optimizer

    @optimizer.setter
    def optimizer(self, optimizer: Any) -> None:
        self._optimizer = checked_optimizer(optimizer, self.model)
        self.optim_wrapper = wrapped(self._optimizer)

    @property
    def model_name(self) -> str:
        """Class name of the model."""
        return type(unwrapped(self.model)).__name__

    @property
    def rank(self) -> int:
        """Rank of this process; 0 where it is alone."""
        return distributed.rank()

    @property
    def world_size(self) -> int:
        """How many processes train together."""
        return distributed.world_size()

    @property
    def epoch(self) -> int:
        """Epochs completed."""
        return self._epoch

    @property
    def iter(self) -> int:
        """Training iterations completed."""
        return self._iter

    @property
    def inner_iter(self) -> int:
        """The iteration inside of its epoch, or inside of its phase in an iteration-based run."""
        return self._inner_iter

    @property
    def max_epochs(self) -> int | None:
        """Epochs of the whole run, or None."""
        return self._max_epochs

    @property
    def max_iters(self) -> int | None:
        """Iterations of the whole run; None where that is not known (yet)."""
        return self._max_iters

    @property
    def train_dataloader(self) -> Any:
        """The loader of the first phase that trains; None before the run."""
        return self._loader("train")

    @property
    def val_dataloader(self) -> Any:
        """The loader of the first phase that validates; None where there is none."""
        return self._loader("val")

    @property
    def train_loop(self) -> Any:
        """The runner itself, which is its own loop."""
        return self

    @property
    def dataloader(self) -> Any:
        """The loader of the training, as of a loop."""
        return self.train_dataloader

    def current_lr(self) -> list[float] | dict[str, list[float]]:
        """Return the learning rate of each parameter group; with several optimizers, by their names.

        Raises:
            RuntimeError: there is no optimizer.
        """
        rates: list[float] | dict[str, list[float]]
        rates = self._of_groups("learning rate", lambda group: float(group["lr"]))
        return rates

    def current_momentum(self) -> list[float] | dict[str, list[float]]:
        """Return the momentum (or first beta, or 0) of each group; with several optimizers, by their names.

        Raises:
            RuntimeError: there is no optimizer.
        """
        momentums: list[float] | dict[str, list[float]] = self._of_groups("momentum", momentum_in)
        return momentums

    # ---- what runs ----

    def run(
        self,
        data_loaders: Sequence[Any],
        workflow: Sequence[tuple[str, int]] = (("train", 1),),
        **options: Any,
    ) -> None:
        """Train, phase after phase, from where the run stands to its end.

        Args:
            data_loaders: one loader for each phase.
            workflow: the phases, pairs of a mode ("train", "val", or another method's name) and how often it runs.
            options: handed to the model's ``train_step``.

        Raises:
            TypeError, ValueError: the loaders or phases are wrong.
            BackgroundHookError, ExceptionGroup: a background part of a hook failed.
        """
        phases = checked_workflow(workflow, data_loaders, self._is_mode)
        self._workflow = Workflow(phases, data_loaders)
        self._is_step_done = self._is_epoch_done = False  # an earlier run may have ended inside a firing
        vars(self).pop("data_batch", None)
        self.stop_training = False
        self._begin()
        self._take_up_position()
        with self._session():
            if self.together is not None:
                self.together.begin()
            for point in ("before_run", "before_train"):
                self.call_hook(point)
                self._take_up_position()  # a hook may have resumed the run, as MMCV's EMAHook does
                if self._pending_rng is not None:
                    restore_rng(self._pending_rng)
            self._device = device_of(self.model)
            self._run_phases(options)
            self.call_hook("after_train")
            self._executor.drain()
            self.call_hook("after_run")

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Fire a hook point on all hooks. Training thread, inside of a run.

        The points of an iteration get the batch and the outputs of the iteration that runs, if no others are given.
        """
        if not kwargs and fn_name in _ITERATION_POINTS:
            kwargs = {"batch_idx": self._inner_iter, "data_batch": getattr(self, "data_batch", None)}
            if fn_name.startswith("after"):
                kwargs["outputs"] = self.outputs
        self._executor.fire(fn_name, self, **kwargs)

    def flush_log(self) -> None:
        """Have loggers that listen to ``flush_log`` write what is due, and forget it. Inside of an iteration."""
        self.call_hook("flush_log")
        self.log_buffer.clear()

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Have the model in evaluation mode; the training goes on afterwards as if nothing had been."""
        outside = rng_state()
        modes = {module: module.training for module in self.model.modules()}
        switch_mode(self.model, "eval")
        try:
            yield
        finally:
            restore_rng(outside)
            if modes[self.model]:
                switch_mode(self.model, "train")
            for module, is_training in modes.items():
                if module.training is not is_training:
                    module.training = is_training

    # ---- private ----

    @abstractmethod
    def _begin(self) -> None:
        """Check what the run needs to know of its end."""

    @abstractmethod
    def _run_phases(self, options: Mapping[str, Any]) -> None:
        """Run phase after phase to the end."""

    def _is_stopping(self, *, settled: bool) -> bool:
        """Whether the training ends here; the same on every rank. ``settled``: waits until all have said."""
        if self.together is not None:
            self.stop_training = self.together.stops(self.stop_training, settled=settled)
        return self.stop_training

    def _is_mode(self, mode: str) -> bool:
        return callable(getattr(self, mode, None))

    def _iterate(self, batch: Any, mode: Literal["train", "val"], options: Mapping[str, Any]) -> None:
        """Run one iteration on a batch, with the points around it."""
        batch_idx = self._inner_iter
        self.data_batch = batch = to_device(batch, self._device)
        self._executor.fire(f"before_{mode}_iter", self, batch_idx=batch_idx, data_batch=batch)
        self.run_iter(self.data_batch, train_mode=mode == "train", **options)
        self._is_step_done = mode == "train"
        self._executor.fire(
            f"after_{mode}_iter", self, batch_idx=batch_idx, data_batch=self.data_batch, outputs=self.outputs
        )
        self._is_step_done = False
        del self.data_batch

    def run_iter(self, data_batch: Any, train_mode: bool, **kwargs: Any) -> None:  # noqa: FBT001 - MMCV's signature
        """Run one step on a batch and keep its outputs.

        Raises:
            TypeError: the model's step returned no dict.
        """
        if train_mode:
            with self.step_context():
                outputs = train_outputs(self.model, data_batch, self._optimizer, kwargs)
        else:
            outputs = val_outputs(self.model, data_batch, self._optimizer, kwargs)
        if "log_vars" in outputs:
            self.log_buffer.update(outputs["log_vars"], outputs.get("num_samples", 1))
        self.outputs = outputs

    def _start_passes(self, feeds: Sequence[BatchFeed]) -> None:
        """Begin passes, or go on in those that a checkpoint was taken in."""
        is_resumed = any(feed.is_resumed for feed in feeds)
        for feed in feeds:
            feed.start_pass()
        if is_resumed and self._pending_rng is not None:
            restore_rng(self._pending_rng)  # skipping has drawn from the generators
        self._pending_rng = None

    def _feed_of(self, loader: Any) -> BatchFeed:
        """Return what draws a loader's batches."""
        return BatchFeed(loader) if self._workflow is None else self._workflow.feed_of(loader)

    def _loader(self, mode: str) -> Any:
        index = None if self._workflow is None else self._workflow.loader_index(mode)
        return None if self._workflow is None or index is None else self._workflow.feeds[index].loader

    def _of_groups(self, what: str, read: Callable[[Mapping[str, Any]], float]) -> Any:
        if self._optimizer is None:
            raise RuntimeError(f"There is no optimizer, so there is no {what}.")
        if isinstance(self._optimizer, Mapping):
            return {name: [read(g) for g in each.param_groups] for name, each in self._optimizer.items()}
        return [read(group) for group in self._optimizer.param_groups]


_ITERATION_POINTS = frozenset(
    f"{when}_{mode}_iter" for when in ("before", "after") for mode in ("train", "val")
)


def _check_arguments(
    runner: type, model: Any, batch_processor: Any, logger: Any, meta: Any, unknown: Mapping[str, Any]
) -> None:
    for name in unknown:
        known = list(inspect.signature(BaseRunner).parameters)[:-1]
        raise UnknownOptionError(
            f"{runner.__name__} takes no argument {name!r}.{did_you_mean(name, known)} It takes: {', '.join(known)}."
        )
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a torch.nn.Module, not {model!r}.")
    if batch_processor is not None:
        raise ConfigError(
            "batch_processor is not supported: give the model train_step(data, optimizer) and val_step(data, "
            "optimizer), which return dict(loss=..., log_vars=..., num_samples=...)."
        )
    if logger is not None and not isinstance(logger, logging.Logger):
        raise TypeError(f"logger is a logging.Logger, not {logger!r}.")
    if meta is not None and not isinstance(meta, Mapping):
        raise TypeError(f"meta is a dict or None, not {meta!r}.")


def _checked_limit(name: str, limit: Any) -> int | None:
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 0):
        raise ConfigError(f"{name} is an int of at least 0, not {limit!r}.")
    return limit
