"""The same statistics of normalization layers on every rank, before they are validated or saved.

Collectives: on the training thread, in every rank's program order.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from asynchooks.distributed import all_reduce_mean, is_distributed
from asynchooks.errors import ConfigError
from asynchooks.execution import Effects, Hook
from asynchooks.registry import HOOKS

__all__ = ["SyncNormHook"]


@HOOKS.register_module()
class SyncNormHook(Hook):
    """Averages what normalization layers hold over all ranks. Without other ranks it does nothing.

    Without arguments, as in MMDetection 3: before each validation. With one of them, as in MMDetection 2: after
    every ``interval`` training epochs, and after every one of the last.

    Args:
        num_last_epochs: epochs at the end of the training that are all followed by an average; 15.
        interval: epochs from one average to the next, before; 1.

    Raises:
        ConfigError: a wrong value.
    """

    effects = Effects()

    def __init__(self, num_last_epochs: int | None = None, interval: int | None = None) -> None:
        for name, value, least in (("num_last_epochs", num_last_epochs, 0), ("interval", interval, 1)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise ConfigError(f"SyncNormHook({name}={value!r}): give an int >= {least}, of epochs.")
        self._after_training = num_last_epochs is not None or interval is not None
        self.num_last_epochs = 15 if num_last_epochs is None else num_last_epochs
        self.interval = 1 if interval is None else interval

    def after_train_epoch(self, runner: Any) -> None:
        """Average, in MMDetection 2's form, where it is time."""
        if self._after_training and (self._is_one_of_the_last(runner) or self._is_due(runner)):
            _average(runner.model)

    def before_val_epoch(self, runner: Any) -> None:
        """Average, in MMDetection 3's form."""
        if not self._after_training:
            _average(runner.model)

    def _is_due(self, runner: Any) -> bool:
        return bool((runner.epoch + 1) % self.interval == 0)

    def _is_one_of_the_last(self, runner: Any) -> bool:
        return runner.max_epochs is not None and runner.epoch + 1 >= runner.max_epochs - self.num_last_epochs


def _average(model: nn.Module) -> None:
    if is_distributed():
        all_reduce_mean(_states(model))


def _states(model: nn.Module) -> Iterable[Tensor]:
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):  # noqa: SLF001 - the base of all of them
            yield from module.state_dict().values()
