"""What hooks see of a run, whoever owns the loop: counters, numbers, the checkpoint's content.

Decides when hooks may change what is saved, and what is copied when. Knows no file: it captures, and others save.
"""

from __future__ import annotations

import logging
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import PurePath
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from torch import nn

from asynchooks import checkpoint as checkpoints
from asynchooks import distributed
from asynchooks.distributed import broadcast_object, rank
from asynchooks.execution import HookExecutor, RunnerView, current_executor
from asynchooks.optim import is_sharded
from asynchooks.runner._content import OBJECTS, OF_RANKS, gathered_whole, live_content, with_names
from asynchooks.runner._hook_states import hook_states
from asynchooks.runner._message_hub import MessageHub
from asynchooks.runner._places import Kind, places_in
from asynchooks.runner._random import rng_state
from asynchooks.runner._taking_up import check_content, take_up

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
        last_committed: address of the newest checkpoint of a step that this process has seen committed, or None.
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
    last_committed: str | None = None
    _checkpoint_wanted_at: int | None = None

    def __init__(self, work_dir: str | os.PathLike[str], experiment_name: str | None) -> None:
        self.work_dir = os.fspath(work_dir)
        self._plannings: dict[tuple[bool, ...], checkpoints.Planning] = {}
        self.timestamp = broadcast_object(time.strftime("%Y%m%d_%H%M%S"))
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

    def request_checkpoint(self) -> None:
        """Have checkpoint hooks save in this firing of ``after_train_iter`` in any case; on every rank.

        Where there is no room for it they wait, also those that would skip a save (``when_busy="skip"``).
        """
        self._checkpoint_wanted_at = self.iter

    @property
    def wants_checkpoint(self) -> bool:
        """Whether a checkpoint of the present iteration was requested."""
        return self._checkpoint_wanted_at == self.iter

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

    def content(
        self,
        *,
        form: Literal["single", "sharded"] = "single",
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        meta: Mapping[str, Any] | None = None,
    ) -> dict[str, Any] | None:
        """Return what a checkpoint of this instant holds: live tensors, nothing copied yet. Training thread.

        Fires ``before_save_checkpoint`` with the content, on every rank, so that hooks may change it; outside of an
        open executor there is nobody to fire it for. A collective where there are ranks: every rank calls it.

        Args:
            form: "single" is whole, for one file: parts are gathered on the first rank's CPU. "sharded" is this
                rank's parts, with the optimizer's state by the names of the parameters.
            save_optimizer: whether the optimizer's state is in it.
            save_param_scheduler: whether the schedulers' states are.
            meta: further entries of ``meta``; they win over the run's own.

        Returns:
            The content; None on every rank but the first where ``form`` is "single".
        """
        content = self._content(
            save_optimizer=save_optimizer, save_param_scheduler=save_param_scheduler, meta=meta or {}
        )
        executor = self.executor
        if executor is not None and current_executor() is executor:
            executor.fire("before_save_checkpoint", self, checkpoint=content)
            states = hook_states(executor.hooks)  # again: they may have gone on in it
            if states:
                content["resume"]["hooks"] = states
        return gathered_whole(content) if form == "single" else with_names(content, self)

    def places(self, entries: Mapping[str, Kind | None], *, saved_by: int) -> dict[str, Any]:
        """Return what of a sharded checkpoint this rank reads: flat names, and the tensors to fill in place.

        Training thread. The weights and what the optimizer has of its state are the live tensors; None stands for
        what is no tensor. What was filled, nested again, is the content that `take_up` takes.

        Args:
            entries: shape and dtype of each tensor by its flat name; None for other objects.
            saved_by: how many ranks saved it: ``resume.world_size``.
        """
        return places_in(self, entries, saved_by=saved_by)

    def take_up(self, content: Mapping[str, Any], url: str) -> None:
        """Continue where a content of either form was taken, on this number of ranks or another.

        Training thread; every rank calls it, with whole tensors or with its parts (`DTensor`).

        Args:
            content: what was loaded, after ``after_load_checkpoint`` has been fired with it.
            url: where from, for messages.

        Raises:
            ForeignCheckpointError: it does not fit this run, or holds too little to continue from.
        """
        self._take_up(check_content(content, url), url)

    @overload
    def capture(
        self,
        *,
        form: Literal["single"] = "single",
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        meta: Mapping[str, Any] | None = None,
        overlap: bool = True,
    ) -> checkpoints.Snapshot | None: ...

    @overload
    def capture(
        self,
        *,
        form: Literal["sharded"],
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        meta: Mapping[str, Any] | None = None,
        overlap: bool = True,
    ) -> checkpoints.ShardSnapshot: ...

    def capture(
        self,
        *,
        form: Literal["single", "sharded"] = "single",
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        meta: Mapping[str, Any] | None = None,
        overlap: bool = True,
    ) -> checkpoints.Snapshot | checkpoints.ShardSnapshot | None:
        """Take a consistent copy of the training state. Training thread; waits for room where there is none.

        In a capture of an executor in mode "async", what belongs to the optimizer (its state, and the parameters
        that it steps) is copied while training goes on, until the next step or the next hook that may change it.

        A collective where there are ranks: every rank calls it.

        Args:
            form: "single" for one file: the first rank gets the copy, the others None. "sharded" for a folder: every
                rank gets a copy of what it will write.
            save_optimizer: whether the optimizer's state is in it.
            save_param_scheduler: whether the schedulers' states are.
            meta: further entries of ``meta``; they win over the run's own.
            overlap: False copies everything before this returns.
        """
        content = self.content(
            form=form, save_optimizer=save_optimizer, save_param_scheduler=save_param_scheduler, meta=meta
        )
        if content is None:
            return None
        state = self._planned(content, save_optimizer, save_param_scheduler) if form == "sharded" else None
        later: tuple[torch.optim.Optimizer, ...] = ()
        watch: checkpoints.Watch = checkpoints.NOBODY
        executor = self.executor
        if executor is not None and current_executor() is executor and executor.is_capturing:
            is_live = state is not None or not is_sharded(self.model)  # gathered parts are copies already
            later = self._changed_by_steps_alone() if overlap and is_live and executor.mode == "async" else ()
            executor.reserve(
                checkpoints.state_nbytes(content, overlap=later)
                if state is None
                else state.nbytes(overlap=later),
                may_skip=not self.wants_checkpoint,
            )
            if later:
                watch = executor.before_next_change(checkpoints.before_step)
        if state is not None:
            return checkpoints.capture_shards(state, overlap=later, watch=watch)
        return checkpoints.capture(content, overlap=later, watch=watch)

    def _planned(self, content: Mapping[str, Any], *kind: bool) -> checkpoints.PlannedState:
        """Find out what this rank writes of a content of one kind: with or without optimizer and schedules."""
        planning = self._plannings.get(kind)
        if planning is None:
            planning = self._plannings[kind] = checkpoints.Planning(
                rank(), distributed, objects=OBJECTS, of_ranks=OF_RANKS
            )
        return checkpoints.plan_shards(content, planning)

    def prepare_capture(
        self, *, form: Literal["single", "sharded"] = "single", save_optimizer: bool = True
    ) -> Callable[[], None] | None:
        """Return what makes memory for captures like this one warm, on any thread; None where nothing is needed.

        Called on the training thread, once the optimizer has its state; a collective where ``form`` is "sharded".
        What hooks put into the content counts not.
        """
        if form == "single" and is_sharded(self.model):  # what is saved in one file is gathered first
            return None
        content = self._content(save_optimizer=save_optimizer, save_param_scheduler=True, meta={})
        if form == "sharded":
            state = self._planned(with_names(content, self), save_optimizer, True)
            return checkpoints.prepare_capture(dict(state.parts))
        return checkpoints.prepare_capture(content)

    def _changed_by_steps_alone(self) -> tuple[torch.optim.Optimizer, ...]:
        """What a capture may copy later. Parameters without an optimizer may change in forward: an EMA's, say."""
        optimizer = self.optimizer
        candidates = optimizer.values() if isinstance(optimizer, Mapping) else (optimizer,)
        return tuple(each for each in candidates if isinstance(each, torch.optim.Optimizer))

    def _content(
        self, *, save_optimizer: bool, save_param_scheduler: bool, meta: Mapping[str, Any]
    ) -> dict[str, Any]:
        return live_content(
            self, save_optimizer=save_optimizer, save_param_scheduler=save_param_scheduler, meta=meta
        )

    def _take_up(self, checkpoint: Mapping[str, Any], url: str) -> None:
        take_up(self, checkpoint, url)
