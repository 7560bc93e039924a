"""Another size of the images every few epochs, the same on every rank."""

from __future__ import annotations

import random
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import distributed as dist

from asynchooks.data import restart_workers
from asynchooks.distributed import is_distributed
from asynchooks.errors import ConfigError
from asynchooks.execution import Effects, Hook
from asynchooks.registry import HOOKS

__all__ = ["SyncRandomSizeHook"]


@HOOKS.register_module()
class SyncRandomSizeHook(Hook):
    """Draws a size after an epoch and gives it to the data set (``update_dynamic_scale``).

    MMDetection has deprecated it: a transform that resizes at random does the same without it.

    Args:
        ratio_range: the smallest and the largest factor of 32 pixels; None switches the hook off.
        img_scale: height and width, whose ratio the drawn size keeps.
        interval: epochs from one draw to the next.
        device: where ranks exchange the size; only used where there are several.

    Raises:
        ConfigError: a wrong value.
    """

    effects = Effects()
    changes_state = False

    def __init__(
        self,
        ratio_range: Sequence[int] | None = (14, 26),
        img_scale: Sequence[int] = (640, 640),
        interval: int = 1,
        device: str | torch.device = "cuda",
    ) -> None:
        if ratio_range is not None:
            _pair("ratio_range", ratio_range)
        _pair("img_scale", img_scale)
        if isinstance(interval, bool) or not isinstance(interval, int) or interval < 1:
            raise ConfigError(f"SyncRandomSizeHook(interval={interval!r}): give an int >= 1, of epochs.")
        warnings.warn(
            "SyncRandomSizeHook is deprecated: use a transform that resizes at random.",
            DeprecationWarning,
            stacklevel=2,
        )
        self.ratio_range = ratio_range
        self.img_scale = img_scale
        self.interval = interval
        self.device = torch.device(device)
        self._size: tuple[int, int] | None = None  # the newest one; the data set lives in the process alone
        self._is_resumed = False

    def state_dict(self) -> dict[str, Any]:
        """Return the size that a resumed run goes on with."""
        return {"size": self._size}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a size; the data set gets it when the training begins."""
        self._is_resumed = True
        self._size = None if state["size"] is None else (int(state["size"][0]), int(state["size"][1]))

    def before_train(self, runner: Any) -> None:
        """Check that the data set takes a size and that ranks can exchange one.

        Raises:
            ConfigError: it does not, or the device is not there.
        """
        dataset = _dataset(runner)
        if is_distributed() and self.device.type == "cuda" and not torch.cuda.is_available():
            raise ConfigError(
                "SyncRandomSizeHook(device='cuda'): there is no such device; give device='cpu'."
            )
        if self._is_resumed and self._size is not None:
            dataset.update_dynamic_scale(self._size)
            restart_workers(runner.train_dataloader)
        self._is_resumed = False

    def after_train_epoch(self, runner: Any) -> None:
        """Draw a size, where it is time. Every rank draws, so that their random numbers stay alike; one counts."""
        if self.ratio_range is None or (runner.epoch + 1) % self.interval:
            return
        factor = random.randint(*self.ratio_range)
        height, width = self.img_scale
        size = (32 * factor, 32 * int(factor * (width / height)))
        if is_distributed():
            agreed = torch.tensor(size, device=self.device)
            dist.broadcast(agreed, 0)
            size = (int(agreed[0]), int(agreed[1]))
        self._size = size
        _dataset(runner).update_dynamic_scale(size)
        restart_workers(runner.train_dataloader)


def _dataset(runner: Any) -> Any:
    dataset = getattr(runner.train_dataloader, "dataset", None)
    if not hasattr(dataset, "update_dynamic_scale"):
        raise ConfigError(
            f"SyncRandomSizeHook: the training's data set, {type(dataset).__name__}, has no update_dynamic_scale()."
        )
    return dataset


def _pair(name: str, value: Any) -> None:
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2:
        raise ConfigError(f"SyncRandomSizeHook({name}={value!r}): give two ints.")
    if not all(isinstance(each, int) and each > 0 for each in value):
        raise ConfigError(f"SyncRandomSizeHook({name}={value!r}): give two ints above 0.")
    if name == "ratio_range" and value[0] > value[1]:
        raise ConfigError(f"SyncRandomSizeHook(ratio_range={value!r}): give the smallest factor first.")
