"""MMCV 1.x's default constructor, which builds an optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from asynchooks.optim._constructors._options import MULTIPLIERS
from asynchooks.optim._constructors._paramwise import ParamwiseConstructor
from asynchooks.registry import OPTIM_WRAPPER_CONSTRUCTORS

__all__ = ["DefaultOptimizerConstructor"]


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class DefaultOptimizerConstructor(ParamwiseConstructor):
    """Builds the optimizer of a model: ``constructor(model)``.

    As `DefaultOptimWrapperConstructor`, with MMCV's differences: a parameter without ``requires_grad`` has a group,
    without options; of norm, dwconv and bias the first counts for the weight decay; the factors are 1.0 where they
    are left out; ``custom_keys`` know ``lr_mult`` and ``decay_mult`` alone; there is no ``flat_decay_mult``. Unlike
    MMCV's, ``bypass_duplicate`` covers parameters without ``requires_grad`` too.

    Args:
        optimizer_cfg: ``dict(type=..., lr=..., ...)``.
        paramwise_cfg: the options.
        scope: scope that is asked first for a bare name.
    """

    options: ClassVar[tuple[str, ...]] = ("custom_keys", *MULTIPLIERS, "bypass_duplicate")

    def __init__(
        self,
        optimizer_cfg: Mapping[str, Any],
        paramwise_cfg: Mapping[str, Any] | None = None,
        *,
        scope: str | None = None,
    ) -> None:
        super().__init__(optimizer_cfg, paramwise_cfg, scope)

    def __call__(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return the optimizer of a model's parameters."""
        return self.build_optimizer(model)

    def _add_rules(
        self, group: dict[str, Any], module: nn.Module, prefix: str, name: str, *, is_dcn: bool
    ) -> None:
        is_norm, is_bias = self._is_norm(module), name == "bias" and not is_dcn
        if is_bias and not is_norm:
            self._multiply(group, "lr", "bias_lr_mult", 1.0)
        if self._is_dcn_offset(module, prefix, is_dcn=is_dcn):
            self._multiply(group, "lr", "dcn_offset_lr_mult", 1.0)
        if is_norm:
            self._multiply(group, "weight_decay", "norm_decay_mult", 1.0)
        elif self._is_depthwise(module):
            self._multiply(group, "weight_decay", "dwconv_decay_mult", 1.0)
        elif is_bias:
            self._multiply(group, "weight_decay", "bias_decay_mult", 1.0)
