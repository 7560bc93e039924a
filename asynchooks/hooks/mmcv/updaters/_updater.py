"""What learning rate and momentum updaters share: when a value is set, the warmup, and several optimizers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from asynchooks.errors import ConfigError
from asynchooks.execution import Effects, Hook
from asynchooks.optim import GroupValue, policies

__all__ = ["ByGroup", "Target", "UpdaterHook", "by_optimizer", "check_cycle", "groups_of", "per_group"]

# One value per parameter group; with several optimizers, such a list for each name.
ByGroup: TypeAlias = list[float] | dict[str, list[float]]

_WARMUPS = ("constant", "linear", "exp")


class UpdaterHook(Hook):
    """Sets one value of every parameter group: per epoch or per iteration, warmed up in the first iterations.

    ``runner.optimizer`` is a torch optimizer or a dict of them; values stand in one list over the groups of all.

    Args:
        by_epoch: whether the value changes from epoch to epoch, or from iteration to iteration.
        warmup: None, "constant", "linear" or "exp".
        warmup_iters: how long the warmup lasts, in iterations.
        warmup_ratio: part of the regular value that the warmup starts with.
        warmup_by_epoch: whether ``warmup_iters`` counts epochs.
    """

    effects = Effects()
    changes_state = False  # parameter groups alone, which no capture copies later

    def __init__(
        self,
        *,
        by_epoch: bool,
        warmup: str | None,
        warmup_iters: int,
        warmup_ratio: float,
        warmup_by_epoch: bool,
    ) -> None:
        if warmup is not None:
            self._require(warmup in _WARMUPS, f"warmup is None or one of {_WARMUPS}, not {warmup!r}")
            self._require(warmup_iters > 0, f"warmup_iters is a positive int, not {warmup_iters!r}")
            self._require(0 < warmup_ratio <= 1, f"warmup_ratio is in (0, 1], not {warmup_ratio!r}")
        self.by_epoch = by_epoch
        self.warmup = warmup
        self.warmup_ratio = warmup_ratio
        self.warmup_by_epoch = warmup_by_epoch
        self.warmup_iters: int | None = None if warmup_by_epoch else warmup_iters
        self.warmup_epochs: int | None = warmup_iters if warmup_by_epoch else None
        self._base: list[float] = []
        self._regular: list[float] = []
        self._optimizer: Any = None

    def before_run(self, runner: Any) -> None:
        """Note each group's first value, under ``initial_...`` in the group where it is not yet."""
        self._base = [self._value_of(group).first(group) for group in groups_of(runner.optimizer)]
        self._optimizer = runner.optimizer
        self._regular = []

    def before_train_epoch(self, runner: Any) -> None:
        """Set the value of the epoch."""
        self._know_warmup(runner)
        if self.by_epoch:
            self._regular = self._regular_values(runner)
            self._apply(runner, self._regular)

    def before_train_iter(self, runner: Any, batch_idx: int = 0, data_batch: Any = None) -> None:
        """Set the value of the iteration, or that of the warmup."""
        length = self._know_warmup(runner)
        position = runner.iter
        if not self.by_epoch or not self._regular:
            self._regular = self._regular_values(runner)
        if self.warmup is not None and position < length:
            self._apply(runner, self._warmup_values(position))
        elif not self.by_epoch or (self.warmup is not None and position == length):
            self._apply(runner, self._regular)

    def _value_of(self, group: Mapping[str, Any]) -> GroupValue:
        raise NotImplementedError

    def _regular_values(self, runner: Any) -> list[float]:
        raise NotImplementedError

    def _warmup_values(self, position: int) -> list[float]:
        raise NotImplementedError

    def _warmup_factor(self, position: int) -> float:
        return policies.warmup_factor(
            self.warmup or "constant", self.warmup_ratio, position, self.warmup_iters or 0
        )

    def _know_warmup(self, runner: Any) -> int:
        if self.warmup_iters is None:
            self.warmup_iters = (self.warmup_epochs or 0) * len(runner.data_loader)
        return self.warmup_iters

    def _apply(self, runner: Any, values: list[float]) -> None:
        for group, value in zip(groups_of(runner.optimizer), values, strict=True):
            self._value_of(group).write(group, value)

    def _progress(self, runner: Any) -> int:
        return int(runner.epoch if self.by_epoch else runner.iter)

    def _length(self, runner: Any) -> int:
        """Return the epochs or iterations of the whole run."""
        length = runner.max_epochs if self.by_epoch else runner.max_iters
        if length is None:
            unit = "epochs" if self.by_epoch else "iterations"
            raise ConfigError(f"{type(self).__name__} needs to know how many {unit} the run has.")
        return int(length)

    def _require(self, condition: object, words: str) -> None:
        if not condition:
            raise ConfigError(f"{type(self).__name__}: {words}.")


