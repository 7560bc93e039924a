"""Steps the parameter schedulers (learning rate, momentum) at the end of what they count.

Decides only when; what a step does is the scheduler's. It runs before the checkpoint hook, so what is saved is
the state after the step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from asynchooks.execution import Effects, Hook
from asynchooks.registry import HOOKS

__all__ = ["ParamSchedulerHook"]


@HOOKS.register_module()
class ParamSchedulerHook(Hook):
    """Steps each scheduler after its iteration or epoch, and those that need metrics after validation.

    Which one a scheduler needs is said by its attributes ``by_epoch`` (True where absent, as with PyTorch's
    own) and ``need_val_args``. One that needs metrics and has a range of epochs has ``count_epoch()`` too.
    """

    priority = "LOW"
    effects = Effects()
    changes_state = False  # parameter groups alone, which no capture copies later

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Step the schedulers that count iterations."""
        del batch_idx, data_batch, outputs
        for scheduler in _flat(runner.param_schedulers):
            if not getattr(scheduler, "by_epoch", True) and not _needs_metrics(scheduler):
                scheduler.step()

    def after_train_epoch(self, runner: Any) -> None:
        """Step the schedulers that count epochs; those that need metrics only count it."""
        for scheduler in _flat(runner.param_schedulers):
            if _needs_metrics(scheduler):
                count = getattr(scheduler, "count_epoch", None)
                if count is not None:
                    count()
            elif getattr(scheduler, "by_epoch", True):
                scheduler.step()

    def after_val_epoch(self, runner: Any, metrics: Mapping[str, float] | None = None) -> None:
        """Step the schedulers that need the metrics of a validation."""
        if metrics is None:
            return
        for scheduler in _flat(runner.param_schedulers):
            if _needs_metrics(scheduler):
                scheduler.step(metrics)


def _needs_metrics(scheduler: Any) -> bool:
    return bool(getattr(scheduler, "need_val_args", False))


def _flat(schedulers: Any) -> Sequence[Any]:
    if type(schedulers) is list:  # asked first: it is asked in each iteration
        return schedulers
    if schedulers is None:
        return ()
    if isinstance(schedulers, Mapping):
        return [scheduler for group in schedulers.values() for scheduler in group]
    if isinstance(schedulers, list | tuple):
        return schedulers
    raise TypeError(
        f"runner.param_schedulers is a {type(schedulers).__name__}; give a list of schedulers, or a dict of lists "
        f"(one list per optimizer)."
    )
