"""One value of a parameter group: the learning rate, the momentum wherever an optimizer keeps it, or any other.

Decides where a value lies in a group and how its first value is remembered. Knows no schedule.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

import torch

from asynchooks.errors import ConfigError

__all__ = ["GroupValue", "momentum_in", "momentum_of"]


@dataclass(frozen=True, slots=True)
class GroupValue:
    """Names a value in parameter groups.

    Attributes:
        name: its key, such as "lr".
        in_betas: it is the first of ``betas``, where Adam and its kind keep what others call momentum.
    """

    name: str
    in_betas: bool = False

    def read(self, group: Mapping[str, Any]) -> float:
        """Return the value; on a device, this waits for it.

        Raises:
            ConfigError: the group has none.
        """
        key = "betas" if self.in_betas else self.name
        if key not in group:
            raise ConfigError(
                f"The optimizer's parameter groups have no {key!r} to schedule; they have "
                f"{sorted(name for name in group if name != 'params')}."
            )
        return float(group["betas"][0] if self.in_betas else group[self.name])

    def write(self, group: MutableMapping[str, Any], value: float) -> None:
        """Set the value; a tensor keeps its identity, as compiled optimizers need it."""
        if self.in_betas:
            group["betas"] = (value, *group["betas"][1:])
        elif isinstance(group[self.name], torch.Tensor):
            group[self.name].fill_(value)
        else:
            group[self.name] = value

    def first(self, group: MutableMapping[str, Any]) -> float:
        """Return the value from before every schedule, noted in the group under ``initial_<name>``."""
        return float(group.setdefault(f"initial_{self.name}", self.read(group)))


def momentum_of(optimizer: Any) -> GroupValue:
    """Return where an optimizer keeps its momentum.

    Raises:
        ConfigError: it has none.
    """
    if "momentum" in optimizer.defaults:
        return GroupValue("momentum")
    if "betas" in optimizer.defaults:
        return GroupValue("momentum", in_betas=True)
    raise ConfigError(
        f"{type(optimizer).__name__} has neither momentum nor betas, so there is no momentum to schedule."
    )


def momentum_in(group: Mapping[str, Any]) -> float:
    """Return a parameter group's momentum, else its first beta, else 0."""
    if "momentum" in group:
        return float(group["momentum"])
    return float(group["betas"][0]) if "betas" in group else 0.0
