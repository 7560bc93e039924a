"""What hooks see of a run, whoever owns the loop: counters, numbers, the checkpoint's content.

Decides what stands in a checkpoint and how a run takes it up again. Knows no file: it captures, and others
save. The keys are MMEngine's; one more, ``resume``, holds what a bit-identical continuation needs.
"""

from __future__ import annotations

import logging
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import PurePath
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from asynchooks import checkpoint as checkpoints
from asynchooks._version import __version__
from asynchooks.errors import ForeignCheckpointError
from asynchooks.execution import HookExecutor, RunnerView, current_executor
from asynchooks.optim import unwrapped
from asynchooks.runner._agreement import told
from asynchooks.runner._hook_states import hook_states, load_hook_states
from asynchooks.runner._message_hub import MessageHub
from asynchooks.runner._random import rng_state

if TYPE_CHECKING:
    from asynchooks.runner._log_processor import LogProcessor

__all__ = ["RunContext"]

logger = logging.getLogger(__name__)


class RunContext(ABC):
    """A run as hooks see it: the base of `Runner` and `TrainState`.

    Attributes:
        model: the model.
        optim_wrapper: the optimizer wrapper, or None.
        param_schedulers: schedulers, each with ``state_dict``.
        work_dir: the run's folder or URL.
        experiment_name: name of the run.
        timestamp: when the run was created, as ``YYYYmmdd_HHMMSS``.
        seed: seed of the run, or None.
        message_hub: scalars and infos.
        log_processor: makes log lines of them.
        visualizer: shows scalars and images on backends, in background parts alone; or None.
        logger: the run's logger.
        metrics: the newest metrics.
        cfg: the configuration that the run was built from, or None.
        is_resuming: whether the checkpoint that ``after_load_checkpoint`` hears of is one to continue from.
    """

    model: nn.Module
    cfg: Any = None
    is_resuming: bool = False
    optim_wrapper: Any
    param_schedulers: Any
    seed: int | None
    log_processor: LogProcessor
    visualizer: Any = None

    def __init__(self, work_dir: str | os.PathLike[str], experiment_name: str | None) -> None:
        self.work_dir = os.fspath(work_dir)
        self.timestamp = told(time.strftime("%Y%m%d_%H%M%S"))
        folder = PurePath(self.work_dir).name or "run"
        self.experiment_name = experiment_name or f"{folder}_{self.timestamp}"
        self.message_hub = MessageHub(self.experiment_name)
        self.logger = logging.getLogger(f"asynchooks.run.{self.experiment_name}")
        self.metrics: Mapping[str, Any] = MappingProxyType({})

    @property
    @abstractmethod
    def epoch(self) -> int:
        """Epochs completed."""

    @property
    @abstractmethod
    def iter(self) -> int:
        """Iterations completed."""

    @property
    @abstractmethod
    def max_epochs(self) -> int | None:
        """Epochs of the whole run, or None."""

    @property
    @abstractmethod
    def max_iters(self) -> int | None:
        """Iterations of the whole run, or None."""

    @property
    @abstractmethod
    def executor(self) -> HookExecutor | None:
        """The executor that runs the hooks, or None outside of it."""

    @abstractmethod
    def _position(self) -> dict[str, Any] | None:
        """Return where a resumed run goes on: plain types and tensors."""

    def _rng(self) -> Mapping[str, Any]:
        """Return the generators' states with which a resumed run goes on."""
        return rng_state()

    @abstractmethod
    def _load_position(self, checkpoint: Mapping[str, Any]) -> None:
        """Go where a checkpoint was taken."""

    @property
    def log_dir(self) -> str | None:
        """Folder of this run's logs, inside the work folder; None where that is on a remote store."""
        return None if "://" in self.work_dir else str(PurePath(self.work_dir, self.timestamp))

    @property
    def optimizer(self) -> Any:
        """The torch optimizer inside the wrapper, several by name, or None."""
        return None if self.optim_wrapper is None else self.optim_wrapper.optimizer

    def hook_view(self) -> RunnerView:
        """Return a frozen copy of counters and numbers, for background code. Does not wait for the device."""
        return RunnerView(
            epoch=self.epoch,
            iter=self.iter,
            max_epochs=self.max_epochs,
            max_iters=self.max_iters,
            work_dir=self.work_dir,
            experiment_name=self.experiment_name,
            metrics=self.metrics,
            scalars=self.message_hub.latest(),
            logger=self.logger,
        )

    def capture(
        self,
        *,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        meta: Mapping[str, Any] | None = None,
        overlap: bool = True,
    ) -> checkpoints.Snapshot:
        """Take a consistent copy of the training state. Training thread; waits for room where there is none.

        In a capture of an executor in mode "async", what belongs to the optimizer (its state, and the parameters
        that it steps) is copied while training goes on, until the next step or the next hook that may change it.

        Fires ``before_save_checkpoint`` with the content, so that hooks may change it, before anything is
        copied; outside of an open executor there is nobody to fire it for.

        Args:
            save_optimizer: whether the optimizer's state is in it.
            save_param_scheduler: whether the schedulers' states are.
            meta: further entries of ``meta``; they win over the run's own.
            overlap: False copies everything before this returns.
        """
        content = self._content(
            save_optimizer=save_optimizer, save_param_scheduler=save_param_scheduler, meta=meta or {}
        )
        executor = self.executor
        is_open = executor is not None and current_executor() is executor
        if executor is not None and is_open:
            executor.fire("before_save_checkpoint", self, checkpoint=content)
            states = hook_states(executor.hooks)  # again: they may have gone on in it
            if states:
                content["resume"]["hooks"] = states
            if executor.is_capturing:
                later = self._changed_by_steps_alone() if overlap and executor.mode == "async" else ()
                executor.reserve(checkpoints.state_nbytes(content, overlap=later))
                if later:
                    watch = executor.before_next_change(checkpoints.before_step)
                    return checkpoints.capture(content, overlap=later, watch=watch)
        return checkpoints.capture(content)

    def prepare_capture(self, *, save_optimizer: bool = True) -> Callable[[], None] | None:
        """Return what makes memory for captures like this one warm, on any thread; None where nothing is needed.

        Called on the training thread, once the optimizer has its state. What hooks put into the content counts not.
        """
        content = self._content(save_optimizer=save_optimizer, save_param_scheduler=False, meta={})
        return checkpoints.prepare_capture(content)

    def _changed_by_steps_alone(self) -> tuple[torch.optim.Optimizer, ...]:
        """What a capture may copy later. Parameters without an optimizer may change in forward: an EMA's, say."""
        optimizer = self.optimizer
        candidates = optimizer.values() if isinstance(optimizer, Mapping) else (optimizer,)
        return tuple(each for each in candidates if isinstance(each, torch.optim.Optimizer))

    def _content(
        self, *, save_optimizer: bool, save_param_scheduler: bool, meta: Mapping[str, Any]
    ) -> dict[str, Any]:
        content: dict[str, Any] = {
            "meta": {
                "epoch": self.epoch,
                "iter": self.iter,
                "experiment_name": self.experiment_name,
                "seed": self.seed,
                "time": time.strftime("%Y%m%d_%H%M%S"),
                "asynchooks_version": __version__,
                **(
                    {}
                    if self.cfg is None
                    else {"cfg": getattr(self.cfg, "pretty_text", None) or str(self.cfg)}
                ),
                **meta,
            },
            "state_dict": unwrapped(self.model).state_dict(),
            "message_hub": self.message_hub.state_dict(),
        }
        dataset = content["message_hub"]["runtime_info"].get("dataset_meta")
        if dataset is not None:  # where MMDetection's inference looks for the names of the classes
            content["meta"].setdefault("dataset_meta", dataset)
        if save_optimizer and self.optim_wrapper is not None:
            content["optimizer"] = self.optim_wrapper.state_dict()
        if save_param_scheduler and self.param_schedulers:
            content["param_schedulers"] = _scheduler_states(self.param_schedulers)
        content["resume"] = {"position": self._position(), "rng": self._rng()}
        states = hook_states(self.executor.hooks if self.executor is not None else ())
        if states:
            content["resume"]["hooks"] = states
        if save_optimizer and getattr(self.optim_wrapper, "is_accumulating", False):
            content["resume"]["accumulated_grads"] = self.optim_wrapper.accumulated_grads()
        return content

    def _take_up(self, checkpoint: Mapping[str, Any], url: str) -> None:
        """Continue where a checkpoint was taken.

        Raises:
            ForeignCheckpointError: it does not fit this run, or holds too little to continue from.
        """
        load_weights(self.model, checkpoint["state_dict"], url, strict=True)
        if "message_hub" in checkpoint:
            self.message_hub.load_state_dict(checkpoint["message_hub"])
        if self.optim_wrapper is not None:
            _load_optimizer(self.optim_wrapper, checkpoint, url)
        _load_schedulers(self.param_schedulers or (), checkpoint, url)
        if self.executor is not None:
            load_hook_states(self.executor.hooks, checkpoint.get("resume", {}).get("hooks", {}))
        self._load_position(checkpoint)


