"""What hooks that switch once share: not before its time, not twice, and again in a run that was resumed.

Whether the switch was made is not in checkpoints: what it changes lives in the process, so a resumed run makes it
anew, before its first epoch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from asynchooks.data import restart_workers
from asynchooks.errors import ConfigError
from asynchooks.execution import Effects, Hook

__all__ = ["Switching"]


class Switching(Hook, ABC):
    """Switches before the first training epoch in which it is time, once per training."""

    effects = Effects()
    changes_state = False  # no weight, no buffer, no optimizer state
    _has_switched = False

    def before_train(self, runner: Any) -> None:
        """Begin a training, in which nothing is switched yet.

        Raises:
            ConfigError: the model or the data set does not have what is to be switched.
        """
        self._has_switched = False
        self._check(runner)

    def before_train_epoch(self, runner: Any) -> None:
        """Switch, where it is time and was not done; workers that know the data set of before are replaced."""
        if self._has_switched or not self._is_time(runner):
            return
        self._switch(runner)
        restart_workers(runner.train_dataloader)
        self._has_switched = True

    @abstractmethod
    def _is_time(self, runner: Any) -> bool:
        """Whether the epoch that begins is one after the switch."""

    @abstractmethod
    def _check(self, runner: Any) -> None:
        """Raise `ConfigError` for what could not be switched."""

    @abstractmethod
    def _switch(self, runner: Any) -> None:
        """Change what is to be changed."""

    def _dataset_with(self, runner: Any, attribute: str) -> Any:
        """Return the training's data set, which must have an attribute."""
        dataset = getattr(runner.train_dataloader, "dataset", None)
        if not hasattr(dataset, attribute):
            raise ConfigError(
                f"{type(self).__name__}: the training's data set, {type(dataset).__name__}, has no {attribute}."
            )
        return dataset
