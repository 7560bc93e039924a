"""Ends a training whose loss has become infinite or NaN, instead of letting it spoil what follows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from asynchooks.errors import ConfigError, InvalidLossError
from asynchooks.execution import Effects, Hook
from asynchooks.registry import HOOKS

__all__ = ["CheckInvalidLossHook"]


@HOOKS.register_module()
class CheckInvalidLossHook(Hook):
    """Looks at the loss every so many iterations. Waits for the device then, and only then.

    Args:
        interval: iterations from one look to the next; never for 0 and less.
    """

    effects = Effects()
    changes_state = False

    def __init__(self, interval: int = 50) -> None:
        if isinstance(interval, bool) or not isinstance(interval, int):
            raise TypeError(
                f"CheckInvalidLossHook(interval={interval!r}): give an int, a number of iterations."
            )
        self.interval = interval

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Look at the loss, where it is time.

        Raises:
            InvalidLossError: (an AssertionError) it is infinite or NaN.
            ConfigError: the training step returns no loss.
        """
        del batch_idx, data_batch
        if self.every_n_train_iters(runner, self.interval):
            losses = outputs if isinstance(outputs, Mapping) else {"loss": outputs}
            if losses.get("loss") is None:
                came = sorted(map(str, outputs)) if isinstance(outputs, Mapping) else outputs
                raise ConfigError(f"CheckInvalidLossHook: the training step returns no 'loss' but {came}.")
            if not _is_finite(losses["loss"]):
                raise InvalidLossError(_message(runner, losses))


def _is_finite(value: Any) -> bool:
    return bool(torch.isfinite(torch.as_tensor(value)).all())


def _message(runner: Any, losses: Mapping[str, Any]) -> str:
    bad = [name for name, value in losses.items() if "loss" in str(name) and not _is_finite(value)]
    parts = ", ".join(f"{name} is {torch.as_tensor(losses[name]).detach().cpu().tolist()}" for name in bad)
    return (
        f"The loss has become infinite or NaN at iteration {runner.iter + 1} (epoch {runner.epoch + 1}): {parts}. "
        f"Lower the learning rate, clip gradients (optim_wrapper=dict(clip_grad=...)), or look at this batch."
    )