def check_content(checkpoint: Any, url: str) -> dict[str, Any]:
    """Return a loaded checkpoint if it looks like one of a training run.

    Raises:
        ForeignCheckpointError: it does not.
    """
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), Mapping):
        came = sorted(map(str, checkpoint))[:8] if isinstance(checkpoint, dict) else type(checkpoint).__name__
        raise ForeignCheckpointError(
            f"{url} is no checkpoint of a training run: expected a dict with 'state_dict' (and 'meta' to resume), "
            f"it holds {came}."
        )
    return checkpoint


def load_weights(model: nn.Module, state_dict: Mapping[str, Any], url: str, *, strict: bool) -> None:
    """Load weights into a model.

    Raises:
        ForeignCheckpointError: they do not fit: other shapes, other names (``strict``), or nothing in common.
    """
    target = unwrapped(model)
    checkpoints.before_step()
    try:
        missing, unexpected = target.load_state_dict(state_dict, strict=strict)
    except RuntimeError as error:
        raise ForeignCheckpointError(f"{url} does not fit {type(target).__name__}: {error}") from error
    if missing and len(missing) == len(target.state_dict()):
        raise ForeignCheckpointError(
            f"{url} has no weight of {type(target).__name__}: it holds {list(state_dict)[:5]}, "
            f"the model {missing[:5]}."
        )
    if missing or unexpected:
        logger.warning("%s: missing in the checkpoint: %s; not in the model: %s", url, missing, unexpected)