class Target:
    """The value that a schedule goes to: a number, or a ratio of each group's first value; exactly one is given."""

    def __init__(self, owner: Any, noun: str, lowest: float | None, ratio: float | None) -> None:
        if (lowest is None) == (ratio is None):
            raise ConfigError(
                f"{type(owner).__name__} goes to min_{noun} or to min_{noun}_ratio, one of them; got "
                f"min_{noun}={lowest!r}, min_{noun}_ratio={ratio!r}."
            )
        self._lowest = lowest
        self._ratio = ratio

    def of(self, base: float) -> float:
        """Return the target of a group."""
        return base * self._ratio if self._ratio is not None else (self._lowest or 0.0)


def check_cycle(
    owner: Any, target_ratio: Any, cyclic_times: int, step_ratio_up: float, gamma: float, *, by_epoch: bool
) -> tuple[float, float]:
    """Return the two ratios of a cyclic schedule; the second is the first's 1e-5th where left out."""
    ratios = (target_ratio,) if isinstance(target_ratio, float) else target_ratio
    name = type(owner).__name__
    if not isinstance(ratios, tuple | list) or len(ratios) not in (1, 2):
        raise ConfigError(f"{name}: target_ratio is a float or a tuple of two, not {target_ratio!r}.")
    if by_epoch or cyclic_times < 1 or not 0 <= step_ratio_up < 1 or not 0 < gamma <= 1:
        raise ConfigError(
            f"{name} wants by_epoch=False, cyclic_times of at least 1, step_ratio_up in [0, 1) and gamma in (0, 1]; "
            f"got by_epoch={by_epoch!r}, cyclic_times={cyclic_times!r}, step_ratio_up={step_ratio_up!r}, "
            f"gamma={gamma!r}."
        )
    return float(ratios[0]), float(ratios[1] if len(ratios) == 2 else ratios[0] / 1e5)


def groups_of(optimizer: Any) -> list[dict[str, Any]]:
    """Return the parameter groups of an optimizer, or of all in a dict of them."""
    return [group for _, each in _named(optimizer) for group in each.param_groups]


def by_optimizer(values: list[float], optimizer: Any) -> ByGroup:
    """Return values of all groups in MMCV's shape: by name where there are several optimizers."""
    if not isinstance(optimizer, Mapping):
        return list(values)
    left = iter(values)
    return {name: [next(left) for _ in each.param_groups] for name, each in optimizer.items()}


def per_group(owner: Any, argument: str, value: Any, optimizer: Any) -> list[float]:
    """Return an argument's number for every parameter group.

    Args:
        owner: the hook, for messages.
        argument: name of the argument, for messages.
        value: one number; one per group; or such by the optimizer's name (its class's where there is but one).
        optimizer: an optimizer, or a dict of them.
    """
    found: list[float] = []
    for name, each in _named(optimizer):
        if isinstance(value, Mapping) and name not in value:
            raise ConfigError(f"{type(owner).__name__}: {argument} has no {name!r}; it has {list(value)}.")
        own = value[name] if isinstance(value, Mapping) else value
        numbers = list(own) if isinstance(own, Sequence) else [own] * len(each.param_groups)
        if len(numbers) != len(each.param_groups):
            raise ConfigError(
                f"{type(owner).__name__}: {argument} has one number per parameter group of {name}, "
                f"{len(each.param_groups)}, not {len(numbers)}."
            )
        found += map(float, numbers)
    return found


def _named(optimizer: Any) -> list[tuple[str, Any]]:
    if isinstance(optimizer, Mapping):
        return list(optimizer.items())
    return [(type(optimizer).__name__, optimizer)]
