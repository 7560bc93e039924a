"""The optimizers of a run in MMCV's manner: one, several by name, or none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from asynchooks.errors import ConfigError
from asynchooks.optim import OptimWrapper
from asynchooks.registry import OPTIMIZERS

__all__ = ["NamedOptimizers", "checked_optimizer", "wrapped"]

Optimizer = torch.optim.Optimizer


class NamedOptimizers:
    """Several optimizers, saved and loaded by their names.

    Args:
        optimizers: each by its name.
    """

    def __init__(self, optimizers: Mapping[str, Optimizer]) -> None:
        self.optimizer = dict(optimizers)

    def state_dict(self) -> dict[str, Any]:
        """Return the optimizers' states by name."""
        return {name: optimizer.state_dict() for name, optimizer in self.optimizer.items()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load the optimizers' states.

        Raises:
            KeyError: an optimizer has no state there.
        """
        for name, optimizer in self.optimizer.items():
            optimizer.load_state_dict(state_dict[name])

    def get_lr(self) -> dict[str, list[float]]:
        """Return the learning rates, ``{"name.lr": [one per parameter group]}``."""
        return dict(self._of_each("lr", OptimWrapper.get_lr))

    def get_momentum(self) -> dict[str, list[float]]:
        """Return the momentums, ``{"name.momentum": [one per parameter group]}``."""
        return dict(self._of_each("momentum", OptimWrapper.get_momentum))

    def _of_each(
        self, what: str, read: Callable[[OptimWrapper], dict[str, list[float]]]
    ) -> Iterator[tuple[str, list[float]]]:
        for name, optimizer in self.optimizer.items():
            yield f"{name}.{what}", read(OptimWrapper(optimizer))[what]


def wrapped(optimizer: Any) -> OptimWrapper | NamedOptimizers | None:
    """Return the optimizers as checkpoints and hooks take them."""
    if optimizer is None:
        return None
    return NamedOptimizers(optimizer) if isinstance(optimizer, Mapping) else OptimWrapper(optimizer)


def checked_optimizer(optimizer: Any, model: nn.Module) -> Optimizer | dict[str, Optimizer] | None:
    """Return an optimizer, several by name, or None; build it from a config dict.

    Raises:
        TypeError: it is none of these.
        ConfigError: the config dict is wrong.
    """
    if optimizer is None or isinstance(optimizer, Optimizer):
        return optimizer
    if not isinstance(optimizer, Mapping):
        raise TypeError(
            f"optimizer is a torch.optim.Optimizer, a dict of them, or a dict(type='SGD', lr=...), not {optimizer!r}."
        )
    if "type" in optimizer:
        return _built(optimizer, model)
    wrong = {name: each for name, each in optimizer.items() if not isinstance(each, Optimizer | Mapping)}
    if wrong or not optimizer:
        name, each = next(iter(wrong.items()), ("", None))
        raise TypeError(
            f"optimizer: a dict has torch.optim.Optimizers by name, or 'type' as the first of an optimizer's "
            f"options; optimizer[{name!r}] is {each!r}."
        )
    return {
        name: _built(each, model) if isinstance(each, Mapping) else each for name, each in optimizer.items()
    }


def _built(cfg: Mapping[str, Any], model: nn.Module) -> Optimizer:
    special = [name for name in ("constructor", "paramwise_cfg") if cfg.get(name) is not None]
    if special:
        raise ConfigError(
            f"optimizer={dict(cfg)!r}: {special[0]} makes parameter groups; build the optimizer first, and pass it."
        )
    options = {name: value for name, value in cfg.items() if name not in ("constructor", "paramwise_cfg")}
    built: Optimizer = OPTIMIZERS.build(options, params=model.parameters())
    return built