def _load_optimizer(optim_wrapper: Any, checkpoint: Mapping[str, Any], url: str) -> None:
    if "optimizer" not in checkpoint:
        raise ForeignCheckpointError(
            f"{url} holds no optimizer state, so a run cannot be resumed from it; use load_from=... to start anew "
            f"with its weights."
        )
    try:
        optim_wrapper.load_state_dict(checkpoint["optimizer"])
    except (ValueError, KeyError) as error:
        raise ForeignCheckpointError(f"The optimizer state in {url} does not fit: {error}") from error
    grads = checkpoint.get("resume", {}).get("accumulated_grads")
    if grads is not None:
        optim_wrapper.load_accumulated_grads(grads)


def _scheduler_states(schedulers: Any) -> Any:
    """Return the schedulers' states: a list, or one by name for several optimizers."""
    if isinstance(schedulers, Mapping):
        return {name: _scheduler_states(each) for name, each in schedulers.items()}
    return [scheduler.state_dict() for scheduler in schedulers]


def _load_schedulers(schedulers: Any, checkpoint: Mapping[str, Any], url: str) -> None:
    states = checkpoint.get("param_schedulers", [])
    named = states if isinstance(states, Mapping) else {}
    if isinstance(schedulers, Mapping):
        for name, each in schedulers.items():
            _load_schedulers(each, {"param_schedulers": named.get(name, [])}, url)
        return
    states = [] if named else states
    if len(states) != len(schedulers):
        raise ForeignCheckpointError(
            f"{url} holds {len(states)} parameter schedulers, this run has {len(schedulers)}; resume with the same "
            f"param_scheduler, or use load_from=... to start anew with its weights."
        )
    for scheduler, state in zip(schedulers, states, strict=True):
        scheduler.load_state_dict(state)
