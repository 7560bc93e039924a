"""Learning rates that decay from the head to the input, layer by layer or stage by stage."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

from asynchooks.errors import ConfigError
from asynchooks.optim._constructors._layer_id import layer_id_of
from asynchooks.optim._constructors._mmcv import DefaultOptimizerConstructor
from asynchooks.optim._constructors._mmengine import DefaultOptimWrapperConstructor
from asynchooks.registry import OPTIM_WRAPPER_CONSTRUCTORS

__all__ = ["LearningRateDecayOptimWrapperConstructor", "LearningRateDecayOptimizerConstructor"]

logger = logging.getLogger(__name__)

_OPTIONS = ("num_layers", "decay_rate", "decay_type", "layer_id")
# What a base file may set for the default constructor; here the layer and the kind of a parameter alone decide.
_WITHOUT_EFFECT = (*DefaultOptimWrapperConstructor.options,)
_TYPES = ("layer_wise", "stage_wise")
_WITHOUT_DECAY = ("bias", "pos_embed", "cls_token")


class _LayerDecay:
    """Groups parameters by their layer and by whether they decay; see the constructors below."""

    options: ClassVar[tuple[str, ...]] = (*_OPTIONS, *_WITHOUT_EFFECT)
    paramwise_cfg: dict[str, Any]
    base_lr: Any
    base_wd: Any

    def add_params(
        self,
        params: list[dict[str, Any]],
        module: nn.Module,
        prefix: str = "",
        is_dcn_module: bool | None = None,  # noqa: FBT001 - MMEngine's signature
    ) -> None:
        """Append one group per layer and kind, with ``lr_scale``, ``group_name`` and ``param_names``."""
        del prefix, is_dcn_module
        num_layers = self.paramwise_cfg["num_layers"]
        decay_type = self.paramwise_cfg.get("decay_type", _TYPES[0])
        layer_id = layer_id_of(module, decay_type, self.paramwise_cfg.get("layer_id"))
        groups: dict[str, dict[str, Any]] = {}
        for name, param in module.named_parameters():
            if not param.requires_grad:
                continue
            layer = _checked_layer(layer_id(name, num_layers), name, num_layers)
            decays = not (param.ndim == 1 or name.rpartition(".")[2] in _WITHOUT_DECAY)
            group_name = f"layer_{layer}_{'decay' if decays else 'no_decay'}"
            if group_name not in groups:
                groups[group_name] = self._group(group_name, num_layers + 1 - layer, decays=decays)
            groups[group_name]["params"].append(param)
            groups[group_name]["param_names"].append(name)
        for group in groups.values():
            logger.info(
                "%s: lr_scale=%s for %s",
                group["group_name"],
                group["lr_scale"],
                ", ".join(group["param_names"]),
            )
        params.extend(groups.values())

    def _group(self, name: str, steps_to_head: int, *, decays: bool) -> dict[str, Any]:
        scale = self.paramwise_cfg["decay_rate"] ** steps_to_head
        group = {
            "params": [],
            "param_names": [],
            "lr_scale": scale,
            "group_name": name,
            "lr": scale * self.base_lr,
        }
        if not decays or self.base_wd is not None:
            group["weight_decay"] = self.base_wd if decays else 0.0
        return group


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LearningRateDecayOptimWrapperConstructor(_LayerDecay, DefaultOptimWrapperConstructor):
    """Builds an optimizer wrapper whose learning rates decay by ``decay_rate`` per layer from the head.

    A layer's learning rate is ``lr * decay_rate ** (num_layers + 1 - layer_id)``. Biases, other parameters of one
    dimension, and position and class tokens have no weight decay; parameters without ``requires_grad`` are left out.
    ``paramwise_cfg`` is ``dict(num_layers=..., decay_rate=..., decay_type="layer_wise" or "stage_wise",
    layer_id=None)``. Unlike MMDetection's it is not for ConvNeXt alone. Who numbers the layers, the first of:

    - ``layer_id``, a function of (parameter name, num_layers), which returns 0 for what comes before the first
      layer, up to ``num_layers + 1`` for the head;
    - a method ``layer_id(param_name, num_layers)`` of the model or of its ``backbone``;
    - the parameter names of a ConvNeXt, or (layer_wise) of a vision transformer or BEiT: of ``model.backbone``, or
      of the model where there is none.

    Args:
        optim_wrapper_cfg: ``dict(type="OptimWrapper", optimizer=dict(type=..., lr=...), ...)``.
        paramwise_cfg: the options.
        scope: scope that is asked first for a bare name.
    """

    def __init__(
        self,
        optim_wrapper_cfg: Mapping[str, Any],
        paramwise_cfg: Mapping[str, Any] | None = None,
        *,
        scope: str | None = None,
    ) -> None:
        super().__init__(optim_wrapper_cfg, paramwise_cfg, scope=scope)
        _check(type(self).__name__, self.paramwise_cfg, self.optimizer_cfg)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LearningRateDecayOptimizerConstructor(_LayerDecay, DefaultOptimizerConstructor):
    """Builds an optimizer, as `LearningRateDecayOptimWrapperConstructor` does with a wrapper around it.

    Args:
        optimizer_cfg: ``dict(type=..., lr=..., ...)``.
        paramwise_cfg: the options.
        scope: scope that is asked first for a bare name.
    """

    def __init__(
        self,
        optimizer_cfg: Mapping[str, Any],
        paramwise_cfg: Mapping[str, Any] | None = None,
        *,
        scope: str | None = None,
    ) -> None:
        super().__init__(optimizer_cfg, paramwise_cfg, scope=scope)
        _check(type(self).__name__, self.paramwise_cfg, self.optimizer_cfg)


def _check(owner: str, options: Mapping[str, Any], optimizer_cfg: Mapping[str, Any]) -> None:
    for name in ("num_layers", "decay_rate"):
        if name not in options:
            raise ConfigError(
                f"{owner} needs paramwise_cfg=dict(num_layers=..., decay_rate=...); it has {list(options)}."
            )
    idle = [name for name in options if name in _WITHOUT_EFFECT]
    if idle:
        logger.warning("%s: options of paramwise_cfg without effect: %s", owner, ", ".join(idle))
    num_layers, rate = options["num_layers"], options["decay_rate"]
    if isinstance(num_layers, bool) or not isinstance(num_layers, int) or num_layers < 1:
        raise ConfigError(f"{owner}: num_layers is an int of at least 1, not {num_layers!r}.")
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not rate > 0:
        raise ConfigError(f"{owner}: decay_rate is a number above 0, not {rate!r}.")
    decay_type = options.get("decay_type", _TYPES[0])
    if decay_type not in _TYPES:
        raise ConfigError(f"{owner}: decay_type is {' or '.join(map(repr, _TYPES))}, not {decay_type!r}.")
    if options.get("layer_id") is not None and not callable(options["layer_id"]):
        raise ConfigError(
            f"{owner}: layer_id is a function of (param_name, num_layers), not {options['layer_id']!r}."
        )
    if optimizer_cfg.get("lr") is None:
        raise ConfigError(f"{owner} scales the optimizer's lr, so optimizer=dict(...) must say lr=...")


def _checked_layer(layer: Any, name: str, num_layers: int) -> int:
    if not isinstance(layer, int) or not 0 <= layer <= num_layers + 1:
        raise ConfigError(
            f"The layer of {name} is {layer!r}; with num_layers={num_layers} it lies between 0 and {num_layers + 1}."
        )
    return layer
