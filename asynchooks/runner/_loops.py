"""The training loops: where the hook points of a training are fired, in MMEngine's order.

Decides when a counter goes on (after the firing), when a validation is due, and what a position in a run is.
Knows no hook. The last epoch or iteration always validates.
"""

from __future__ import annotations

import bisect
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from asynchooks.data import length_of
from asynchooks.errors import ConfigError
from asynchooks.registry import LOOPS
from asynchooks.runner._data import BatchFeed
from asynchooks.runner._random import restore_rng, rng_state
from asynchooks.runner._steps import device_of, switch_mode, to_device, train_step

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["EpochBasedTrainLoop", "IterBasedTrainLoop", "TrainLoop", "check_loop_values"]


class TrainLoop(ABC):
    """What both training loops share: counters, validation, position.

    Attributes:
        runner: the run.
        dataloader: loader of batches.
        stop_training: set by a hook to end the training at the next epoch (or iteration) boundary; on one rank, it
            ends all: at the same epoch, or (outside of a validation) up to two iterations later.
        validation_pending: whether a validation is due and has not given its metrics yet.
    """

    by_epoch: bool

    def __init__(
        self,
        runner: Any,
        dataloader: Any,
        val_begin: int,
        val_interval: int,
        dynamic_intervals: Sequence[tuple[int, int]] | None,
    ) -> None:
        self.runner = runner
        self.dataloader = dataloader
        check_loop_values(
            {"val_begin": val_begin, "val_interval": val_interval, "dynamic_intervals": dynamic_intervals}
        )
        self.val_begin = val_begin
        self.val_interval = val_interval
        self._milestones, self._intervals = _intervals(self.val_interval, dynamic_intervals)
        self.stop_training = False
        self.validation_pending = False
        self._leaving: BaseException | None = None
        self._feed = BatchFeed(dataloader)
        self._epoch = 0
        self._iter = 0
        self._done_in_pass = 0
        self._is_step_done = False  # while after_train_iter fires: done, and not counted yet
        self._is_epoch_done = False
        self._rng: Mapping[str, Any] | None = None  # where a resumed run's random numbers go on
        self._rng_outside: Mapping[str, Any] | None = None  # the training's own, while it validates

    @property
    def epoch(self) -> int:
        """Epochs completed."""
        return self._epoch

    @property
    def iter(self) -> int:
        """Iterations completed."""
        return self._iter

    @property
    @abstractmethod
    def max_epochs(self) -> int:
        """Epochs of the whole run."""

    @property
    @abstractmethod
    def max_iters(self) -> int | None:
        """Iterations of the whole run, or None where the loader has no length."""

    @abstractmethod
    def _train(self) -> None:
        """Train from the present position to the end."""

    @abstractmethod
    def _is_last(self, step: int) -> bool:
        """Whether the training ends with this epoch or iteration."""

    def run(self) -> None:
        """Train from the present position to the end, firing every point."""
        self._is_step_done = self._is_epoch_done = False  # an earlier run may have ended inside a firing
        self._leaving = None
        if self._together is not None:
            self._together.begin()
        self.runner.call_hook("before_train")
        self._device = device_of(self.runner.model)
        if self._rng is not None:
            restore_rng(self._rng)
        if self.validation_pending:  # the checkpoint was taken just before it
            self._validate()
        self._train()
        self.runner.call_hook("after_train")

    def leave(self, error: BaseException) -> None:
        """Have ``error`` end the training right after the present iteration. On every rank."""
        self._leaving = error

    def position(self) -> dict[str, Any]:
        """Return where a run that is resumed from now goes on: plain types and tensors."""
        return {
            "by_epoch": self.by_epoch,
            "epoch": self._epoch + self._is_epoch_done,
            "iter": self._iter + self._is_step_done,
            "validation_pending": self.validation_pending,
            "feed": self._feed.state_dict(self._done_in_pass),
        }

    def rng(self) -> Mapping[str, Any]:
        """Return the generators' states with which the training goes on."""
        return rng_state() if self._rng_outside is None else self._rng_outside

    def load_position(self, position: Mapping[str, Any], rng: Mapping[str, Any]) -> None:
        """Take up a `position`, with the generators' states at that instant."""
        if position["by_epoch"] is not self.by_epoch:
            saved, own = ("epochs", "iterations") if position["by_epoch"] else ("iterations", "epochs")
            raise ConfigError(
                f"The checkpoint is from a training that counts {saved}; this one counts {own}. Use the same "
                f"train_cfg to resume, or load_from=... to start anew with its weights."
            )
        self._is_step_done = self._is_epoch_done = False
        self._epoch, self._iter = position["epoch"], position["iter"]
        self.validation_pending = position["validation_pending"] and self.runner.has_validation
        self._feed.load_state_dict(position["feed"])
        self._rng = rng

    def load_counters(self, epoch: int, iteration: int) -> None:
        """Take up a position of which only the counters are known; random orders start anew."""
        self._epoch, self._iter = (epoch, iteration) if self.by_epoch else (0, iteration)
        length = length_of(self.dataloader)
        if self.by_epoch or not length:
            self._feed.skip_to(0, 0)
        else:
            self._feed.skip_to(iteration // length, iteration % length)

    def _start_pass(self) -> None:
        is_resumed = self._feed.is_resumed
        self._feed.start_pass()
        self._done_in_pass = self._feed.drawn
        if is_resumed and self._rng is not None:
            restore_rng(self._rng)  # skipping has drawn from the generators
        self._rng = None

    def _run_iter(self, batch_idx: int, batch: Any) -> None:
        runner = self.runner
        self._done_in_pass = self._feed.drawn - 1
        batch = to_device(batch, self._device)
        runner.executor.fire("before_train_iter", runner, batch_idx=batch_idx, data_batch=batch)
        outputs = train_step(runner.model, batch, runner.optim_wrapper)
        self._note_grad_norm()
        self._done_in_pass = self._feed.drawn
        self._is_step_done = True
        if not self.by_epoch:
            self.validation_pending = self._is_validation_due(self._iter + 1)
        runner.executor.fire(
            "after_train_iter", runner, batch_idx=batch_idx, data_batch=batch, outputs=outputs
        )
        self._is_step_done = False
        self._iter += 1
        if self._leaving is not None:
            raise self._leaving

    @property
    def _together(self) -> Any:
        return getattr(self.runner, "together", None)

    def _is_stopping(self, *, settled: bool) -> bool:
        """Whether the training ends here; the same on every rank. ``settled``: waits until all have said."""
        together = self._together
        if together is not None:
            self.stop_training = together.stops(self.stop_training, settled=settled)
        return self.stop_training

    def _note_grad_norm(self) -> None:
        take = getattr(self.runner.optim_wrapper, "take_grad_norm", None)
        norm = None if take is None else take()
        if norm is not None:
            self.runner.message_hub.update_scalar("train/grad_norm", norm)

    def _is_validation_due(self, step: int) -> bool:
        """Whether a validation follows the epoch or iteration of this number, counted from 1."""
        self.val_interval = self._intervals[bisect.bisect(self._milestones, step + 1) - 1]
        return (
            self.runner.has_validation
            and step >= self.val_begin
            and (step % self.val_interval == 0 or self._is_last(step))
        )

    def _validate(self) -> None:
        """Validate; what it draws at random does not change the training."""
        self._rng_outside = rng_state()
        try:
            self.runner.val_loop.run()
        finally:
            restore_rng(self._rng_outside)
            self._rng_outside = None
        self.validation_pending = False
        switch_mode(self.runner.model, "train")


@LOOPS.register_module()
class EpochBasedTrainLoop(TrainLoop):
    """Trains for ``max_epochs`` passes over the data.

    Args:
        runner: the run.
        dataloader: loader of batches.
        max_epochs: epochs of the whole run.
        val_begin: first epoch after which a validation may run.
        val_interval: epochs from one validation to the next.
        dynamic_intervals: ``[(from_epoch, val_interval), ...]``, later intervals.
    """

    by_epoch = True

    def __init__(
        self,
        runner: Any,
        dataloader: Any,
        max_epochs: int,
        val_begin: int = 1,
        val_interval: int = 1,
        dynamic_intervals: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        super().__init__(runner, dataloader, val_begin, val_interval, dynamic_intervals)
        check_loop_values({"max_epochs": max_epochs})
        self._max_epochs = max_epochs
        self._length = length_of(dataloader)
        self._extra = 0  # how many more iterations there are, since other ranks have done some

    @property
    def max_epochs(self) -> int:
        """Epochs of the whole run."""
        return self._max_epochs

    @property
    def max_iters(self) -> int | None:
        """Iterations of the whole run, or None where the loader has no length.

        Those that are done, and those that are left with the present number of ranks.
        """
        return None if self._length is None else self._max_epochs * self._length + self._extra

    def load_position(self, position: Mapping[str, Any], rng: Mapping[str, Any]) -> None:
        """Take up a `position`, with the generators' states at that instant."""
        super().load_position(position, rng)
        self._count_iterations()

    def load_counters(self, epoch: int, iteration: int) -> None:
        """Take up a position of which only the counters are known; the epoch, like random orders, starts anew."""
        super().load_counters(epoch, iteration)
        self._count_iterations()

    def _count_iterations(self) -> None:
        if self._length is not None:
            self._extra = self._feed.surplus(self._epoch, self._iter)

    def _is_last(self, step: int) -> bool:
        return step == self._max_epochs

    def _train(self) -> None:
        while self._epoch < self._max_epochs and not self._is_stopping(settled=True):
            self._run_epoch()
            if self.validation_pending:
                self._validate()

    def _run_epoch(self) -> None:
        self.runner.call_hook("before_train_epoch")
        switch_mode(self.runner.model, "train")
        self._start_pass()
        for batch in self._feed:
            self._run_iter(self._feed.drawn - 1, batch)
        self._feed.end_pass()
        self._is_epoch_done = True
        self.validation_pending = self._is_validation_due(self._epoch + 1)
        self.runner.call_hook("after_train_epoch")
        self._is_epoch_done = False
        self._epoch += 1


@LOOPS.register_module()
class IterBasedTrainLoop(TrainLoop):
    """Trains for ``max_iters`` iterations, passing over the data as often as needed.

    Args:
        runner: the run.
        dataloader: loader of batches.
        max_iters: iterations of the whole run.
        val_begin: first iteration after which a validation may run.
        val_interval: iterations from one validation to the next.
        dynamic_intervals: ``[(from_iteration, val_interval), ...]``, later intervals.
    """

    by_epoch = False

    def __init__(
        self,
        runner: Any,
        dataloader: Any,
        max_iters: int,
        val_begin: int = 1,
        val_interval: int = 1000,
        dynamic_intervals: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        super().__init__(runner, dataloader, val_begin, val_interval, dynamic_intervals)
        check_loop_values({"max_iters": max_iters})
        self._max_iters = max_iters

    @property
    def max_epochs(self) -> int:
        """One: the whole training is the epoch that hooks see."""
        return 1

    @property
    def max_iters(self) -> int:
        """Iterations of the whole run."""
        return self._max_iters

    def _is_last(self, step: int) -> bool:
        return step == self._max_iters

    def _train(self) -> None:
        self.runner.call_hook("before_train_epoch")
        switch_mode(self.runner.model, "train")
        self._start_pass()
        settled = True
        while self._iter < self._max_iters and not self._is_stopping(settled=settled):
            self._run_iter(self._iter, self._feed.next_of_any_pass())
            settled = self.validation_pending
            if self.validation_pending:
                self._validate()
        self.runner.call_hook("after_train_epoch")


def check_loop_values(options: Mapping[str, Any]) -> None:
    """Raise `ConfigError` for a value that no training loop can use."""
    for name, least in (("max_epochs", 1), ("max_iters", 1), ("val_interval", 1), ("val_begin", 0)):
        if name in options:
            _count(name, options[name], least=least)
    _intervals(1, options.get("dynamic_intervals"))


def _count(name: str, value: Any, *, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"train_cfg: {name} is an int of at least {least}, not {value!r}.")
    return value


def _intervals(first: int, later: Sequence[tuple[int, int]] | None) -> tuple[list[int], list[int]]:
    milestones, intervals = [0], [first]
    for item in later or ():
        try:
            start, every = item
        except (TypeError, ValueError):
            raise ConfigError(
                f"train_cfg: dynamic_intervals is a list of (step, val_interval), not {later!r}."
            ) from None
        milestones.append(_count("dynamic_intervals", start, least=0))
        intervals.append(_count("dynamic_intervals", every))
    if milestones != sorted(milestones):
        raise ConfigError(f"train_cfg: the steps of dynamic_intervals increase; they are {milestones[1:]}.")
    return milestones, intervals
