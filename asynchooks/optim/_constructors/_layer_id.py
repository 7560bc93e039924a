"""Which layer of a backbone a parameter belongs to, counted from the input. Pure.

A model may say it itself; ConvNeXt and vision transformers are known by the names of their parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from asynchooks.errors import ConfigError

__all__ = ["LayerId", "layer_id_of"]

# (name of a parameter, num_layers) -> 0 for what comes before the first layer ... num_layers + 1 for the head
LayerId = Callable[[str, int], int]

_TOKENS = ("cls_token", "mask_token", "pos_embed", "dist_token")
_TRANSFORMERS = ("VisionTransformer", "ViT", "BEiT", "Beit")


def layer_id_of(model: nn.Module, decay_type: str, own: LayerId | None) -> LayerId:
    """Return the function that numbers a model's layers (or stages).

    The first of these counts: ``own``; a method ``layer_id(param_name, num_layers)`` of the model or of its
    ``backbone``; the names of ConvNeXt, and of a vision transformer (layers alone).

    Raises:
        ConfigError: none of them is there.
    """
    backbone = getattr(model, "backbone", None)
    for function in (own, getattr(model, "layer_id", None), getattr(backbone, "layer_id", None)):
        if callable(function):
            return function
    inner, prefix = (model, "") if backbone is None else (backbone, "backbone.")
    known = _known_names(inner, decay_type)
    if known is None:
        raise ConfigError(
            f"{type(inner).__name__}: its {decay_type.partition('_')[0]}s are not known; ConvNeXt's and (layer_wise) "
            f"vision transformers' are. Give the model a method layer_id(param_name, num_layers), or set "
            f"paramwise_cfg=dict(layer_id=function, ...): it returns 0 for what comes before the first layer, up to "
            f"num_layers + 1 for the head."
        )
    return lambda name, num_layers: known(_inside(name, prefix), num_layers)


def _known_names(backbone: Any, decay_type: str) -> Callable[[str | None, int], int] | None:
    names = [base.__name__ for base in type(backbone).__mro__]
    if any("ConvNeXt" in name for name in names):
        return _convnext_layer if decay_type == "layer_wise" else _convnext_stage
    if decay_type == "layer_wise" and any(part in name for name in names for part in _TRANSFORMERS):
        return _transformer_layer
    return None


def _inside(name: str, prefix: str) -> str | None:
    """Return a parameter's name inside the backbone; None where it is not in there."""
    return name.removeprefix(prefix) if name.startswith(prefix) else None


def _convnext_layer(name: str | None, num_layers: int) -> int:
    """Number layers as the ConvNeXt paper's training does: of the third stage, three blocks are a layer."""
    if name is None:
        return num_layers + 1
    if name in _TOKENS:
        return 0
    kind, *numbers = name.split(".")
    if kind == "downsample_layers":
        return {0: 0, 1: 2, 2: 3}.get(int(numbers[0]), num_layers)
    if kind == "stages":
        stage = int(numbers[0])
        return 3 + int(numbers[1]) // 3 if stage == 2 else {0: 1, 1: 2}.get(stage, num_layers)
    return num_layers + 1


def _convnext_stage(name: str | None, num_layers: int) -> int:
    if name is None:
        return num_layers + 1
    kind, *numbers = name.split(".")
    if name in _TOKENS or kind == "downsample_layers":
        return 0
    return int(numbers[0]) + 1 if kind == "stages" else num_layers + 1


def _transformer_layer(name: str | None, num_layers: int) -> int:
    if name is None:
        return num_layers + 1
    kind, *numbers = name.split(".")
    if kind in _TOKENS or kind == "patch_embed":
        return 0
    if kind in ("blocks", "layers") and numbers and numbers[0].isdigit():
        return int(numbers[0]) + 1
    return num_layers + 1
