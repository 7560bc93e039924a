"""Averages of a model's weights over the steps of a training, as models beside it.

Decides how a new weight enters the average; which steps are averaged is the caller's. Torch's `AveragedModel` reads
its step counter, on the device, at every update; here nothing waits for the device. The state has MMEngine's keys.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from asynchooks.errors import ConfigError
from asynchooks.optim._checks import checked_count, checked_fraction
from asynchooks.optim._shards import copied
from asynchooks.registry import MODELS

__all__ = [
    "BaseAveragedModel",
    "ExpMomentumEMA",
    "ExponentialMovingAverage",
    "MomentumAnnealingEMA",
    "StochasticWeightAverage",
    "check_averaged_model",
]

logger = logging.getLogger(__name__)


class BaseAveragedModel(nn.Module):
    """A copy of a model whose weights are averages of the model's.

    The first update copies; later ones average the floating-point weights, every ``interval``-th. A subclass defines
    `avg_func`, for one tensor, and may define `foreach_func`, the same for lists of tensors at once.

    Args:
        model: the model to average; it is copied.
        interval: updates from one that averages to the next.
        device: where the copy is kept; None leaves it where the model is.
        update_buffers: whether buffers are averaged too. They are copied at every update otherwise.

    Attributes:
        module: the copy.
        steps: updates so far, a 0-d int64 tensor.
    """

    steps: Tensor

    def __init__(
        self,
        model: nn.Module,
        interval: int = 1,
        device: torch.device | str | None = None,
        update_buffers: bool = False,  # noqa: FBT001, FBT002 - MMEngine's signature
    ) -> None:
        super().__init__()
        self.module = copied(model).requires_grad_(requires_grad=False)
        if device is not None:
            self.module = self.module.to(device)
        self.register_buffer("steps", torch.tensor(0, dtype=torch.long, device=device))
        self.interval = checked_count(type(self).__name__, "interval", interval, least=1)
        self.update_buffers = update_buffers
        self._count: int | None = 0  # what `steps` holds; None after loading

    def avg_func(self, averaged_param: Tensor, source_param: Tensor, steps: int) -> None:
        """Let a new value enter an average, in place.

        Args:
            averaged_param: the average.
            source_param: the new value, on the same device.
            steps: updates before this one, at least 1.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no avg_func.")

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the averaged model."""
        return self.module(*args, **kwargs)

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Take the model's present weights into the average. Does not wait for the device."""
        steps = self._steps()
        if steps == 0:
            self._started()
            _copy(list(self._pairs(model, averaged=True)))
        elif steps % self.interval == 0:
            pairs = self._pairs(model, averaged=True)
            self._average([pair for pair in pairs if pair[0].is_floating_point()], steps)
        _copy(list(self._pairs(model, averaged=False)))
        self.steps += 1
        self._count = steps + 1

    @torch.no_grad()
    def copy_from(self, model: nn.Module) -> None:
        """Take over the model's weights and buffers as they are, without counting an update."""
        _copy([*self._pairs(model, averaged=True), *self._pairs(model, averaged=False)])

    @torch.no_grad()
    def swap_with(self, model: nn.Module) -> None:
        """Exchange the averaged weights (and buffers, if they are averaged) with the model's, in place."""
        for averaged, source in self._pairs(model, averaged=True):
            kept = averaged.clone()
            averaged.copy_(source)
            source.copy_(kept)

    def _started(self) -> None:
        """Say what is noteworthy when averaging begins."""

    def _pairs(self, model: nn.Module, *, averaged: bool) -> Iterator[tuple[Tensor, Tensor]]:
        """Pair the copy's tensors with the model's: those that are averaged, or those that are only copied."""
        buffers = zip(self.module.buffers(), model.buffers(), strict=True)
        if not averaged:
            return iter(()) if self.update_buffers else buffers
        parameters = zip(self.module.parameters(), model.parameters(), strict=True)
        return itertools.chain(parameters, buffers) if self.update_buffers else parameters

    def _average(self, pairs: Sequence[tuple[Tensor, Tensor]], steps: int) -> None:
        averages = [averaged.detach() for averaged, _ in pairs]
        sources = [source.detach().to(averaged.device) for averaged, source in pairs]
        if self._averages_lists and averages:
            self.foreach_func(averages, sources, steps)
            return
        for averaged, source in zip(averages, sources, strict=True):
            self.avg_func(averaged, source, steps)

    def foreach_func(self, averaged: list[Tensor], sources: list[Tensor], steps: int) -> None:
        """Do as `avg_func`, for all tensors at once."""
        raise NotImplementedError

    @property
    def _averages_lists(self) -> bool:
        """Whether the class that defines `avg_func` last has its `foreach_func` too: a subclass may change one."""
        owner = next(cls for cls in type(self).__mro__ if "avg_func" in vars(cls))
        return owner is not BaseAveragedModel and "foreach_func" in vars(owner)

    def _steps(self) -> int:
        if self._count is None:
            self._count = int(self.steps)
        return self._count

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._count = None


