"""MMYOLO's constructors: three parameter groups, in the order that its warmup relies on."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from asynchooks.distributed import world_size
from asynchooks.errors import ConfigError, UnknownOptionError, did_you_mean
from asynchooks.optim._unwrap import unwrapped
from asynchooks.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS

__all__ = ["YOLOv5OptimizerConstructor", "YOLOv7OptimWrapperConstructor"]

logger = logging.getLogger(__name__)

_OPTION = "base_total_batch_size"


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class YOLOv5OptimizerConstructor:
    """Builds an optimizer wrapper with three groups: weights, norm layers' weights, biases.

    Weights alone decay. Where ``optimizer`` says ``batch_size_per_gpu``, the decay is multiplied by
    ``n * total / base_total_batch_size``: the batch of all ranks together, ``n`` times until it is about the base.
    Unlike MMYOLO's, a parameter with another name than weight or bias is optimized too, in the second group, and
    AdamW's default decay does not reach the second and third group.

    Args:
        optim_wrapper_cfg: ``dict(optimizer=dict(type="SGD", lr=0.01, weight_decay=5e-4, batch_size_per_gpu=16))``.
        paramwise_cfg: ``dict(base_total_batch_size=64)``, which is the default.
        scope: scope that is asked first for a bare name.

    Raises:
        UnknownOptionError, ConfigError: something in it is wrong.
    """

    def __init__(
        self,
        optim_wrapper_cfg: Mapping[str, Any],
        paramwise_cfg: Mapping[str, Any] | None = None,
        *,
        scope: str | None = None,
    ) -> None:
        name = type(self).__name__
        if not isinstance(optim_wrapper_cfg, Mapping) or not isinstance(
            optim_wrapper_cfg.get("optimizer"), Mapping
        ):
            raise ConfigError(
                f"{name} needs optim_wrapper_cfg=dict(optimizer=dict(type=...)), not {optim_wrapper_cfg!r}."
            )
        self.optim_wrapper_cfg = {"type": "OptimWrapper", **optim_wrapper_cfg}
        self.optimizer_cfg = dict(self.optim_wrapper_cfg.pop("optimizer"))
        self.base_total_batch_size = _base(name, paramwise_cfg)
        self._batch_size = self.optimizer_cfg.pop("batch_size_per_gpu", None)
        if self._batch_size is not None:
            _check_count(name, "batch_size_per_gpu", self._batch_size)
        self._scope = scope
        OPTIM_WRAPPERS.check(self.optim_wrapper_cfg, scope=scope, provided=("optimizer",))

    def __call__(self, model: nn.Module) -> Any:
        """Return the optimizer wrapper of a model's parameters."""
        options = dict(self.optimizer_cfg)
        decay = options.pop("weight_decay", 0) * self._decay_factor()
        weights, others, biases = _kinds(unwrapped(model))
        groups = [
            {"params": weights, "weight_decay": decay},
            {"params": others, "weight_decay": 0.0},
            {"params": biases, "weight_decay": 0.0},
        ]
        logger.info(
            "%d weights decay by %g; %d norms' weights and %d biases do not",
            len(weights),
            decay,
            len(others),
            len(biases),
        )
        optimizer = OPTIMIZERS.build(options, scope=self._scope, params=groups)
        return OPTIM_WRAPPERS.build(self.optim_wrapper_cfg, scope=self._scope, optimizer=optimizer)

    def _decay_factor(self) -> float:
        if self._batch_size is None:
            return 1.0
        total: int = self._batch_size * world_size()
        passes = max(round(self.base_total_batch_size / total), 1)
        return total * passes / self.base_total_batch_size


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class YOLOv7OptimWrapperConstructor(YOLOv5OptimizerConstructor):
    """The same groups: the implicit knowledge of YOLOv7's heads is neither weight nor bias and does not decay."""


def _kinds(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """Return a model's parameters: weights, norm layers' weights and what has another name, biases."""
    weights: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    biases: list[nn.Parameter] = []
    seen: set[int] = set()
    for module in model.modules():
        for name, param in module.named_parameters(recurse=False):
            if id(param) in seen:  # two modules share it
                continue
            seen.add(id(param))
            is_weight = name == "weight" and not isinstance(module, _NormBase)
            (biases if name == "bias" else weights if is_weight else others).append(param)
    return weights, others, biases


def _base(owner: str, paramwise_cfg: Any) -> int:
    if paramwise_cfg is None:
        return 64
    if not isinstance(paramwise_cfg, Mapping):
        raise ConfigError(f"{owner}: paramwise_cfg is a dict or None, not {paramwise_cfg!r}.")
    for name in paramwise_cfg:
        if name != _OPTION:
            raise UnknownOptionError(
                f"{owner}: paramwise_cfg has no option {name!r}.{did_you_mean(str(name), [_OPTION])} "
                f"It takes: {_OPTION}."
            )
    if _OPTION not in paramwise_cfg:
        raise ConfigError(f"{owner}: paramwise_cfg is dict({_OPTION}=...) or None, not {paramwise_cfg!r}.")
    return _check_count(owner, _OPTION, paramwise_cfg[_OPTION])


def _check_count(owner: str, name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{owner}: {name} is an int of at least 1, not {value!r}.")
    return value
