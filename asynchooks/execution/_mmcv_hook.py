"""The base of hooks in MMCV 1.x's manner, whose methods take the runner alone."""

from __future__ import annotations

from typing import Any

from asynchooks.execution._convention import MMCV_POINTS
from asynchooks.execution._hook import Hook, overridden_method

__all__ = ["RunnerHook"]


class RunnerHook(Hook):
    """A hook whose methods take the runner alone and read ``runner.outputs``, ``runner.data_batch`` and so on.

    ``before_epoch``, ``after_epoch``, ``before_iter`` and ``after_iter`` serve the training and validation points
    that are not overridden. A method may be ``@background`` or ``async def`` as any other hook's; what is not
    overridden costs nothing at run time. For MMCV's runners, `EpochBasedRunner` and `IterBasedRunner`.
    """

    _is_hook_base = True

    convention = "mmcv"
    stages = MMCV_POINTS

    def before_epoch(self, runner: Any) -> Any:
        """Before each epoch of training and validation, unless the mode's own method is overridden."""

    def after_epoch(self, runner: Any) -> Any:
        """After each epoch of training and validation, unless the mode's own method is overridden."""

    def before_iter(self, runner: Any) -> Any:
        """Before each iteration of training and validation, unless the mode's own method is overridden."""

    def after_iter(self, runner: Any) -> Any:
        """After each iteration of training and validation, unless the mode's own method is overridden."""

    def before_train_epoch(self, runner: Any) -> Any:
        """Before each training epoch; once in an iteration-based run."""
        return self.before_epoch(runner)

    def before_val_epoch(self, runner: Any) -> Any:
        """Before each validation epoch."""
        return self.before_epoch(runner)

    def after_train_epoch(self, runner: Any) -> Any:
        """After each training epoch, before the epoch counter goes on."""
        return self.after_epoch(runner)

    def after_val_epoch(self, runner: Any) -> Any:  # type: ignore[override]  # MMCV's signature
        """After each validation epoch."""
        return self.after_epoch(runner)

    def before_train_iter(self, runner: Any) -> Any:  # type: ignore[override]
        """Before each training iteration."""
        return self.before_iter(runner)

    def before_val_iter(self, runner: Any) -> Any:  # type: ignore[override]
        """Before each validation iteration."""
        return self.before_iter(runner)

    def after_train_iter(self, runner: Any) -> Any:  # type: ignore[override]
        """After each training iteration, before the iteration counter goes on."""
        return self.after_iter(runner)

    def after_val_iter(self, runner: Any) -> Any:  # type: ignore[override]
        """After each validation iteration."""
        return self.after_iter(runner)

    @staticmethod
    def every_n_epochs(runner: Any, n: int) -> bool:  # type: ignore[override]
        """Whether the epoch that ends now is an n-th; never for n <= 0."""
        return n > 0 and bool((runner.epoch + 1) % n == 0)

    @staticmethod
    def every_n_inner_iters(runner: Any, n: int) -> bool:
        """Whether this iteration is an n-th inside its epoch; never for n <= 0."""
        return n > 0 and bool((runner.inner_iter + 1) % n == 0)

    @staticmethod
    def every_n_iters(runner: Any, n: int) -> bool:
        """Whether the iteration that ends now is an n-th; never for n <= 0."""
        return n > 0 and bool((runner.iter + 1) % n == 0)

    @staticmethod
    def end_of_epoch(runner: Any) -> bool:  # type: ignore[override]
        """Whether this is the last batch of the loader that is passed over."""
        return bool(runner.inner_iter + 1 == len(runner.data_loader))

    @staticmethod
    def is_last_epoch(runner: Any) -> bool:
        """Whether the epoch that ends now is the last of the run."""
        return bool(runner.epoch + 1 == runner.max_epochs)

    @staticmethod
    def is_last_iter(runner: Any) -> bool:
        """Whether the iteration that ends now is the last of the run."""
        return bool(runner.iter + 1 == runner.max_iters)

    def get_triggered_stages(self) -> list[str]:
        """Return MMCV's hook points at which this hook does something, in the order of a run."""
        return [point for point in MMCV_POINTS if overridden_method(self, point) is not None]