@MODELS.register_module()
class StochasticWeightAverage(BaseAveragedModel):
    """The mean of all weights: stochastic weight averaging (Izmailov et al., UAI 2018, arXiv 1803.05407).

    Args: see `BaseAveragedModel`.
    """

    def avg_func(self, averaged_param: Tensor, source_param: Tensor, steps: int) -> None:
        """Let a new value enter the mean."""
        averaged_param.add_(source_param - averaged_param, alpha=1 / (steps // self.interval + 1))

    def foreach_func(self, averaged: list[Tensor], sources: list[Tensor], steps: int) -> None:
        """Do as `avg_func`, for all tensors at once."""
        torch._foreach_add_(
            averaged,
            torch._foreach_sub(sources, averaged),  # noqa: SLF001
            alpha=1 / (steps // self.interval + 1),
        )


@MODELS.register_module()
class ExponentialMovingAverage(BaseAveragedModel):
    """``average = (1 - momentum) * average + momentum * weight``.

    Args:
        model, interval, device, update_buffers: see `BaseAveragedModel`.
        momentum: weight of the new value, between 0 and 1, usually small; not an optimizer's momentum.
    """

    def __init__(
        self,
        model: nn.Module,
        momentum: float = 0.0002,
        interval: int = 1,
        device: torch.device | str | None = None,
        update_buffers: bool = False,  # noqa: FBT001, FBT002
    ) -> None:
        super().__init__(model, interval, device, update_buffers)
        self.momentum = checked_fraction(type(self).__name__, "momentum", momentum)

    def momentum_at(self, steps: int) -> float:
        """Return the weight of the new value, after so many updates."""
        del steps
        return self.momentum

    def avg_func(self, averaged_param: Tensor, source_param: Tensor, steps: int) -> None:
        """Let a new value enter the average."""
        averaged_param.lerp_(source_param, self.momentum_at(steps))

    def foreach_func(self, averaged: list[Tensor], sources: list[Tensor], steps: int) -> None:
        """Do as `avg_func`, for all tensors at once."""
        torch._foreach_lerp_(averaged, sources, self.momentum_at(steps))

    def _started(self) -> None:
        if self.momentum > 0.5:
            logger.warning(
                "%s: momentum=%s is the weight of each new value, which is usually small",
                type(self).__name__,
                self.momentum,
            )


@MODELS.register_module()
class MomentumAnnealingEMA(ExponentialMovingAverage):
    """A moving average whose momentum falls from 1 to ``momentum``: ``max(momentum, gamma / (gamma + steps))``.

    Args:
        model, interval, device, update_buffers: see `BaseAveragedModel`.
        momentum: the last momentum.
        gamma: how slowly it falls, in updates.
    """

    def __init__(
        self,
        model: nn.Module,
        momentum: float = 0.0002,
        gamma: int = 100,
        interval: int = 1,
        device: torch.device | str | None = None,
        update_buffers: bool = False,  # noqa: FBT001, FBT002
    ) -> None:
        super().__init__(model, momentum, interval, device, update_buffers)
        self.gamma = _checked_gamma(self, gamma)

    def momentum_at(self, steps: int) -> float:
        """Return the weight of the new value, after so many updates."""
        return max(self.momentum, self.gamma / (self.gamma + steps))


@MODELS.register_module()
class ExpMomentumEMA(ExponentialMovingAverage):
    """A moving average whose momentum falls exponentially from 1 to ``momentum``, as YOLOX uses it.

    The momentum is ``(1 - momentum) * exp(-(1 + steps) / gamma) + momentum``.

    Args:
        model, interval, device, update_buffers: see `BaseAveragedModel`.
        momentum: the last momentum.
        gamma: how slowly it falls, in updates.
    """

    def __init__(
        self,
        model: nn.Module,
        momentum: float = 0.0002,
        gamma: int = 2000,
        interval: int = 1,
        device: torch.device | str | None = None,
        update_buffers: bool = False,  # noqa: FBT001, FBT002
    ) -> None:
        super().__init__(model, momentum, interval, device, update_buffers)
        self.gamma = _checked_gamma(self, gamma)

    def momentum_at(self, steps: int) -> float:
        """Return the weight of the new value, after so many updates."""
        return (1 - self.momentum) * math.exp(-(1 + steps) / self.gamma) + self.momentum

    def avg_func(self, averaged_param: Tensor, source_param: Tensor, steps: int) -> None:
        """Let a new value enter the average."""
        momentum = self.momentum_at(steps)
        averaged_param.mul_(1 - momentum).add_(source_param, alpha=momentum)

    def foreach_func(self, averaged: list[Tensor], sources: list[Tensor], steps: int) -> None:
        """Do as `avg_func`, for all tensors at once."""
        momentum = self.momentum_at(steps)
        torch._foreach_mul_(averaged, 1 - momentum)
        torch._foreach_add_(averaged, sources, alpha=momentum)


def check_averaged_model(cfg: Mapping[str, Any], *, scope: str | None = None) -> None:
    """Raise what building an averaged model from a dict would raise about names, options and values.

    Raises:
        UnknownNameError, UnknownOptionError, ConfigError: the dict is wrong.
    """
    MODELS.check(cfg, scope=scope, provided=("model",))
    kind, options = MODELS.resolve(cfg, scope=scope)
    if getattr(kind, "__module__", None) == __name__:  # others may need more of a model than this one has
        kind(model=nn.Module(), **{**options, "device": None})


def _checked_gamma(owner: object, gamma: Any) -> int | float:
    if isinstance(gamma, bool) or not isinstance(gamma, int | float) or gamma <= 0:
        raise ConfigError(f"{type(owner).__name__}: gamma is a number above 0, not {gamma!r}.")
    return gamma


def _copy(pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
    if pairs:
        torch._foreach_copy_(
            [target.detach() for target, _ in pairs], [source.detach() for _, source in pairs]
        )
